import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { describe, expect, test } from "vitest";

import { readEnvelopes } from "../../src/release/envelope.ts";
import { signersOf } from "../../src/release/signers.ts";
import { parsePublicKey } from "../../src/release/key.ts";
import { layout } from "../../src/release/layout.ts";
import { findPart } from "../support/parts.ts";
import { makeKey, overwrite, publishTo, readKey, tempFolder } from "../support/release.ts";
import type { TestKey } from "../support/release.ts";

const documentation = readFileSync(join(import.meta.dirname, "../../infra/verify.md"), "utf8");
const [script = ""] = blocks("sh");
const [cosignVerify = "", cosignSign = ""] = blocks("cosign");

function blocks(language: string): readonly string[] {
  const fence = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "gm");
  return [...documentation.matchAll(fence)].map(([, block = ""]) => block);
}

const files = {
  "1_users.up.sql": "create table users (id int);",
  "1_users.down.sql": "drop table users;",
  "2_email.up.sql": "alter table users add email text;",
  "3_items.up.sql": "create table items (id int);",
};

/** A published release, and the documentation's script run on it by a plain shell. */
async function release(signers: readonly [TestKey, ...TestKey[]]) {
  const bucket = await tempFolder();
  await publishTo(bucket.source, { "1_users.up.sql": files["1_users.up.sql"] }, { keys: signers });
  const result = await publishTo(bucket.source, files, {
    keys: signers,
    environments: ["staging", "production"],
  });
  const verify = async (key: TestKey, stream = "orders") => {
    const keyFile = join(bucket.path, "trusted.pub");
    await writeFile(keyFile, key.publicPem);
    const env = { PATH: "/usr/local/bin:/usr/bin:/bin", KEY: keyFile, STREAM: stream };
    const { status, stdout, stderr } = spawnSync("sh", ["-c", script], {
      cwd: bucket.path,
      env,
      encoding: "utf8",
    });
    return { status, stdout, stderr };
  };
  return { ...bucket, result, verify };
}

describe("the documented commands of openssl, sha256sum and jq", () => {
  test.for(["ecdsa-p256", "ed25519"] as const)("verify a published release signed with %s", async (kind) => {
    const key = makeKey(kind);
    await using published = await release([key]);
    const until = published.result.expires.toISOString().replace(".000", "");
    expect(await published.verify(key)).toEqual({
      status: 0,
      stdout: `orders release 2 for staging, production, until ${until}: verified\n`,
      stderr: "",
    });
  });

  test("find the one line among several that a key has signed", async () => {
    const [alice, bob] = [makeKey(), makeKey("ed25519")];
    await using published = await release([alice, bob]);
    expect((await published.verify(bob)).status).toBe(0);
    expect((await published.verify(alice)).status).toBe(0);
  });

  test("refuse a stranger's key, a changed body, a changed manifest and another stream", async () => {
    const key = makeKey();
    await using published = await release([key]);
    expect(await published.verify(makeKey())).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("not signed") as string,
    });
    expect(await published.verify(key, "billing")).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("another order") as string,
    });
    const [blob = ""] = await readdir(join(published.path, "blobs"));
    const body = await readKey(published.source, `blobs/${blob}`);
    await overwrite(published.source, `blobs/${blob}`, Buffer.concat([body, Buffer.from(" ")]));
    expect(await published.verify(key)).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("FAILED") as string,
    });
    await overwrite(published.source, `blobs/${blob}`, body);
    expect((await published.verify(key)).status).toBe(0);
    for (const name of await readdir(join(published.path, "manifests"))) {
      const manifest = await readKey(published.source, `manifests/${name}`);
      await overwrite(
        published.source,
        `manifests/${name}`,
        Buffer.from(manifest.toString().replace('"alone":true', '"alone":false')),
      );
    }
    expect(await published.verify(key)).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("another manifest") as string,
    });
  });

  test("refuse one release's lines under another's name", async () => {
    const key = makeKey();
    await using published = await release([key]);
    const names = await readdir(join(published.path, "releases"));
    const current = layout.release(published.result.digest.slice(7));
    const other = names.map((name) => `releases/${name}`).find((name) => name !== current) ?? "";
    await overwrite(published.source, current, await readKey(published.source, other));
    expect(await published.verify(key)).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("another statement") as string,
    });
  });
});

// It takes twenty minutes to build, so not even CI has it; whoever does, runs these too.
const cosigns = [findPart("cosign")].filter((program) => program !== undefined);

describe.for(cosigns)("the documented commands of %s", (program) => {
  const run = (folder: string, commands: string, env: Readonly<Record<string, string>>) => {
    const PATH = `${dirname(program)}:/usr/local/bin:/usr/bin:/bin`;
    return spawnSync("sh", ["-euc", commands], {
      cwd: folder,
      env: { PATH, HOME: folder, ...env },
      encoding: "utf8",
    });
  };

  test.for(["ecdsa-p256", "ed25519"] as const)("verify what was signed with %s", async (kind) => {
    const key = makeKey(kind);
    await using published = await release([key]);
    await writeFile(join(published.path, "key.pub"), key.publicPem);
    const env = { KEY: "key.pub", release: layout.release(published.result.digest.slice(7)) };
    expect(run(published.path, cosignVerify, env)).toMatchObject({ status: 0 });
  });

  test("add a second signature that counts", async () => {
    const key = makeKey();
    await using published = await release([key]);
    const path = layout.release(published.result.digest.slice(7));
    const env = { COSIGN_KEY: "cosign.key", COSIGN_PASSWORD: "", release: path };
    expect(run(published.path, "cosign generate-key-pair", env)).toMatchObject({ status: 0 });
    expect(run(published.path, cosignSign, env)).toMatchObject({ status: 0 });
    const other = parsePublicKey((await readKey(published.source, "cosign.pub")).toString(), "cosign's key");
    const envelopes = readEnvelopes(await readKey(published.source, path));
    expect(
      signersOf(envelopes, { keys: [key.public, other], identities: [], keyless: null }).map(({ id }) => id),
    ).toEqual([key.id, other.id]);
  });
});
