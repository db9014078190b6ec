import { createPublicKey } from "node:crypto";

import { describe, expect, test } from "vitest";

import { makeRoot, readRoot } from "../../src/release/root/root.ts";
import type { RootText } from "../../src/release/root/root-text.ts";
import { readRootStatement, writeRootStatement } from "../../src/release/root/root-statement.ts";
import { readStatement, writeStatement } from "../../src/release/statement.ts";
import { makeKey } from "../support/release.ts";
import { rootText } from "../support/root.ts";

const [alice, bob, carol] = [makeKey(), makeKey("ed25519"), makeKey()];
const right = rootText({ rootKeys: [alice, bob], releaseKeys: [carol], timestampKeys: [bob] });
const workload = {
  type: "sigstore",
  trustDomain: "public-good",
  issuer: "https://issuer.example",
  san: "https://github.com/acme/orders/.github/workflows/release.yml@refs/heads/main",
} as const;

/** The right root, changed in place. */
function changed(change: (text: RootText) => void): RootText {
  const text = structuredClone(right);
  change(text);
  return text;
}

const bytesOf = (text: unknown): Buffer => Buffer.from(JSON.stringify(text));
const ruleOf = (text: RootText) => text.roles.release[0] ?? expect.fail("there is a rule");

describe("a root", () => {
  test("says who signs the next one, releases and timestamps", () => {
    const root = readRoot(bytesOf(right));
    expect(root).toMatchObject({ org: "acme", version: 1, expires: new Date("2100-01-01T00:00:00Z") });
    expect(root.signers).toMatchObject({ threshold: 2, keys: [{ id: alice.id }, { id: bob.id }] });
    expect(root.releases).toMatchObject([
      { threshold: 1, maxValidityDays: 400, keys: [{ id: carol.id }], identities: [] },
    ]);
    expect(root.timestamp).toMatchObject({ threshold: 1, keys: [{ id: bob.id }] });
    expect(root.streams.get("orders")).toEqual({ epoch: 1, minVersion: 1 });
  });

  test("may trust a workload with releases", () => {
    const text = changed((it) => {
      it.keys["oidc:release"] = { ...workload, name: "the-pipeline" };
      ruleOf(it).keys.push("oidc:release");
      ruleOf(it).threshold = 2;
    });
    expect(readRoot(bytesOf(text)).releases).toMatchObject([
      { identities: [{ id: "oidc:release", trustDomain: "public-good", san: workload.san }] },
    ]);
  });

  // attack 21, and TUF conformance test_duplicate_keys
  test("attack 21: with one key under two ids, in two encodings or twice in a role is ROOT_INVALID", () => {
    const point = alice.public.key.export({ format: "jwk" });
    const raw = Buffer.concat([
      Buffer.from([2 + ((Buffer.from(point.y ?? "", "base64url").at(-1) ?? 0) % 2)]),
      Buffer.from(point.x ?? "", "base64url"),
    ]);
    const head = Buffer.from("3039301306072a8648ce3d020106082a8648ce3d030107032200", "hex");
    const compressed = createPublicKey({ key: Buffer.concat([head, raw]), format: "der", type: "spki" });
    const pem = `-----BEGIN PUBLIC KEY-----\n${Buffer.concat([head, raw]).toString("base64")}\n-----END PUBLIC KEY-----\n`;
    expect(compressed.equals(alice.public.key)).toBe(true);
    const other = `sha256:${"a".repeat(64)}`;
    for (const twin of [pem, alice.publicPem]) {
      const text = changed((it) => {
        it.keys[other] = { type: "ecdsa-p256", pem: twin };
        it.roles.root.keys = [alice.id, other];
      });
      expect(() => readRoot(bytesOf(text))).toThrow(expect.objectContaining({ code: "ROOT_INVALID" }));
    }
    // its other encoding under its own id is the same key, once
    const same = changed((it) => void (it.keys[alice.id] = { type: "ecdsa-p256", pem }));
    expect(readRoot(bytesOf(same)).signers.keys).toHaveLength(2);
    const twice = changed((it) => void (it.roles.root.keys = [alice.id, alice.id]));
    expect(() => readRoot(bytesOf(twice))).toThrow(expect.objectContaining({ code: "ROOT_INVALID" }));
    const named = JSON.stringify(right).replace(`"${bob.id}":{`, `"${alice.id}":{`);
    expect(() => readRoot(Buffer.from(named))).toThrow(expect.objectContaining({ code: "JSON_DUPLICATE" }));
  });

  test.for<readonly [string, (text: RootText) => void]>([
    [
      "a key that is called another kind",
      (it) => void (it.keys[bob.id] = { type: "ecdsa-p256", pem: bob.publicPem }),
    ],
    ["a private key", (it) => void (it.keys[bob.id] = { type: "ed25519", pem: bob.privatePem })],
    ["a role that names nobody's key", (it) => it.roles.root.keys.push(`sha256:${"b".repeat(64)}`)],
    ["more signatures than root keys", (it) => void (it.roles.root.threshold = 3)],
    ["more signatures than release keys", (it) => void (ruleOf(it).threshold = 2)],
    ["two rules for one stream and environment", (it) => it.roles.release.push(structuredClone(ruleOf(it)))],
    ["a rule for a stream that it lacks", (it) => ruleOf(it).streams.push("billing")],
    ["a stream that no rule is for", (it) => void (it.streams["billing"] = { epoch: 1, minVersion: 1 })],
    [
      "a workload in the root role",
      (it) => {
        it.keys["oidc:release"] = workload;
        it.roles.root.keys.push("oidc:release");
      },
    ],
    [
      "one workload under two names",
      (it) => {
        it.keys["oidc:a"] = workload;
        it.keys["oidc:b"] = { ...workload, oids: { "1.3.6.1.4.1.57264.1.15": "456789" } };
      },
    ],
    ["a workload under a key's name", (it) => void (it.keys[`sha256:${"c".repeat(64)}`] = workload)],
  ])("with %s is ROOT_INVALID", ([, change]) => {
    expect(() => readRoot(bytesOf(changed(change)))).toThrow(
      expect.objectContaining({ code: "ROOT_INVALID" }),
    );
  });

  test.for<readonly [string, string, string]>([
    [
      "attack 32: a name twice",
      JSON.stringify(right).replace('"org":', '"org":"x","org":'),
      "JSON_DUPLICATE",
    ],
    [
      "attack 32: a name twice in two spellings",
      JSON.stringify(right).replace('"version":', '"\\u0076ersion":7,"version":'),
      "JSON_DUPLICATE",
    ],
    [
      "attack 33: a version of 1.0",
      JSON.stringify(right).replace('"version":1', '"version":1.0'),
      "JSON_NUMBER",
    ],
    [
      "attack 33: a version as text",
      JSON.stringify(right).replace('"version":1', '"version":"1"'),
      "JSON_NUMBER",
    ],
    ["attack 34: an unknown field", JSON.stringify({ ...right, note: "hi" }), "SCHEMA"],
    [
      "attack 34: __proto__ among the keys",
      JSON.stringify(right).replace('"keys":{', '"keys":{"__proto__":{"type":"ed25519","pem":""},'),
      "SCHEMA",
    ],
    ["attack 34: __proto__ at the top", JSON.stringify(right).replace("{", '{"__proto__":{},'), "SCHEMA"],
    ["attack 34: a byte order mark", `\uFEFF${JSON.stringify(right)}`, "JSON_SYNTAX"],
    ["attack 34: something behind it", `${JSON.stringify(right)}{}`, "JSON_SYNTAX"],
    ["attack 35: 64 KiB and more", JSON.stringify(right) + " ".repeat(65_536), "TOO_LARGE"],
    ["a moment that does not exist", JSON.stringify({ ...right, expires: "2100-02-30T00:00:00Z" }), "SCHEMA"],
    ["another schema", JSON.stringify({ ...right, schema: "urn:lockkeeper:manifest:v1" }), "SCHEMA"],
    [
      "nine root keys",
      JSON.stringify(changed((it) => it.roles.root.keys.push(...Array<string>(7).fill("x")))),
      "SCHEMA",
    ],
  ])("with %s is refused", ([, text, code]) => {
    expect(() => readRoot(Buffer.from(text))).toThrow(expect.objectContaining({ code }));
  });

  test("of a configuration is judged as one of a file", () => {
    expect(makeRoot(right, "the root").org).toBe("acme");
    expect(() => makeRoot({ ...right, note: "hi" }, "the root")).toThrow(/"note" is not a field/);
  });

  test("of any length is refused by every cut", () => {
    const bytes = bytesOf(right);
    for (let end = 0; end < bytes.length; end++) {
      expect(() => readRoot(bytes.subarray(0, end))).toThrow(
        expect.objectContaining({ code: "JSON_SYNTAX" }),
      );
    }
  });
});

describe("what signs a root", () => {
  const document = bytesOf(right);

  test("names its digest, organisation and version", () => {
    const payload = writeRootStatement(right, document);
    expect(readRootStatement(payload)).toMatchObject({ org: "acme", version: 1 });
    expect(JSON.parse(payload.toString())).toMatchObject({
      predicateType: "urn:lockkeeper:root:v1",
      subject: [{ name: "root.json" }],
      predicate: { org: "acme", version: 1 },
    });
  });

  // attack 23, and TUF conformance test_incorrect_metadata_type
  test("attack 23: is never a release, and a release never a root", () => {
    const release = writeStatement({
      stream: "orders",
      epoch: 1,
      version: 1,
      previous: null,
      manifestSha256: "0".repeat(64),
      manifestSize: 1,
      chain: { length: 0, head: "0".repeat(64) },
      environments: ["default"],
      issued: new Date("2026-01-01T00:00:00Z"),
      expires: new Date("2026-02-01T00:00:00Z"),
    });
    const refusal = expect.objectContaining({ code: "PREDICATE_TYPE" });
    expect(() => readRootStatement(release)).toThrow(refusal);
    expect(() => readStatement(writeRootStatement(right, document))).toThrow(refusal);
  });
});
