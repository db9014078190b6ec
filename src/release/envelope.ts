import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { decodeBase64 } from "./base64.ts";
import type { PublicKey, Signer } from "./trust/key.ts";
import { releaseLimits } from "./limits.ts";
import { check } from "./schema.ts";
import { parseStrictJson } from "./strict-json.ts";

/** What the envelope says its payload is. */
export const payloadType = "application/vnd.in-toto+json";

/** What every line is. */
export const mediaType = "application/vnd.dev.sigstore.bundle.v0.3+json";

/** One signer's bundle, taken apart; nothing in it is trusted yet. */
export interface Envelope {
  /** exact bytes that were signed, the statement */
  readonly payload: Buffer;
  readonly signature: Buffer;
  /** which key it claims to be of; may only narrow the search */
  readonly hint: string | undefined;
  /** what a signer without a key of its own brings along; undefined: it is signed by a key */
  readonly keyless: KeylessProof | undefined;
}

/** Proofs of whose a signature is, and of when it was made; what is in them is for Sigstore's library to judge. */
export interface KeylessProof {
  /** DER, unless the signer made it up */
  readonly certificate: Buffer;
  readonly tlogEntries: readonly unknown[];
  /** by RFC 3161 */
  readonly timestamps: readonly unknown[];
}

/**
 * The bytes a DSSE signature is over.
 *
 * DSSE 1.0.2 protocol.md: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body`.
 */
export function preAuthEncoding(type: string, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from(`DSSEv1 ${Buffer.byteLength(type)} ${type} ${body.length} `), body]);
}

/** Signs a payload: one line of a release. No newline at its end. */
export async function signEnvelope(
  payload: Uint8Array,
  signer: Signer,
  signal: AbortSignal,
): Promise<string> {
  return writeEnvelope(
    payload,
    signer.public,
    await signer.sign(preAuthEncoding(payloadType, payload), signal),
  );
}

/** A Sigstore bundle v0.3 with a DSSE envelope, as cosign reads it, on one line. */
export function writeEnvelope(
  payload: Uint8Array,
  { hint }: Pick<PublicKey, "hint">,
  signature: Buffer,
): string {
  return JSON.stringify({
    mediaType,
    verificationMaterial: { publicKey: { hint } },
    dsseEnvelope: {
      payload: Buffer.from(payload).toString("base64"),
      payloadType,
      // cosign 3.1.3 refuses a bundle whose signature has a `keyid`, or with more than one signature
      signatures: [{ sig: signature.toString("base64") }],
    },
  });
}

/**
 * The lines of a release, or of another document that is signed so (`what`), each taken apart, all with the same payload.
 *
 * @throws RunnerError `TOO_LARGE`, `JSON_…`, `BUNDLE`, `PAYLOAD_TYPE`, `SIG_COUNT`, `B64`, `PAYLOAD_DIFFERS` — trust.md 2.5.3 and 2.5.4
 */
export function readEnvelopes(bytes: Buffer, what = "the release"): readonly Envelope[] {
  const envelopes = splitLines(bytes, what).map((line, index) =>
    readEnvelope(line, `line ${index + 1} of ${what}`),
  );
  const first = envelopes[0];
  if (first === undefined) throw new RunnerError("BUNDLE", `${what} holds no signature`);
  for (const envelope of envelopes) {
    if (!envelope.payload.equals(first.payload)) {
      throw new RunnerError("PAYLOAD_DIFFERS", `the lines of ${what} sign different statements`);
    }
  }
  return envelopes;
}

/** Each costs whoever verifies it some signatures and hashes. */
const proofs = v.pipe(
  v.array(v.unknown()),
  v.maxLength(releaseLimits.proofs, `at most ${releaseLimits.proofs} proofs`),
);

/** The known parts of a bundle. Log entries and timestamps beside a key, which cosign adds, count nothing. */
const bundleSchema = v.strictObject({
  mediaType: v.literal(mediaType),
  verificationMaterial: v.pipe(
    v.strictObject({
      publicKey: v.exactOptional(v.strictObject({ hint: v.exactOptional(v.string()) })),
      certificate: v.exactOptional(v.strictObject({ rawBytes: v.string() })),
      tlogEntries: v.exactOptional(proofs, []),
      timestampVerificationData: v.exactOptional(
        v.strictObject({ rfc3161Timestamps: v.exactOptional(proofs, []) }),
        {},
      ),
    }),
    v.check(
      ({ publicKey, certificate }) => (publicKey === undefined) !== (certificate === undefined),
      "either a publicKey or a certificate",
    ),
  ),
  dsseEnvelope: v.strictObject({
    payload: v.string(),
    payloadType: v.string(),
    // DSSE: a keyid must not decide anything, so it is not looked at
    signatures: v.array(v.strictObject({ sig: v.string(), keyid: v.exactOptional(v.string()) })),
  }),
});

function readEnvelope(line: Buffer, what: string): Envelope {
  const bundle = check(bundleSchema, parseStrictJson(line, what, releaseLimits.bundleBytes), what, "BUNDLE");
  const { payload, payloadType: type, signatures } = bundle.dsseEnvelope;
  if (type !== payloadType) throw new RunnerError("PAYLOAD_TYPE", `${what} signs another type of payload`);
  const [signature] = signatures;
  if (signature === undefined || signatures.length !== 1) {
    throw new RunnerError("SIG_COUNT", `${what} holds ${signatures.length} signatures instead of one`);
  }
  return {
    payload: decodeBase64(payload, `the payload of ${what}`),
    signature: decodeBase64(signature.sig, `the signature of ${what}`),
    hint: bundle.verificationMaterial.publicKey?.hint,
    keyless: readKeyless(bundle.verificationMaterial, what),
  };
}

function readKeyless(
  material: v.InferOutput<typeof bundleSchema>["verificationMaterial"],
  what: string,
): KeylessProof | undefined {
  if (material.certificate === undefined) return undefined;
  const certificate = decodeBase64(material.certificate.rawBytes, `the certificate of ${what}`);
  if (certificate.length > releaseLimits.certificateBytes) {
    throw new RunnerError(
      "TOO_LARGE",
      `the certificate of ${what} has ${certificate.length} bytes, more than ${releaseLimits.certificateBytes}`,
    );
  }
  return {
    certificate,
    tlogEntries: material.tlogEntries,
    timestamps: material.timestampVerificationData.rfc3161Timestamps,
  };
}

const newline = 0x0a;

/** Lines without their ends; the last one may lack its end, no other may be empty. */
function splitLines(bytes: Buffer, what: string): readonly Buffer[] {
  if (bytes.length > releaseLimits.releaseBytes) {
    throw new RunnerError(
      "TOO_LARGE",
      `${what} has ${bytes.length} bytes, more than ${releaseLimits.releaseBytes}`,
    );
  }
  const lines: Buffer[] = [];
  let start = 0;
  while (start < bytes.length) {
    if (lines.length === releaseLimits.bundles) {
      throw new RunnerError("TOO_LARGE", `${what} has more than ${releaseLimits.bundles} lines`);
    }
    const at = bytes.indexOf(newline, start);
    const end = at === -1 ? bytes.length : at;
    lines.push(bytes.subarray(start, end));
    start = end + 1;
  }
  return lines;
}
