import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import * as v from "valibot";
import { describe, expect, test } from "vitest";

import { inspectRelease } from "../../src/release/review/inspect.ts";
import { layout } from "../../src/release/layout.ts";
import { signRelease } from "../../src/release/review/sign.ts";
import { readStatement, writeStatement } from "../../src/release/statement.ts";
import { readTrustFiles } from "../../src/release/trust/trust-file.ts";
import { withUnstored } from "../../src/release/review/unstored-release.ts";
import { needs, part } from "../support/parts.ts";
import { never, publishTo, readKey, tempFolder } from "../support/release.ts";
import { createSigstore } from "../support/sigstore.ts";
import { serveSigstore } from "../support/sigstore-server.ts";

const run = promisify(execFile);
const documentation = readFileSync(join(import.meta.dirname, "../../infra/keyless.md"), "utf8");

function block(language: string): string {
  return new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, "m").exec(documentation)?.[1] ?? "";
}

const trust = v.parse(
  v.looseObject({
    identities: v.record(
      v.string(),
      v.looseObject({ issuer: v.string(), san: v.string(), oids: v.record(v.string(), v.string()) }),
    ),
  }),
  JSON.parse(block("json")),
);

/** Fulcio's certificate for the workflow that the document trusts. */
function certificateOf(name: string) {
  const { issuer = "", san = "", oids = {} } = trust.identities[name] ?? {};
  const byNumber = Object.entries(oids).map(([oid, value]) => [oid.split(".").at(-1), value] as const);
  return { issuer, san, oids: Object.fromEntries(byNumber) };
}

