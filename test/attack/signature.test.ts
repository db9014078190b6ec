import { createHash, createHmac, createPublicKey, generateKeyPairSync, sign } from "node:crypto";

import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { preAuthEncoding, readEnvelopes } from "../../src/release/envelope.ts";
import { signersOf } from "../../src/release/trust/signers.ts";
import { generateKey, isSignedBy, parsePrivateKey, parsePublicKey } from "../../src/release/trust/key.ts";
import type { SigningKey } from "../../src/release/trust/key.ts";
import { writeStatement } from "../../src/release/statement.ts";
import { makeTrust } from "../../src/release/trust/trust.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { verifyStatement } from "../../src/release/verify.ts";
import type { VerifiedStatement } from "../../src/release/verify.ts";
import { altered } from "../support/bundle-line.ts";
import { makeKey, signedLine, trustOf } from "../support/release.ts";

const now = new Date("2026-11-20T12:00:00Z");
const payload = writeStatement({
  stream: "orders",
  epoch: 1,
  version: 1,
  previous: null,
  manifestSha256: "0".repeat(64),
  manifestSize: 100,
  chain: { length: 1, head: "1".repeat(64) },
  environments: ["default"],
  issued: new Date("2026-11-20T10:00:00Z"),
  expires: new Date("2027-02-18T10:00:00Z"),
});
const type = "application/vnd.in-toto+json";

function judge(lines: readonly string[], trust: Trust): VerifiedStatement {
  return verifyStatement(Buffer.from(lines.join("\n")), {
    stream: "orders",
    environment: "default",
    engine: "postgres",
    trust,
    highWaterMark: undefined,
    expected: undefined,
    now,
  });
}

function codeOf(judging: () => unknown): string {
  try {
    judging();
  } catch (error) {
    if (error instanceof RunnerError) return error.code;
    throw error;
  }
  return "taken";
}

/** A bundle line with this signature, as if it were the key's. */
function withSignature(key: SigningKey, signature: Buffer, over: Buffer = payload): string {
  return altered(signedLine(over, key), "dsseEnvelope.signatures.0.sig", signature.toString("base64"));
}

describe("a threshold", () => {
  const [alice, bob, eve] = [makeKey(), makeKey("ed25519"), makeKey()] as const;
  const two = trustOf([alice, bob], { threshold: 2 });

  test("is met by distinct keys of both kinds, in any order and among lines of strangers", () => {
    const lines = [eve, bob, alice].map((key) => signedLine(payload, key));
    expect(judge(lines, two).signers).toEqual([bob.id, alice.id]);
  });

  test("20 one key that signs twice counts once: THRESHOLD", () => {
    const lines = [signedLine(payload, alice), signedLine(payload, alice)];
    expect(codeOf(() => judge(lines, two))).toBe("THRESHOLD");
  });

  test("21 one key under two encodings in a trust is TRUST_INVALID", () => {
    // the same P-256 point, compressed: other DER bytes, the same key
    const compressed = compress(alice.publicPem);
    expect(compressed).not.toBe(alice.publicPem);
    const keys = [alice.publicPem, compressed].map((pem) => parsePublicKey(pem, "a key"));
    expect(codeOf(() => makeTrust({ threshold: 2, keys: ["a", "b"] }, keys, "the trust"))).toBe(
      "TRUST_INVALID",
    );
  });

  test("above the number of keys is TRUST_INVALID, also for one environment", () => {
    expect(codeOf(() => trustOf([alice], { threshold: 2 }))).toBe("TRUST_INVALID");
    expect(codeOf(() => trustOf([alice], { release: { production: { threshold: 2 } } }))).toBe(
      "TRUST_INVALID",
    );
    expect(codeOf(() => trustOf([alice], { threshold: 0 }))).toBe("TRUST_INVALID");
    expect(codeOf(() => trustOf([alice], { thresold: 1 }))).toBe("TRUST_INVALID");
  });

  test("of its own holds for an environment that has one", () => {
    const trust = trustOf([alice, bob], { release: { default: { threshold: 2 } } });
    expect(codeOf(() => judge([signedLine(payload, alice)], trust))).toBe("THRESHOLD");
    expect(codeOf(() => judge([signedLine(payload, alice)], trustOf([alice, bob])))).toBe("taken");
  });
});

