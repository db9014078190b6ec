import { join } from "node:path";

import { describe, expect, test } from "vitest";

import { noKnownRoots } from "../../src/release/trust/anchor.ts";
import type { TrustAnchor } from "../../src/release/trust/anchor.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { readPinnedRoot, readTrust, readTrustFiles } from "../../src/release/trust/trust-file.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { makeIdentity } from "../../src/release/trust/identity.ts";
import { joinTrusts } from "../../src/release/trust/trust.ts";
import {
  makeKey,
  never,
  overwrite,
  publishTo,
  readKey,
  plant,
  manifestOf,
  readFixedTrust,
  tempFolder,
  trustOf,
} from "../support/release.ts";
import { readEnvelopes } from "../../src/release/envelope.ts";
import { layout } from "../../src/release/layout.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Source } from "../../src/source/source.ts";
import { linesOf, rootText } from "../support/root.ts";
import { createSigstore, githubIssuer } from "../support/sigstore.ts";

const [alice, bob, release] = [makeKey(), makeKey("ed25519"), makeKey()];
const text = rootText({ rootKeys: [alice], releaseKeys: [release] });
const document = `${JSON.stringify(text, null, 2)}\n`;
const workload = { type: "sigstore", trustDomain: "public", issuer: "https://i", san: "https://s" } as const;

const asked = {
  highWaterMark: undefined,
  expected: undefined,
  now: new Date(),
  applied: () => Promise.resolve([]),
};

/** The releases of `orders` in `default` under a prefix, believed as far as `trust` goes. */
const releasesOf = (source: Source, trust: TrustAnchor) =>
  signedReleases({ source, stream: "orders", environment: "default", engine: "postgres", trust });

/** What a trust says now of `orders` in `default`, from a bucket without newer roots. */
async function resolved(anchor: TrustAnchor): Promise<Trust> {
  if (anchor.kind === "fixed") return anchor;
  await using bucket = await tempFolder();
  const question = { stream: "orders", environment: "default", known: noKnownRoots, now: new Date() };
  return (await anchor.resolve({ ...question, source: bucket.source }, never)).trust;
}

describe("a trust that pins a root", () => {
  test("names its file, holds its text, holds the document, or is the document itself", async () => {
    await using folder = await tempFolder({
      "1.root.json": document,
      "trust.json": JSON.stringify({
        root: "1.root.json",
        sha256: sha256Hex(Buffer.from(document)),
        minRootVersion: 1,
      }),
    });
    const anchors = await Promise.all([
      readTrust({ root: "1.root.json" }, folder.path, "the trust"),
      readTrust({ root: document }, "/nowhere", "the trust"),
      readTrust({ root: text }, "/nowhere", "the trust"),
      readTrustFiles([join(folder.path, "1.root.json")]),
      readTrustFiles([join(folder.path, "trust.json")]),
    ]);
    for (const anchor of anchors) {
      expect(anchor.kind).toBe("managed");
      expect((await resolved(anchor)).keys.map(({ id }) => id)).toEqual([release.id]);
    }
    expect((await readPinnedRoot(join(folder.path, "trust.json"))).root.version).toBe(1);
  });

  test.for<readonly [string, unknown, string]>([
    ["other bytes than are pinned", { root: "1.root.json", sha256: "0".repeat(64) }, "TRUST_INVALID"],
    ["pinned bytes of an object", { root: text, sha256: "0".repeat(64) }, "TRUST_INVALID"],
    ["a file that is not there", { root: "2.root.json" }, "TRUST_INVALID"],
    ["keys beside it", { root: "1.root.json", keys: [alice.publicPem] }, "TRUST_INVALID"],
    ["an epoch beside it", { root: "1.root.json", epoch: 2 }, "TRUST_INVALID"],
    ["a root that is none", { root: '{"schema":"urn:lockkeeper:root:v1"}' }, "SCHEMA"],
    ["a root with a name twice", { root: document.replace('"org"', '"org":"a","org"') }, "JSON_DUPLICATE"],
    [
      "a trusted root that is no JSON",
      { root: "1.root.json", trustDomains: { public: "bad" } },
      "TRUST_INVALID",
    ],
  ])("with %s is refused", async ([, value, code]) => {
    await using folder = await tempFolder({ "1.root.json": document, bad: "no" });
    await expect(readTrust(value, folder.path, "the trust")).rejects.toMatchObject({ code });
  });

  test("is not joined with others", async () => {
    await using folder = await tempFolder({ "1.root.json": document, "alice.pub": alice.publicPem });
    const [root, key] = [join(folder.path, "1.root.json"), join(folder.path, "alice.pub")];
    for (const paths of [
      [root, key],
      [key, root],
      [root, root],
    ] as const) {
      await expect(readTrustFiles(paths)).rejects.toMatchObject({
        code: "TRUST_INVALID",
        message: expect.stringContaining("a root is not joined with other trusts") as string,
      });
    }
    await expect(readPinnedRoot(key)).rejects.toMatchObject({ code: "TRUST_INVALID" });
  });
});

