import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

import { describe, expect, test } from "vitest";

import { layout } from "../../src/release/layout.ts";
import { needs, part } from "../support/parts.ts";
import { makeKey, overwrite, publishTo, readKey, tempFolder } from "../support/release.ts";
import type { TestKey } from "../support/release.ts";

const documentation = readFileSync(join(import.meta.dirname, "../../infra/verify.md"), "utf8");
const [script = ""] = blocks("sh");
const [cosign = ""] = blocks("cosign");

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
  needs("openssl");

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

describe("the documented command of cosign", () => {
  needs("cosign");

  const verify = (folder: string, commands = cosign) =>
    spawnSync("sh", ["-euc", commands], {
      cwd: folder,
      env: { PATH: `${dirname(part("cosign"))}:/usr/local/bin:/usr/bin:/bin`, HOME: folder, KEY: "key.pub" },
      encoding: "utf8",
    });

  test.for(["ecdsa-p256", "ed25519"] as const)("verifies what was signed with %s", async (kind) => {
    const key = makeKey(kind);
    await using published = await release([key]);
    await writeFile(join(published.path, "key.pub"), key.publicPem);
    expect(verify(published.path)).toMatchObject({
      status: 0,
      stderr: expect.stringContaining("Verified OK") as string,
    });
  });

  test("refuses another key, another type of statement and a changed manifest", async () => {
    const key = makeKey();
    await using published = await release([key]);
    await writeFile(join(published.path, "key.pub"), makeKey().publicPem);
    expect(verify(published.path).status).not.toBe(0);
    await writeFile(join(published.path, "key.pub"), key.publicPem);
    const otherType = verify(published.path, cosign.replace("release:v1", "root:v1"));
    expect(otherType.status).not.toBe(0);
    expect(otherType.stderr).toContain("invalid predicate type");
    for (const name of await readdir(join(published.path, "manifests"))) {
      const manifest = await readKey(published.source, `manifests/${name}`);
      await overwrite(published.source, `manifests/${name}`, Buffer.concat([manifest, Buffer.from(" ")]));
    }
    const changed = verify(published.path);
    expect(changed.status).not.toBe(0);
    expect(changed.stderr).toContain("artifact digests do not match digests in statement");
  });

  test("is the only other block that there is", () => {
    expect(documentation.match(/^```\w+$/gm)).toEqual(["```sh", "```cosign"]);
  });
});