describe("an envelope", () => {
  const key = makeKey();
  const trust = trustOf([key]);
  const line = signedLine(payload, key);

  test("22 of another payload type is PAYLOAD_TYPE", () => {
    expect(codeOf(() => judge([altered(line, "dsseEnvelope.payloadType", "text/plain")], trust))).toBe(
      "PAYLOAD_TYPE",
    );
    const other = sign("sha256", preAuthEncoding("text/plain", payload), key.key);
    expect(codeOf(() => judge([withSignature(key, other)], trust))).toBe("THRESHOLD");
  });

  test("23 of a root statement by the same key is PREDICATE_TYPE", () => {
    const root = {
      ...parsed(payload.toString()),
      predicateType: "urn:lockkeeper:root:v1",
      predicate: { org: "acme", version: 2 },
    };
    const bytes = Buffer.from(JSON.stringify(root));
    expect(codeOf(() => judge([signedLine(bytes, key)], trust))).toBe("PREDICATE_TYPE");
  });

  test("24 signed over the bare payload is THRESHOLD", () => {
    expect(codeOf(() => judge([withSignature(key, sign("sha256", payload, key.key))], trust))).toBe(
      "THRESHOLD",
    );
  });

  test("25 with a keyid of another key is judged by the key that signed", () => {
    const other = makeKey();
    const trusted = trustOf([key, other]);
    const signature = { ...signatureOf(line), keyid: other.id };
    expect(judge([altered(line, "dsseEnvelope.signatures", [signature])], trusted).signers).toEqual([key.id]);
  });

  test("25 with the hint of another key proves nothing for either", () => {
    const [other, stranger] = [makeKey(), makeKey()];
    const path = "verificationMaterial.publicKey.hint";
    expect(codeOf(() => judge([altered(line, path, other.public.hint)], trustOf([key, other])))).toBe(
      "THRESHOLD",
    );
    expect(codeOf(() => judge([altered(signedLine(payload, stranger), path, key.public.hint)], trust))).toBe(
      "THRESHOLD",
    );
    expect(judge([altered(line, "verificationMaterial.publicKey", {})], trust).signers).toEqual([key.id]);
  });

  test("26 with a signature of another scheme is THRESHOLD", () => {
    const message = preAuthEncoding(type, payload);
    const p1363 = sign("sha256", message, { key: key.key, dsaEncoding: "ieee-p1363" });
    expect(codeOf(() => judge([withSignature(key, p1363)], trust))).toBe("THRESHOLD");
    const edwards = makeKey("ed25519");
    const prehashed = sign(null, Buffer.from(createHash("sha512").update(message).digest()), edwards.key);
    expect(codeOf(() => judge([withSignature(edwards, prehashed)], trustOf([edwards])))).toBe("THRESHOLD");
    const sha384 = sign("sha384", message, key.key);
    expect(codeOf(() => judge([withSignature(key, sha384)], trust))).toBe("THRESHOLD");
  });

  test.for([
    ["RSA of 1024 bits", generateKeyPairSync("rsa", { modulusLength: 1024 })],
    ["RSA of 3072 bits", generateKeyPairSync("rsa", { modulusLength: 3072 })],
    ["P-384", generateKeyPairSync("ec", { namedCurve: "secp384r1" })],
    ["secp256k1", generateKeyPairSync("ec", { namedCurve: "secp256k1" })],
    ["Ed448", generateKeyPairSync("ed448")],
    ["X25519", generateKeyPairSync("x25519")],
  ] as const)("26 a key of %s is KEY_ALG", ([, pair]) => {
    const pem = pair.publicKey.export({ type: "spki", format: "pem" }).toString();
    expect(codeOf(() => parsePublicKey(pem, "the key"))).toBe("KEY_ALG");
    const privatePem = pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString();
    expect(codeOf(() => parsePrivateKey(privatePem, undefined, "the key"))).toBe("KEY_ALG");
  });

  test("27 with an HMAC under the public key is THRESHOLD", () => {
    const mac = createHmac("sha256", key.publicPem).update(preAuthEncoding(type, payload)).digest();
    expect(codeOf(() => judge([withSignature(key, mac)], trust))).toBe("THRESHOLD");
  });

  test("28 beside one with another payload is PAYLOAD_DIFFERS, whichever is first", () => {
    const other = signedLine(
      Buffer.from(payload.toString().replace('"version":1', '"version":2')),
      makeKey(),
    );
    expect(codeOf(() => judge([line, other], trust))).toBe("PAYLOAD_DIFFERS");
    expect(codeOf(() => judge([other, line], trust))).toBe("PAYLOAD_DIFFERS");
  });

  test.for([
    ["white space", (text: string) => `${text.slice(0, 8)} ${text.slice(8)}`],
    ["a line end", (text: string) => `${text}\n`],
    ["junk", (text: string) => `*${text}`],
    ["no padding", (text: string) => text.replace(/=+$/, "")],
    ["spare bits", (text: string) => text.replace(/(.)==$/, (_, last: string) => `${next(last)}==`)],
    ["a mix of alphabets", (text: string) => `+_${text}`.slice(0, text.length)],
  ] as const)("29 with %s in its base64 is B64", ([, change]) => {
    // 676 and 1 spare byte: the text ends with ==
    const padded = Buffer.concat([payload, Buffer.from(" ".repeat((4 - (payload.length % 3)) % 3))]);
    const text = padded.toString("base64");
    expect(text.endsWith("==")).toBe(true);
    const whole = signedLine(padded, key);
    expect(codeOf(() => judge([altered(whole, "dsseEnvelope.payload", change(text))], trust))).toBe("B64");
  });

  test("in the URL-safe alphabet is the same", () => {
    const urlSafe = payload.toString("base64").replaceAll("+", "-").replaceAll("/", "_");
    expect(judge([altered(line, "dsseEnvelope.payload", urlSafe)], trust).version).toBe(1);
  });

  test("without a signature, or with two, is SIG_COUNT", () => {
    const signature = signatureOf(line);
    for (const signatures of [[], [signature, signature]]) {
      expect(codeOf(() => judge([altered(line, "dsseEnvelope.signatures", signatures)], trust))).toBe(
        "SIG_COUNT",
      );
    }
  });

  test("of another kind of bundle is BUNDLE", () => {
    expect(
      codeOf(() =>
        judge([altered(line, "mediaType", "application/vnd.dev.sigstore.bundle.v0.4+json")], trust),
      ),
    ).toBe("BUNDLE");
    expect(codeOf(() => judge([altered(line, "messageSignature", {})], trust))).toBe("BUNDLE");
    expect(codeOf(() => judge([altered(line, "verificationMaterial", { certificate: {} })], trust))).toBe(
      "BUNDLE",
    );
    expect(codeOf(() => judge([], trust))).toBe("BUNDLE");
  });

  test("is read with the proofs that cosign adds, which count nothing", () => {
    const proofs = altered(line, "verificationMaterial.tlogEntries", [
      { logIndex: "1", inclusionProof: { hashes: [] } },
    ]);
    expect(judge([proofs], trust).signers).toEqual([key.id]);
  });
});

