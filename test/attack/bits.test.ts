import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { payloadType, preAuthEncoding, readEnvelopes } from "../../src/release/envelope.ts";
import { writeManifest } from "../../src/release/manifest.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import { makeRoot } from "../../src/release/root/root.ts";
import { verifyNextRoot } from "../../src/release/root/root-walk.ts";
import { writeRootStatement } from "../../src/release/root/root-statement.ts";
import { writeStatement } from "../../src/release/statement.ts";
import { verifyTimestamp, writeTimestamp } from "../../src/release/timestamp.ts";
import { verifyManifest, verifyStatement } from "../../src/release/verify.ts";
import type { VerifiedStatement } from "../../src/release/verify.ts";
import { makeKey, manifestOf, rechained, signedLine, trustOf } from "../support/release.ts";

const now = new Date("2026-11-20T12:00:00Z");
const issued = new Date("2026-11-20T10:00:00Z");
const expires = new Date("2026-11-21T10:00:00Z");
const manifest = manifestOf({
  "0001_users.up.sql": "create table users (id int);",
  "0002_email.up.sql": "alter table users add email text;",
  "0003_items.up.sql": "create table items (id int);",
});
const manifestBytes = writeManifest(manifest);
const statement = {
  stream: "orders",
  epoch: 1,
  version: 1,
  previous: null,
  manifestSha256: sha256Hex(manifestBytes),
  manifestSize: manifestBytes.length,
  chain: { length: 3, head: manifest.migrations[2]?.chain ?? "" },
  environments: ["default"],
  issued,
  expires,
};
const payload = writeStatement(statement);

function judge(bytes: Buffer, keys: Parameters<typeof trustOf>[0]): VerifiedStatement {
  return verifyStatement(bytes, {
    stream: "orders",
    environment: "default",
    engine: "postgres",
    trust: trustOf(keys),
    highWaterMark: undefined,
    expected: undefined,
    now,
  });
}

/** Where a changed object is taken; throws what is no refusal of ours. */
function takenOf(bytes: Buffer, read: (changed: Buffer) => unknown): readonly string[] {
  const taken: string[] = [];
  const attempt = (what: string, changed: Buffer) => {
    try {
      read(changed);
      taken.push(what);
    } catch (error) {
      if (!(error instanceof RunnerError) || error.code === "INTERNAL") throw error;
    }
  };
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const flipped = Buffer.from(bytes);
    flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    attempt(`bit ${bit}`, flipped);
  }
  for (let length = 0; length < bytes.length; length++)
    attempt(`cut at ${length}`, bytes.subarray(0, length));
  return taken;
}

describe("every single bit and every cut", () => {
  test.for(["ecdsa-p256", "ed25519"] as const)("of a release's line of %s is a refusal", (kind) => {
    const key = makeKey(kind);
    const line = Buffer.from(signedLine(payload, key));
    expect(judge(line, [key]).signers).toEqual([key.id]);
    expect(takenOf(line, (bytes) => judge(bytes, [key]))).toEqual([]);
  });

  test("of a manifest is a refusal", () => {
    const key = makeKey();
    const verified = judge(Buffer.from(signedLine(payload, key)), [key]);
    expect(verifyManifest(verified, manifestBytes).migrations).toHaveLength(3);
    expect(takenOf(manifestBytes, (bytes) => verifyManifest(verified, bytes))).toEqual([]);
  });

  test.for(["ecdsa-p256", "ed25519"] as const)("of a timestamp of %s is a refusal", (kind) => {
    const key = makeKey(kind);
    const digest = `sha256:${sha256Hex(payload)}`;
    const bytes = Buffer.from(
      signedLine(writeTimestamp({ stream: "orders", epoch: 1, version: 1, digest, issued, expires }), key),
    );
    const rule = { keys: [key.public], threshold: 1 };
    const read = (changed: Buffer) => verifyTimestamp(changed, { stream: "orders", rule, now });
    expect(read(bytes).version).toBe(1);
    expect(takenOf(bytes, read)).toEqual([]);
  });

  test("of a root, and of its signatures, is a refusal", () => {
    const key = makeKey("ed25519");
    const rootOf = (version: number) =>
      Buffer.from(
        JSON.stringify({
          schema: "urn:lockkeeper:root:v1",
          org: "acme",
          version,
          expires: "2027-11-20T00:00:00Z",
          keys: { [key.id]: { type: "ed25519", name: "offline", pem: key.publicPem } },
          roles: {
            root: { keys: [key.id], threshold: 1 },
            release: [{ streams: ["orders"], environments: ["default"], keys: [key.id], threshold: 1 }],
          },
          streams: { orders: { epoch: 1, minVersion: 1 } },
          revoked: { releases: [] },
        }),
      );
    const first = makeRoot(JSON.parse(rootOf(1).toString()), "the root");
    const document = rootOf(2);
    const signed = writeRootStatement({ org: "acme", version: 2 }, document);
    const bundles = Buffer.from(signedLine(signed, key));
    expect(verifyNextRoot(first, { document, bundles }).version).toBe(2);
    expect(takenOf(document, (bytes) => verifyNextRoot(first, { document: bytes, bundles }))).toEqual([]);
    expect(takenOf(bundles, (bytes) => verifyNextRoot(first, { document, bundles: bytes }))).toEqual([]);
  });
});

describe("a manifest that a signer with a defect has signed", () => {
  const key = makeKey();
  /** A right signature over a statement that names exactly these bytes, under the chain of the right manifest. */
  const signAndVerify = (changed: Manifest) => {
    const bytes = writeManifest(changed);
    const about = { ...statement, manifestSha256: sha256Hex(bytes), manifestSize: bytes.length };
    return verifyManifest(judge(Buffer.from(signedLine(writeStatement(about), key)), [key]), bytes);
  };

  test.for([
    ["as it is, its chain too", (changed: Manifest) => changed],
    ["with its chain computed anew", rechained],
  ] as const)("in another order, with entries left out or there twice, is refused: %s", ([, finish]) => {
    const indices = fc
      .array(fc.nat(2), { maxLength: 6 })
      .filter((chosen) => chosen.length !== 3 || chosen.some((index, at) => index !== at));
    fc.assert(
      fc.property(indices, fc.boolean(), (chosen, isRenumbered) => {
        const migrations = chosen.flatMap((index, at) => {
          const migration = manifest.migrations[index];
          return migration === undefined
            ? []
            : [Object.assign({}, migration, isRenumbered ? { seq: at + 1 } : {})];
        });
        try {
          signAndVerify(finish({ ...manifest, migrations }));
        } catch (error) {
          return error instanceof RunnerError && error.code !== "INTERNAL";
        }
        return false;
      }),
      { numRuns: 400 },
    );
    expect(signAndVerify(manifest).migrations).toHaveLength(3);
  });
});

describe("two payloads", () => {
  test("never have one pre-authentication encoding, whatever their type says", () => {
    const text = fc.string({ unit: "binary", maxLength: 40 });
    fc.assert(
      fc.property(text, text, text, text, (typeA, bodyA, typeB, bodyB) => {
        if (typeA === typeB && bodyA === bodyB) return true;
        return !preAuthEncoding(typeA, Buffer.from(bodyA)).equals(preAuthEncoding(typeB, Buffer.from(bodyB)));
      }),
    );
    expect(readEnvelopes(Buffer.from(signedLine(payload, makeKey())))[0]?.payload).toEqual(payload);
    expect(payloadType).toBe("application/vnd.in-toto+json");
  });
});
