import { createPrivateKey, createPublicKey, hash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";

import { decodeBase64 } from "../../src/release/base64.ts";
import { readHead, writeHead } from "../../src/release/head.ts";
import { parsePrivateKey, parsePublicKey } from "../../src/release/trust/key.ts";
import { readManifest, writeManifest } from "../../src/release/manifest.ts";
import { readStatement, writeStatement } from "../../src/release/statement.ts";
import { parseStrictJson } from "../../src/release/strict-json.ts";
import { isManagedText, readTrustText } from "../../src/release/trust/trust-text.ts";
import { makeTrust } from "../../src/release/trust/trust.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { verifyManifest, verifyStatement } from "../../src/release/verify.ts";
import type { VerifiedStatement } from "../../src/release/verify.ts";
import type { Subject } from "./subject.ts";

const folder = path.join(import.meta.dirname, "../vectors/release");
const vector = (name: string) => readFileSync(path.join(folder, name));
const names = readdirSync(folder).filter((name) => name.endsWith(".jsonl"));
/** Releases that are right. */
export const releaseVectors = names.filter((name) => name.startsWith("good_")).map(vector);
const good = releaseVectors;
// of some the signature is right, and what it is over is not
const bad = names.filter((name) => name.startsWith("fail_")).map(vector);
const keys = ["p256.pub", "ed25519.pub"].map((name) => parsePublicKey(vector(name).toString(), name));
const manifestBytes = vector("manifest.json");

const payloads = good.map((bytes) => payloadOf(bytes));

function payloadOf(release: Buffer): Buffer {
  const line = release.toString().split("\n")[0] ?? "";
  const text = /"payload":"([^"]+)"/.exec(line)?.[1] ?? "";
  return Buffer.from(text, "base64");
}

function judge(release: Buffer, trust: Trust): VerifiedStatement {
  return verifyStatement(release, {
    stream: "orders",
    environment: "production",
    engine: "postgres",
    trust,
    now: new Date("2026-11-21T00:00:00Z"),
    highWaterMark: undefined,
    expected: undefined,
  });
}

/** Of several lines each may be right by itself. */
function linesOf(release: Buffer): readonly Buffer[] {
  return [
    release,
    ...release
      .toString()
      .split("\n")
      .map((line) => Buffer.from(line)),
  ];
}

/** The name of the statement in a line as it was published; undefined: refused. */
function digestOf(release: Buffer, trust: Trust): string | undefined {
  try {
    return judge(release, trust).digest;
  } catch {
    return undefined;
  }
}

function signedBy(name: string, keyNames: readonly number[], threshold: number): Subject {
  const trust = makeTrust(
    { keys: keyNames.map(String), threshold },
    keyNames.flatMap((index) => keys[index] ?? []),
    "the trust",
  );
  const allowed = new Set([...good, ...bad].flatMap(linesOf).flatMap((line) => digestOf(line, trust) ?? []));
  return {
    name,
    // the right ones more often: what comes of them has the longest way to go
    corpus: [...good, ...good, ...good, ...bad],
    words: ["publicKey", "hint", "keyid", "dsseEnvelope", "certificate", "messageSignature", "tlogEntries"],
    read(input) {
      const { digest } = judge(input, trust);
      return allowed.has(digest) ? undefined : "a statement that nobody signed";
    },
  };
}

const statement = judge(vector("good_p256.jsonl"), makeTrust({ keys: ["0", "1"] }, keys, "the trust"));