describe("the bytes that are signed", () => {
  test("are those of the DSSE specification's example", () => {
    expect(preAuthEncoding("http://example.com/HelloWorld", Buffer.from("hello world")).toString()).toBe(
      "DSSEv1 29 http://example.com/HelloWorld 11 hello world",
    );
  });

  test("make the DSSE specification's signature right with its key, and wrong in our profile, which is DER only", () => {
    // protocol.md: P-256 key and signature of the example, r and s side by side
    const x = hexOfDecimal("46950820868899156662930047687818585632848591499744589407958293238635476079160");
    const y = hexOfDecimal("5640078356564379163099075877009565129882514886557779369047442380624545832820");
    const jwk = { kty: "EC", crv: "P-256", x: x.toString("base64url"), y: y.toString("base64url") };
    const pem = createPublicKey({ key: jwk, format: "jwk" })
      .export({ type: "spki", format: "pem" })
      .toString();
    const signature = Buffer.from(
      "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==",
      "base64",
    );
    const message = preAuthEncoding("http://example.com/HelloWorld", Buffer.from("hello world"));
    expect(isSignedBy(message, toDer(signature), parsePublicKey(pem, "the example's key"))).toBe(true);
    expect(isSignedBy(message, signature, parsePublicKey(pem, "the example's key"))).toBe(false);
  });
});

