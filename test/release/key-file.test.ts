import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, test } from "vitest";

import { readSigningKey, writeKeyFiles } from "../../src/release/trust/key-file.ts";
import { readTrust } from "../../src/release/trust/trust-file.ts";
import { ruleFor } from "../../src/release/trust/trust.ts";
import { makeKey, publishTo, readFixedTrust, tempFolder } from "../support/release.ts";

describe("a new key pair", () => {
  test("lies in two files, the private one for its owner only", async () => {
    await using folder = await tempFolder();
    const path = join(folder.path, "release");
    const { privatePath, publicPath, id } = await writeKeyFiles(path, "ecdsa-p256", undefined);
    expect([privatePath, publicPath]).toEqual([path, `${path}.pub`]);
    expect((await stat(privatePath)).mode & 0o777).toBe(0o600);
    expect((await readFixedTrust([publicPath])).keys.map((key) => key.id)).toEqual([id]);
    expect((await readSigningKey(privatePath, undefined)).public.id).toBe(id);
  });

  test("replaces no file that is there", async () => {
    await using folder = await tempFolder({ key: "precious" });
    await expect(writeKeyFiles(join(folder.path, "key"), "ed25519", undefined)).rejects.toMatchObject({
      code: "KEY_INVALID",
    });
    expect(await readFile(join(folder.path, "key"), "utf8")).toBe("precious");
  });

  test("with a passphrase signs a release only with it", async () => {
    await using folder = await tempFolder();
    await using bucket = await tempFolder();
    const path = join(folder.path, "release");
    await writeKeyFiles(path, "ed25519", "correct horse");
    await expect(readSigningKey(path, undefined)).rejects.toMatchObject({ code: "KEY_PASSPHRASE" });
    const key = await readSigningKey(path, "correct horse");
    expect(await publishTo(bucket.source, { "1_a.up.sql": "select 1;" }, { keys: [key] })).toMatchObject({
      published: true,
    });
  });

  test("is told apart: the public file does not sign, the private one is not trusted", async () => {
    await using folder = await tempFolder();
    const path = join(folder.path, "release");
    await writeKeyFiles(path, "ecdsa-p256", undefined);
    await expect(readSigningKey(`${path}.pub`, undefined)).rejects.toMatchObject({
      code: "KEY_INVALID",
      hint: "name the file without .pub",
    });
    await expect(readFixedTrust([path])).rejects.toMatchObject({ code: "KEY_PRIVATE" });
  });
});

describe("a trust", () => {
  const [alice, bob, carol] = [makeKey(), makeKey("ed25519"), makeKey()];

  test("in a file names key files beside it, or keys themselves", async () => {
    await using folder = await tempFolder({ "alice.pub": alice.publicPem });
    const text = JSON.stringify({
      threshold: 2,
      keys: ["alice.pub", bob.publicPem],
      release: { production: { maxValidityDays: 30 } },
    });
    await mkdir(join(folder.path, "elsewhere"));
    await writeFile(join(folder.path, "trust.json"), text);
    const trust = await readFixedTrust([join(folder.path, "trust.json")]);
    expect(trust.keys.map(({ id }) => id)).toEqual([alice.id, bob.id]);
    expect(ruleFor(trust, "staging")).toEqual({ threshold: 2, maxValidityDays: 400 });
    expect(ruleFor(trust, "production")).toEqual({ threshold: 2, maxValidityDays: 30 });
  });

  test("of several files has the keys of all and the strictest rules", async () => {
    const strict = { threshold: 2, maxValidityDays: 10, keys: ["alice.pub", "bob.pub"] };
    await using folder = await tempFolder({
      "alice.pub": alice.publicPem,
      "bob.pub": bob.publicPem,
      "carol.pub": carol.publicPem,
      "trust.json": JSON.stringify(strict),
    });
    const paths = ["carol.pub", "alice.pub", "trust.json"].map((name) => join(folder.path, name)) as [
      string,
      ...string[],
    ];
    const trust = await readFixedTrust(paths);
    expect(trust.keys.map(({ id }) => id)).toEqual([carol.id, alice.id, bob.id]);
    expect(ruleFor(trust, "default")).toEqual({ threshold: 2, maxValidityDays: 10 });
  });

  test.for([
    ["a field too many", { keys: ["alice.pub"], thresold: 2 }, "TRUST_INVALID"],
    ["no key", { keys: [] }, "TRUST_INVALID"],
    ["one key twice", { keys: ["alice.pub", alice.publicPem] }, "TRUST_INVALID"],
    ["more signatures than keys", { keys: ["alice.pub"], threshold: 2 }, "TRUST_INVALID"],
    ["a key file that is not there", { keys: ["nobody.pub"] }, "KEY_INVALID"],
    ["a private key", { keys: [alice.privatePem] }, "KEY_PRIVATE"],
    ["a text for the threshold", { keys: ["alice.pub"], threshold: "1" }, "JSON_NUMBER"],
  ] as const)("with %s is refused", async ([, value, code]) => {
    await using folder = await tempFolder({ "alice.pub": alice.publicPem });
    await expect(readTrust(value, folder.path, "the trust")).rejects.toMatchObject({ code });
  });

  test("from a file that is absent, too long or no JSON is refused", async () => {
    await using folder = await tempFolder({ "long.pub": "x".repeat(70_000), "bad.json": "{ keys: [] }" });
    for (const [name, code] of [
      ["absent", "TRUST_INVALID"],
      ["long.pub", "TRUST_INVALID"],
      ["bad.json", "JSON_SYNTAX"],
    ] as const) {
      await expect(readFixedTrust([join(folder.path, name)])).rejects.toMatchObject({ code });
    }
  });
});