/** A user's folder, where `cosign` signs by the test's own Fulcio and Rekor. */
async function userFolder(san?: string) {
  const folder = await tempFolder({
    "trust.json": block("json"),
    "migrations/000001_users.up.sql": "create table users (id int primary key);",
    "migrations/000001_users.down.sql": "drop table users;",
  });
  const certificate = certificateOf("oidc:orders-release");
  const sigstore = await serveSigstore(
    await createSigstore(),
    { ...certificate, san: san ?? certificate.san },
    folder.path,
  );
  const bin = join(folder.path, ".bin");
  await mkdir(bin);
  const cli = join(import.meta.dirname, "../../src/bin/cli.ts");
  const flags = sigstore.flags.map((flag) => `'${flag}'`).join(" ");
  const programs = {
    lockkeeper: `exec "${process.execPath}" "${cli}" "$@"`,
    cosign: `exec "${part("cosign")}" "$@" ${flags}`,
  };
  for (const [name, line] of Object.entries(programs)) {
    await writeFile(join(bin, name), `#!/bin/sh\n${line}\n`);
    await chmod(join(bin, name), 0o755);
  }
  const env = { PATH: `${bin}:${dirname(process.execPath)}:/usr/local/bin:/usr/bin:/bin`, HOME: folder.path };
  return {
    path: folder.path,
    shell: (script: string) => run("sh", ["-euc", script], { cwd: folder.path, env }),
    async [Symbol.asyncDispose]() {
      await sigstore[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const verify =
  "lockkeeper verify --source ./bucket --stream orders --environment production --trust trust.json --output json";

describe("the documented way to sign without a key", { timeout: 240_000 }, () => {
  needs("cosign");

  test("publishes a release that cosign signed in the name of the workflow, which runners take", async () => {
    await using user = await userFolder();
    await user.shell(block("sh"));
    const { stdout } = await user.shell(verify);
    expect(stdout).toContain("oidc:orders-release");
  });

  test("publishes nothing where another workflow signed, and says which", async () => {
    const { san } = certificateOf("oidc:orders-release");
    await using user = await userFolder(`${san}-evil`);
    const { stdout } = await user.shell(`${block("sh").trimEnd()} --output json`);
    expect(JSON.parse(stdout)).toMatchObject({ outcome: "waiting" });
    const { digest } = v.parse(
      v.looseObject({ digest: v.string() }),
      JSON.parse(await readFile(join(user.path, "published.json"), "utf8")),
    );
    const refused = await user.shell(`${verify} --release ${digest}`).catch((error: unknown) => error);
    const { stdout: answer } = v.parse(v.looseObject({ stdout: v.string() }), refused);
    expect(JSON.parse(answer)).toMatchObject({
      error: {
        code: "THRESHOLD",
        hint: expect.stringContaining(`it has the name "${san}-evil"`) as string,
      },
    });
  });
});

describe("a publication without a key", () => {
  const files = { "1_users.up.sql": "create table users (id int);" };
  const certificate = certificateOf("oidc:orders-release");

  test("waits, unseen, until a bundle over its statement makes it a release", async () => {
    const sigstore = await createSigstore();
    await using bucket = await tempFolder({
      "trust.json": block("json"),
      "trusted_root.json": JSON.stringify(sigstore.trustedRoot),
    });
    const options = { trust: await readTrustFiles([join(bucket.path, "trust.json")]), now: new Date() };
    const made = await publishTo(bucket.source, files, { ...options, keys: [] });
    expect(made).toMatchObject({ outcome: "unsigned", published: false, signers: [] });
    const { digest, statement } = made;
    const key = layout.release(digest.slice(7));
    expect([
      ...(await bucket.source.list("releases/", never)),
      await bucket.source.read(layout.head, { maxBytes: 9 }, never),
    ]).toEqual([undefined]);

    const line = await sigstore.sign(statement ?? Buffer.alloc(0), certificate);
    const other = await sigstore.sign(Buffer.from("{}"), certificate);
    expect(() => withUnstored(bucket.source, [line, other])).toThrow(
      expect.objectContaining({ code: "PAYLOAD_DIFFERS" }),
    );
    const destination = withUnstored(bucket.source, [line]);
    const signing = { ...options, digest, keys: [], bundles: [line] };
    await expect(signRelease({ ...signing, destination: bucket.source }, never)).rejects.toMatchObject({
      code: "RELEASE_NOT_FOUND",
    });
    expect(
      await inspectRelease({ ...options, source: destination, digest, withBodies: true }, never),
    ).toMatchObject({
      verdict: { kind: "verified" },
    });
    // to look is not to write
    expect(await bucket.source.read(key, { maxBytes: 9 }, never)).toBeUndefined();
    expect(await signRelease({ ...signing, destination }, never)).toMatchObject({
      published: true,
      signers: ["oidc:orders-release"],
    });
    expect(await publishTo(bucket.source, files, { ...options, keys: [] })).toMatchObject({
      outcome: "unchanged",
      statement: null,
      digest,
    });
    // whoever comes too late adds to what is there
    const again = await sigstore.sign(statement ?? Buffer.alloc(0), certificate);
    const late = withUnstored(bucket.source, [again]);
    await signRelease({ ...signing, destination: late, bundles: [again] }, never);
    expect(String(await readKey(bucket.source, key))).toBe(`${line}\n${again}\n`);
  });
});

describe("a statement that another tool wrote", () => {
  const statement = {
    stream: "orders",
    epoch: 1,
    version: 2,
    previous: `sha256:${"a".repeat(64)}`,
    manifestSha256: "b".repeat(64),
    manifestSize: 797,
    chain: { length: 3, head: "c".repeat(64) },
    environments: ["staging", "production"],
    issued: new Date("2026-11-20T10:00:00Z"),
    expires: new Date("2027-02-18T10:00:00Z"),
    source: { uri: "git+https://github.com/acme/orders?a=1&b=<2>", gitCommit: "d".repeat(40) },
  };
  const ours = writeStatement(statement);
  const { predicate } = v.parse(
    v.looseObject({ predicate: v.record(v.string(), v.unknown()) }),
    JSON.parse(String(ours)),
  );
  const subject = [{ name: "manifest.json", digest: { sha256: statement.manifestSha256 } }];
  const predicateType = "urn:lockkeeper:release:v1";

  test("by GitHub's action, from the documented parts, is ours to the byte", () => {
    // as `jq .predicate` writes it and as the action reads it; the order of the four is the action's
    const file = `${JSON.stringify(predicate, null, 2)}\n`;
    const parsed: unknown = JSON.parse(file);
    const theirs = JSON.stringify({
      _type: "https://in-toto.io/Statement/v1",
      subject,
      predicateType,
      predicate: parsed,
    });
    expect(theirs).toBe(String(ours));
  });

  test("by cosign --predicate, sorted, spaced and escaped, says the same", () => {
    // as cosign 3.1.3 wrote it: the older type, names in order, a space after some commas; Go's JSON may escape as well
    const sorted = Object.fromEntries(
      Object.entries(predicate).toSorted(([one], [other]) => (one < other ? -1 : 1)),
    );
    const theirs =
      `{"_type":"https://in-toto.io/Statement/v0.1", "subject":${JSON.stringify(subject)}, ` +
      `"predicateType":"${predicateType}", "predicate":${JSON.stringify(sorted).replaceAll("&", "\\u0026").replaceAll("<", "\\u003c")}}`;
    expect(readStatement(Buffer.from(theirs))).toEqual(statement);
  });

  test.for([
    ["two subjects", { subject: [...subject, ...subject] }],
    ["no subject", { subject: [] }],
    [
      "another digest beside sha256",
      { subject: [{ ...subject[0], digest: { ...subject[0]?.digest, sha512: "e" } }] },
    ],
    ["a field more", { extra: 1 }],
  ] as const)("with %s is no release", ([, wrong]) => {
    const text = JSON.stringify({
      _type: "https://in-toto.io/Statement/v1",
      subject,
      predicateType,
      predicate,
      ...wrong,
    });
    expect(() => readStatement(Buffer.from(text))).toThrow(expect.objectContaining({ code: "SCHEMA" }));
  });
});
