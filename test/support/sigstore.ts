import { createHash, generateKeyPairSync, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";

import { initializeCA, initializeCTLog, initializeTLog, initializeTSA } from "@sigstore/mock";
import * as v from "valibot";

import { mediaType, payloadType, preAuthEncoding } from "../../src/release/envelope.ts";

/** What a test's Fulcio writes into a certificate. */
export interface TestCertificate {
  readonly san: string;
  readonly issuer: string;
  /** further extensions by their last number, 1.3.6.1.4.1.57264.1.<number> */
  readonly oids?: Readonly<Record<string, string>>;
}

/** How a signature is made otherwise than an honest signer would. */
export interface Signing {
  /** when its log entry, or its timestamp, is made; default: within the certificate's validity */
  readonly signedAt?: Date;
  /** the key of the certificate; default: a fresh one of P-256 */
  readonly keys?: { readonly publicKey: KeyObject; readonly privateKey: KeyObject };
  /** one that another authority made for these keys; default: what the instance makes */
  readonly certificate?: Buffer;
}

/** A Sigstore instance of a test's own: real certificates, logs and timestamps from `@sigstore/mock`, without its network. */
export interface TestSigstore {
  /** as the text of a `trusted_root.json` parses */
  readonly trustedRoot: TestTrustedRoot;
  /** the time by its clocks, an hour ahead: its certificates are valid for ten minutes from then */
  readonly now: Date;
  /** One line of a release, as cosign or GitHub's action writes it. */
  sign(payload: Uint8Array, certificate: TestCertificate, signing?: Signing): Promise<string>;
  /** What Fulcio does: a certificate for this public key, DER. */
  certify(publicKey: Buffer<ArrayBuffer>, certificate: TestCertificate): Promise<Buffer>;
  /** What Rekor does: its answer to whoever asks it to log a signature over `payload`, whose certificate is `verifier`. */
  log(payload: Uint8Array, signature: Buffer, verifier: Buffer): Promise<object>;
}

/** The lists of a trusted root, open to whatever a test spoils in them. */
export type TestTrustedRoot = Readonly<
  Record<"tlogs" | "ctlogs" | "timestampAuthorities", readonly object[]>
> &
  Readonly<Record<"certificateAuthorities", readonly object[]>> & { readonly mediaType: string };

/** GitHub's, which Fulcio writes for a workflow. */
export const githubIssuer = "https://token.actions.githubusercontent.com";

/**
 * Makes an instance: with logs, as the public one is, or without, as GitHub's for private repositories.
 *
 * @param options.kind - `public`: transparency and certificate logs; `private`: a timestamp authority in their place
 */
export async function createSigstore({
  kind = "public",
}: { readonly kind?: "public" | "private" } = {}): Promise<TestSigstore> {
  // the authorities' own certificates begin when they are made, which may take its time on a busy machine
  const now = new Date(Math.ceil(Date.now() / 1000) * 1000 + 3_600_000);
  const keys = { log: p256(), receipt: p256(), authority: p256(), time: p256() };
  const certificateLog = kind === "public" ? await initializeCTLog(keys.receipt, now) : undefined;
  const authority = await initializeCA(keys.authority, certificateLog, now);
  const tsa = await initializeTSA(keys.time, now);
  const certify = async (
    publicKey: Buffer<ArrayBuffer>,
    { san, issuer, oids = {} }: TestCertificate,
  ): Promise<Buffer> => {
    const values = Object.entries({ ...(issuer !== "" && { 8: issuer }), ...oids });
    const extensions = values.map(([number, value]) => {
      return { oid: `1.3.6.1.4.1.57264.1.${number}`, value, legacy: Number(number) <= 6 };
    });
    const { buffer, byteOffset, byteLength } = await authority.issueCertificate({
      publicKey,
      subjectAltName: san,
      extensions,
    });
    return Buffer.from(buffer, byteOffset, byteLength);
  };
  return {
    now,
    trustedRoot: {
      mediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
      tlogs: kind === "public" ? [logOf(logUrl, spki(keys.log.publicKey))] : [],
      certificateAuthorities: [authorityOf([authority.rootCertificate])],
      ctlogs: certificateLog === undefined ? [] : [logOf("https://ctfe.test", certificateLog.publicKey)],
      timestampAuthorities:
        kind === "private" ? [authorityOf([tsa.intCertificate, tsa.rootCertificate])] : [],
    },
    certify,
    log: (payload, signature, verifier) => logAnswer(keys.log, now, payload, signature, verifier),
    async sign(payload, wanted, { signedAt = now, keys: own = p256(), certificate: given } = {}) {
      const certificate = given ?? (await certify(spki(own.publicKey), wanted));
      const signature = sign("sha256", preAuthEncoding(payloadType, payload), own.privateKey);
      return JSON.stringify({
        mediaType,
        verificationMaterial: {
          certificate: { rawBytes: base64(certificate) },
          ...(kind === "public"
            ? { tlogEntries: [await logged(keys.log, signedAt, payload, signature, certificate)] }
            : {
                timestampVerificationData: {
                  rfc3161Timestamps: [{ signedTimestamp: await stamped(keys.time, signedAt, signature) }],
                },
              }),
        },
        dsseEnvelope: {
          payload: base64(payload),
          payloadType,
          signatures: [{ sig: base64(signature), keyid: "" }],
        },
      });
    },
  };
}

type KeyPair = NonNullable<Signing["keys"]>;

const logUrl = "https://rekor.test";
const validFor = { start: "2020-01-01T00:00:00Z" };

function p256(): KeyPair {
  return generateKeyPairSync("ec", { namedCurve: "P-256" });
}

function spki(key: KeyObject): Buffer<ArrayBuffer> {
  return Buffer.from(key.export({ type: "spki", format: "der" }));
}

function base64(bytes: ArrayBufferView | Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

function logOf(baseUrl: string, key: Buffer): object {
  return {
    baseUrl,
    hashAlgorithm: "SHA2_256",
    publicKey: { rawBytes: base64(key), keyDetails: "PKIX_ECDSA_P256_SHA_256", validFor },
    logId: { keyId: createHash("sha256").update(key).digest("base64") },
  };
}

/** One of the authorities of a trusted root. */
export function authorityOf(certificates: readonly ArrayBufferView[]): object {
  return {
    subject: { organization: "test", commonName: "test" },
    uri: "https://fulcio.test",
    certChain: { certificates: certificates.map((bytes) => ({ rawBytes: base64(bytes) })) },
    validFor,
  };
}

/** What a log of Rekor's first kind answers: the entry, with its promise and its proof. */
async function logAnswer(
  keys: KeyPair,
  at: Date,
  payload: Uint8Array,
  signature: Buffer,
  verifier: Buffer,
): Promise<object> {
  const log = await initializeTLog(logUrl, keys, at);
  const hash = (bytes: Uint8Array | string): object => {
    return { algorithm: "sha256", value: createHash("sha256").update(bytes).digest("hex") };
  };
  const envelope = { payload: base64(payload), payloadType, signatures: [{ sig: base64(signature) }] };
  const spec = {
    envelopeHash: hash(JSON.stringify(envelope)),
    payloadHash: hash(payload),
    signatures: [{ signature: base64(signature), verifier: base64(verifier) }],
  };
  return log.log({ apiVersion: kindVersion.version, kind: kindVersion.kind, spec });
}

const kindVersion = { kind: "dsse", version: "0.0.1" };

/** The signature's entry in a log, as a bundle has it. */
async function logged(...signed: Parameters<typeof logAnswer>): Promise<object> {
  const entry = v.parse(logEntry, Object.values(await logAnswer(...signed))[0]);
  const { signedEntryTimestamp, inclusionProof: proof } = entry.verification;
  return {
    logIndex: String(entry.logIndex),
    logId: { keyId: Buffer.from(entry.logID, "hex").toString("base64") },
    kindVersion,
    integratedTime: String(entry.integratedTime),
    inclusionPromise: { signedEntryTimestamp },
    inclusionProof: {
      logIndex: String(proof.logIndex),
      treeSize: String(proof.treeSize),
      rootHash: Buffer.from(proof.rootHash, "hex").toString("base64"),
      hashes: [],
      checkpoint: { envelope: proof.checkpoint },
    },
    canonicalizedBody: entry.body,
  };
}

/** What Rekor answers, as far as a bundle repeats it. */
const logEntry = v.object({
  logIndex: v.number(),
  logID: v.string(),
  integratedTime: v.number(),
  body: v.string(),
  verification: v.object({
    signedEntryTimestamp: v.string(),
    inclusionProof: v.object({
      logIndex: v.number(),
      treeSize: v.number(),
      rootHash: v.string(),
      checkpoint: v.string(),
    }),
  }),
});

async function stamped(keys: KeyPair, at: Date, signature: Buffer): Promise<string> {
  const authority = await initializeTSA(keys, at);
  return base64(
    await authority.timestamp({
      artifactHash: createHash("sha256").update(signature).digest(),
      hashAlgorithmOID: "2.16.840.1.101.3.4.2.1",
      nonce: 1,
      policyOID: "1.3.6.1.4.1.57264.2",
    }),
  );
}