describe("a workload that a root trusts", () => {
  test("signs releases, judged by the trusted root that the deployment names", async () => {
    const sigstore = await createSigstore();
    const san = "https://github.com/acme/orders/.github/workflows/release.yml@refs/heads/main";
    const root = rootText({ rootKeys: [alice], releaseKeys: [release], releaseThreshold: 2 });
    root.keys["oidc:ci"] = { ...workload, issuer: githubIssuer, san };
    root.roles.release[0]?.keys.push("oidc:ci");
    await using folder = await tempFolder({
      "1.root.json": JSON.stringify(root),
      "trusted_root.json": JSON.stringify(sigstore.trustedRoot),
      "trust.json": JSON.stringify({ root: "1.root.json", trustDomains: { public: "trusted_root.json" } }),
    });
    await using bucket = await tempFolder();
    const { digest } = await publishTo(bucket.source, { "1_a.up.sql": "select 1;" }, { keys: [release] });
    const trust = await readTrustFiles([join(folder.path, "trust.json")]);
    const fetch = () => releasesOf(bucket.source, trust).fetch(asked, never);
    await expect(fetch()).rejects.toMatchObject({ code: "THRESHOLD", fields: { counted: 1, threshold: 2 } });
    const key = layout.release(digest.replace("sha256:", ""));
    const signed = await readKey(bucket.source, key);
    const payload = readEnvelopes(signed)[0]?.payload ?? expect.fail("it is signed");
    const other = await sigstore.sign(payload, { san: `${san}-evil`, issuer: githubIssuer, oids: {} });
    await overwrite(bucket.source, key, Buffer.concat([signed, linesOf([other])]));
    await expect(fetch()).rejects.toMatchObject({ code: "THRESHOLD" });
    const line = await sigstore.sign(payload, { san, issuer: githubIssuer, oids: {} });
    await overwrite(bucket.source, key, Buffer.concat([signed, linesOf([line])]));
    expect((await fetch()).signers).toEqual([release.id, "oidc:ci"]);
  });
});