/** What reads a release, from its lines to its manifest. */
export const releaseSubjects: readonly Subject[] = [
  {
    name: "strict-json",
    corpus: [
      ...payloads,
      manifestBytes,
      ...good,
      Buffer.from('{"a":[1,{"b":null,"\\u00e9":"\\n"}],"c":true}'),
    ],
    read(input) {
      const value = parseStrictJson(input, "the text", 65_536);
      return isDeepStrictEqual(value, JSON.parse(input.toString()))
        ? undefined
        : "another value than JSON.parse";
    },
  },
  {
    name: "base64",
    corpus: [...payloads, ...keys.map(({ hint }) => Buffer.from(hint, "base64"))].flatMap((bytes) =>
      [(text: string) => text, (text: string) => text.replaceAll("+", "-").replaceAll("/", "_")].map(
        (spell) => Buffer.from(spell(bytes.toString("base64"))),
      ),
    ),
    read(input) {
      const text = input.toString();
      const bytes = decodeBase64(text, "the text");
      const spelled = (["base64", "base64url"] as const).map((alphabet) =>
        bytes.toString(alphabet).replace(/=+$/, ""),
      );
      return spelled.includes(text.replace(/=+$/, "")) ? undefined : "a second spelling of some bytes";
    },
  },
  signedBy("release-p256", [0], 1),
  signedBy("release-ed25519", [1], 1),
  signedBy("release-two-of-two", [0, 1], 2),
  {
    name: "statement",
    corpus: payloads,
    words: [
      "urn:lockkeeper:release:v1",
      "urn:lockkeeper:root:v1",
      "2026-11-31T10:00:00Z",
      "predicateType",
      "epoch",
    ],
    read(input) {
      const statement = readStatement(input);
      return isDeepStrictEqual(readStatement(writeStatement(statement)), statement)
        ? undefined
        : "not what it says";
    },
  },
  {
    name: "manifest",
    corpus: [manifestBytes],
    words: [
      "down",
      "checkpoint",
      "statements",
      "code",
      "base",
      "pack",
      "registry",
      "repeatable",
      "none",
      "crc32",
    ],
    read(input) {
      const manifest = readManifest(input);
      if (!isDeepStrictEqual(readManifest(writeManifest(manifest)), manifest)) return "not what it says";
      const paths = manifest.migrations.map(({ path: label }) => label.toLowerCase());
      return new Set(paths).size === paths.length ? undefined : "a label twice";
    },
  },
  {
    name: "manifest-signed",
    corpus: [manifestBytes],
    read(input) {
      verifyManifest(statement, input);
      return input.equals(manifestBytes) ? undefined : "a manifest that nobody signed";
    },
  },
  {
    name: "head",
    corpus: [writeHead({ epoch: 1, version: 12, digest: `sha256:${"0a".repeat(32)}` })],
    read(input) {
      const head = readHead(input);
      return isDeepStrictEqual(readHead(writeHead(head)), head) ? undefined : "not what it says";
    },
  },
  {
    name: "public-key",
    corpus: ["p256.pub", "ed25519.pub"].map(vector),
    words: ["PRIVATE KEY", "CERTIFICATE", "-----END PUBLIC KEY-----"],
    read(input) {
      const { key, id, kind } = parsePublicKey(input.toString(), "the key");
      const curve = key.asymmetricKeyDetails?.namedCurve;
      const isOurs = kind === "ed25519" ? key.asymmetricKeyType === "ed25519" : curve === "prime256v1";
      if (!isOurs) return "another algorithm";
      const again = parsePublicKey(String(key.export({ type: "spki", format: "pem" })), "the key");
      return again.id === id ? undefined : "one key with two ids";
    },
  },
  {
    name: "private-key",
    corpus: ["pkcs8"].map(() =>
      Buffer.from(String(seededKey("a private key").export({ type: "pkcs8", format: "pem" }))),
    ),
    words: ["ENCRYPTED", "COSIGN", "EC "],
    read(input) {
      const { key, public: ours } = parsePrivateKey(input.toString(), "passphrase", "the key");
      const again = parsePublicKey(
        String(createPublicKey(key).export({ type: "spki", format: "pem" })),
        "the key",
      );
      return again.id === ours.id ? undefined : "another public key than its own";
    },
  },
  {
    name: "trust-text",
    corpus: [
      {
        threshold: 2,
        keys: ["alice.pub", "bob.pub"],
        release: { production: { threshold: 2, maxValidityDays: 90 }, staging: { threshold: 1 } },
        minVersion: 3,
        revoked: { releases: [`sha256:${"1".repeat(64)}`] },
      },
      { keys: ["a"] },
    ].map((text) => Buffer.from(JSON.stringify(text))),
    words: ["identities", "root", "timestamp", "epoch", "minRootVersion", "oidc:a"],
    read(input) {
      const text = readTrustText(parseStrictJson(input, "the trust", 65_536), "the trust");
      if (isManagedText(text)) return undefined;
      const trust = makeTrust(text, keys, "the trust");
      const rules = [trust.rule, ...trust.release.values()];
      return rules.every(
        ({ threshold }) => threshold >= 1 && threshold <= keys.length + trust.identities.length,
      )
        ? undefined
        : "a threshold nobody can meet";
    },
  },
];

/** An Ed25519 key that is the same in every run: its signatures are, too. */
export function seededKey(seed: string): ReturnType<typeof createPrivateKey> {
  const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
  const key = Buffer.concat([prefix, Buffer.from(hash("sha256", `lockkeeper fuzz ${seed}`), "hex")]);
  return createPrivateKey({ key, format: "der", type: "pkcs8" });
}
