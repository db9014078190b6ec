import { readFileSync } from "node:fs";
import path from "node:path";

import { compactVerify } from "jose";
import * as v from "valibot";
import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { pinnedKeys } from "../../src/http/auth/key-set.ts";
import { createTokenVerifier } from "../../src/http/auth/token.ts";
import { isSignedBy, parsePublicKey } from "../../src/release/trust/key.ts";
import { needs, part } from "../support/parts.ts";

needs("wycheproof");

const judged = { tcId: v.number(), result: v.picklist(["valid", "invalid", "acceptable"]) };
const signatures = v.object({
  numberOfTests: v.number(),
  testGroups: v.array(
    v.object({
      publicKeyPem: v.string(),
      tests: v.array(v.object({ ...judged, msg: v.string(), sig: v.string() })),
    }),
  ),
});
const tokens = v.object({
  numberOfTests: v.number(),
  testGroups: v.array(
    v.object({
      public: v.optional(v.looseObject({ kty: v.string() })),
      private: v.looseObject({ kty: v.string() }),
      tests: v.array(v.object({ ...judged, jws: v.union([v.string(), v.looseObject({})]) })),
    }),
  ),
});

function read<Schema extends v.GenericSchema>(schema: Schema, name: string): v.InferOutput<Schema> {
  return v.parse(schema, JSON.parse(readFileSync(path.join(part("wycheproof"), name), "utf8")));
}

/** Each test of a file: what it wants, and whether our own check takes its signature. */
function judgeAll(
  name: string,
): readonly { readonly id: number; readonly wanted: boolean; readonly isTaken: boolean }[] {
  const { testGroups, numberOfTests } = read(signatures, name);
  const all = testGroups.flatMap(({ publicKeyPem, tests }) => {
    const key = parsePublicKey(publicKeyPem, "the vector's key");
    return tests.map(({ tcId, result, msg, sig }) => ({
      id: tcId,
      wanted: result === "valid",
      isTaken: isSignedBy(Buffer.from(msg, "hex"), Buffer.from(sig, "hex"), key),
    }));
  });
  expect(all).toHaveLength(numberOfTests);
  return all;
}

describe("a signature of a release", () => {
  test.for([
    ["ed25519_test.json", 151],
    ["ecdsa_secp256r1_sha256_test.json", 484],
  ] as const)("is judged as Wycheproof wants it: %s", ([name, count]) => {
    const all = judgeAll(name);
    expect(all).toHaveLength(count);
    expect(all.filter(({ wanted, isTaken }) => wanted !== isTaken)).toEqual([]);
    expect(all.filter(({ isTaken }) => isTaken).length).toBeGreaterThan(50);
  });

  test("with r and s side by side is none, right or wrong: our profile is DER", () => {
    const all = judgeAll("ecdsa_secp256r1_sha256_p1363_test.json");
    expect(all).toHaveLength(262);
    expect(all.filter(({ isTaken }) => isTaken)).toEqual([]);
  });
});

describe("a token", () => {
  const algorithms = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
  ];
  /** read by the tests alone: where the part is missing, nothing is read */
  const readVectors = () => {
    const { testGroups, numberOfTests } = read(tokens, "json_web_signature_test.json");
    const vectors = testGroups.flatMap(({ public: publicKey, private: privateKey, tests }) =>
      tests.map(({ tcId, result, jws }) => ({
        id: tcId,
        wanted: result === "valid",
        jws,
        key: publicKey ?? privateKey,
      })),
    );
    expect(vectors).toHaveLength(numberOfTests);
    return vectors;
  };

  test("is never checked with a shared secret: a key set that holds one is CONFIG", () => {
    const secret = readVectors().find(({ key }) => key.kty === "oct")?.key;
    expect(() => pinnedKeys(JSON.stringify({ keys: [secret] }), "jwks.json")).toThrow(
      expect.objectContaining({ code: "CONFIG" }),
    );
  });

  test("of Wycheproof is UNAUTHENTICATED, all 401: what they sign are no claims, and nothing breaks on them", async () => {
    for (const { id, jws, key } of readVectors()) {
      const verifier = createTokenVerifier({
        audience: "https://migrate.test",
        issuers:
          key.kty === "oct"
            ? []
            : [
                {
                  issuer: {
                    name: "w",
                    issuer: "https://issuer.test",
                    keys: { kind: "file", path: "jwks.json" },
                    algorithms,
                    maxTokenAgeMs: 600_000,
                    typ: null,
                  },
                  keys: pinnedKeys(JSON.stringify({ keys: [publicPart(key)] }), "jwks.json"),
                },
              ],
        maxTokenChars: 8_192,
        now: () => new Date("2026-11-21T00:00:00Z"),
      });
      const text = typeof jws === "string" ? jws : JSON.stringify(jws);
      const refusal: unknown = await verifier.verify(text).then(
        () => "taken",
        (error: unknown) => (error instanceof RunnerError ? error.code : error),
      );
      expect({ id, refusal }).toEqual({ id, refusal: "UNAUTHENTICATED" });
    }
  });

  test("with a signature that Wycheproof calls wrong is taken by no public key; four right ones are refused for the algorithm that they or their keys name", async () => {
    const taken: number[] = [];
    const refused: number[] = [];
    for (const { id, wanted, jws, key } of readVectors()) {
      if (key.kty === "oct" || typeof jws !== "string") continue;
      const keys = pinnedKeys(JSON.stringify({ keys: [publicPart(key)] }), "jwks.json");
      const isTaken = await compactVerify(jws, keys, { algorithms }).then(
        () => true,
        () => false,
      );
      if (isTaken && !wanted) taken.push(id);
      if (!isTaken && wanted) refused.push(id);
    }
    // PS384 with a key that is for PS256, and ES512 with one whose algorithm is called ES521, which there is not
    expect({ taken, refused }).toEqual({ taken: [], refused: [346, 347, 350, 351] });
  });
});

function publicPart(key: Readonly<Record<string, unknown>>): object {
  const secrets = new Set(["d", "p", "q", "dp", "dq", "qi", "oth", "k"]);
  return Object.fromEntries(Object.entries(key).filter(([name]) => !secrets.has(name)));
}