describe("a trust that pins keys", () => {
  test("may name an epoch and who vouches for freshness", async () => {
    await using folder = await tempFolder({ "alice.pub": alice.publicPem, "bob.pub": bob.publicPem });
    const value = { keys: ["alice.pub"], epoch: 2, timestamp: { keys: ["bob.pub"] } };
    const trust = await resolved(await readTrust(value, folder.path, "the trust"));
    expect(trust).toMatchObject({ epoch: 2, timestamp: { threshold: 1, keys: [{ id: bob.id }] } });
  });

  test.for<readonly [string, object]>([
    ["nobody", {}],
    ["no key and no identity", { keys: [], identities: {} }],
    ["an identity whose trust domain it does not know", { identities: { "oidc:ci": workload } }],
    [
      "one workload twice",
      { identities: { "oidc:a": workload, "oidc:b": workload }, trustDomains: { public: "root" } },
    ],
    [
      "a timestamp role out of reach",
      { keys: [alice.publicPem], timestamp: { keys: [bob.publicPem], threshold: 2 } },
    ],
    [
      "a timestamp key twice",
      { keys: [alice.publicPem], timestamp: { keys: [bob.publicPem, bob.publicPem] } },
    ],
    [
      "a rule for a list of environments",
      { keys: [alice.publicPem, bob.publicPem], release: { "staging, production": { threshold: 2 } } },
    ],
    [
      "a rule for __proto__",
      { keys: [alice.publicPem], release: JSON.parse('{"__proto__":{"threshold":9}}') as object },
    ],
  ])("of %s is TRUST_INVALID", async ([, value]) => {
    await using folder = await tempFolder({ root: "{}" });
    await expect(readTrust(value, folder.path, "the trust")).rejects.toMatchObject({ code: "TRUST_INVALID" });
  });

  test("joined with another loses nothing, and contradicts it in nothing", () => {
    const timestamp = { keys: [bob.public], threshold: 1 };
    const left = { ...trustOf([alice], { minVersion: 3 }), epoch: 2 };
    const right = {
      ...trustOf([bob], { release: { production: { threshold: 1, maxValidityDays: 9 } } }),
      timestamp,
    };
    expect(joinTrusts([left, right])).toMatchObject({
      keys: [{ id: alice.id }, { id: bob.id }],
      minVersion: 3,
      epoch: 2,
      timestamp,
      identities: [],
    });
    expect(() => joinTrusts([left, { ...right, epoch: 3 }])).toThrow(/name an epoch/);
    expect(() => joinTrusts([{ ...left, timestamp: { ...timestamp } }, right])).toThrow(/timestamp role/);
    const named = (name: string, ref: string) => {
      const text = {
        type: "sigstore",
        trustDomain: "public",
        issuer: githubIssuer,
        san: `https://ci.example/${ref}`,
      } as const;
      return { ...left, identities: [makeIdentity(`oidc:${name}`, text)] };
    };
    expect(joinTrusts([named("a", "1"), named("b", "2")]).identities).toHaveLength(2);
    expect(() => joinTrusts([named("a", "1"), named("b", "1")])).toThrow(/one workload twice/);
    expect(() => joinTrusts([named("a", "1"), named("a", "2")])).toThrow(/calls two workloads "oidc:a"/);
  });

  test("of one epoch takes no release of another", async () => {
    await using bucket = await tempFolder();
    await publishTo(bucket.source, { "1_a.up.sql": "select 1;" }, { keys: [alice] });
    const fetch = (epoch: number | null) =>
      releasesOf(bucket.source, { ...trustOf([alice]), epoch }).fetch({ ...asked, now: new Date() }, never);
    expect((await fetch(1)).rank).toEqual({ epoch: 1, version: 1 });
    await expect(fetch(2)).rejects.toMatchObject({ code: "WRONG_EPOCH", fields: { expected: 2, actual: 1 } });
    await plant(bucket.source, {
      manifest: manifestOf({ "1_a.up.sql": "select 1;" }),
      statement: { epoch: 9, version: Number.MAX_SAFE_INTEGER },
      keys: [alice],
    });
    await expect(fetch(1)).rejects.toMatchObject({ code: "WRONG_EPOCH" });
    expect((await fetch(null)).rank).toMatchObject({ epoch: 9 });
  });

  test("is read from files as it is from a configuration", async () => {
    await using folder = await tempFolder({
      "alice.pub": alice.publicPem,
      "trust.json": JSON.stringify({ keys: ["alice.pub"], epoch: 4 }),
    });
    expect(await readFixedTrust([join(folder.path, "trust.json")])).toMatchObject({ epoch: 4 });
  });
});
