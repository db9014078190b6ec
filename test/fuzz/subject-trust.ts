import { createPublicKey, hash, sign } from "node:crypto";

import { payloadType, preAuthEncoding, writeEnvelope } from "../../src/release/envelope.ts";
import { parsePublicKey } from "../../src/release/trust/key.ts";
import { readRoot } from "../../src/release/root/root.ts";
import { writeRootStatement } from "../../src/release/root/root-statement.ts";
import { verifyNextRoot } from "../../src/release/root/root-walk.ts";
import { verifyTimestamp, writeTimestamp } from "../../src/release/timestamp.ts";
import { seededKey } from "./subject-release.ts";
import type { Subject } from "./subject.ts";

const now = new Date("2026-11-21T00:00:00Z");
const privateKey = seededKey("a root");
const pem = createPublicKey(privateKey).export({ type: "spki", format: "pem" }).toString();
const key = parsePublicKey(pem, "the root's key");

function signed(payload: Buffer): Buffer {
  return Buffer.from(
    writeEnvelope(payload, key, sign(null, preAuthEncoding(payloadType, payload), privateKey)),
  );
}

function rootOf(version: number): Buffer {
  const role = { keys: [key.id], threshold: 1 };
  return Buffer.from(
    JSON.stringify({
      schema: "urn:lockkeeper:root:v1",
      org: "acme",
      version,
      expires: "2027-11-20T00:00:00Z",
      keys: { [key.id]: { type: "ed25519", name: "offline-1", pem } },
      roles: {
        root: role,
        release: [{ streams: ["orders"], environments: ["production"], ...role }],
        timestamp: role,
      },
      streams: { orders: { epoch: 1, minVersion: 1 } },
      revoked: { releases: [] },
    }),
  );
}

const first = readRoot(rootOf(1));
const second = rootOf(2);
const bundles = signed(writeRootStatement({ org: "acme", version: 2 }, second));
const timestamp = writeTimestamp({
  stream: "orders",
  epoch: 1,
  version: 7,
  digest: `sha256:${"0a".repeat(32)}`,
  issued: new Date(now.getTime() - 3_600_000),
  expires: new Date(now.getTime() + 82_800_000),
});
const rootWords = [
  "oidc:a",
  "sigstore",
  "__proto__",
  "trustDomain",
  "issuer",
  "san",
  "oids",
  "threshold",
  "epoch",
];

/** What reads roots and timestamps. */
export const trustSubjects: readonly Subject[] = [
  {
    name: "root-document",
    corpus: [rootOf(1), second],
    words: rootWords,
    read(input) {
      const { signers, releases } = readRoot(input);
      const reachable = [signers, ...releases].every(({ threshold }) => threshold >= 1);
      return reachable ? undefined : "a threshold that nobody needs";
    },
  },
  {
    name: "root-signed",
    corpus: [second],
    words: rootWords,
    read(input) {
      verifyNextRoot(first, { document: input, bundles });
      return input.equals(second) ? undefined : "a root that nobody signed";
    },
  },
  {
    name: "root-signatures",
    corpus: [bundles, signed(timestamp)],
    read(input) {
      const root = verifyNextRoot(first, { document: second, bundles: input });
      return root.version === 2 ? undefined : "another root";
    },
  },
  {
    name: "timestamp",
    corpus: [signed(timestamp), bundles],
    words: ["urn:lockkeeper:timestamp:v1", "release", "expires"],
    read(input) {
      const read = verifyTimestamp(input, { rule: { keys: [key], threshold: 1 }, stream: "orders", now });
      return hash("sha256", writeTimestamp(read)) === hash("sha256", timestamp)
        ? undefined
        : "a timestamp that nobody signed";
    },
  },
];