describe("a private key", () => {
  test("in place of a public one is KEY_PRIVATE", () => {
    const { privatePem, publicPem } = generateKey("ecdsa-p256", undefined);
    expect(codeOf(() => parsePublicKey(privatePem, "the key"))).toBe("KEY_PRIVATE");
    expect(codeOf(() => parsePublicKey(publicPem + privatePem, "the key"))).toBe("KEY_PRIVATE");
  });

  test.for(["ecdsa-p256", "ed25519"] as const)("of kind %s opens with its passphrase only", (kind) => {
    const { privatePem, publicPem, id } = generateKey(kind, "correct horse");
    expect(privatePem).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
    expect(codeOf(() => parsePrivateKey(privatePem, undefined, "the key"))).toBe("KEY_PASSPHRASE");
    expect(codeOf(() => parsePrivateKey(privatePem, "wrong", "the key"))).toBe("KEY_PASSPHRASE");
    const key = parsePrivateKey(privatePem, "correct horse", "the key");
    expect(key.public.id).toBe(id);
    expect(
      signersOf(readEnvelopes(Buffer.from(signedLine(payload, key))), {
        keys: [parsePublicKey(publicPem, "the key")],
        identities: [],
        keyless: null,
      }),
    ).toHaveLength(1);
  });

  test("that is no key at all, or two of them, is KEY_INVALID", () => {
    const { publicPem } = generateKey("ed25519", undefined);
    for (const text of ["", "ssh-ed25519 AAAA", publicPem + publicPem, publicPem.replace("MCow", "AAAA")]) {
      expect(codeOf(() => parsePublicKey(text, "the key"))).toBe("KEY_INVALID");
    }
    expect(codeOf(() => parsePrivateKey("nothing", undefined, "the key"))).toBe("KEY_INVALID");
  });
});

function parsed(text: string): object {
  return Object(JSON.parse(text)) as object;
}

function signatureOf(line: string): object {
  const { dsseEnvelope } = JSON.parse(line) as { dsseEnvelope: { signatures: [object] } };
  return dsseEnvelope.signatures[0];
}

function next(character: string): string {
  return String.fromCharCode(character.charCodeAt(0) + 1);
}

function hexOfDecimal(decimal: string): Buffer {
  return Buffer.from(BigInt(decimal).toString(16).padStart(64, "0"), "hex");
}

/** r and s side by side → the DER sequence of two integers. */
function toDer(signature: Buffer): Buffer {
  const integers = [signature.subarray(0, 32), signature.subarray(32)].map((part) => {
    const trimmed = part.subarray(part.findIndex((byte) => byte !== 0));
    const positive = (trimmed[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), trimmed]) : trimmed;
    return Buffer.concat([Buffer.of(2, positive.length), positive]);
  });
  const body = Buffer.concat(integers);
  return Buffer.concat([Buffer.of(0x30, body.length), body]);
}

/** A P-256 SPKI with its point in compressed form. */
function compress(pem: string): string {
  const der = createPublicKey(pem).export({ type: "spki", format: "der" });
  const point = der.subarray(-64);
  const parity = (point[63] ?? 0) % 2 === 0 ? 2 : 3;
  const bits = Buffer.concat([Buffer.of(0x03, 0x22, 0x00, parity), point.subarray(0, 32)]);
  const algorithm = der.subarray(2, 2 + 21);
  const body = Buffer.concat([algorithm, bits]);
  const whole = Buffer.concat([Buffer.of(0x30, body.length), body]);
  return `-----BEGIN PUBLIC KEY-----\n${whole.toString("base64")}\n-----END PUBLIC KEY-----\n`;
}
