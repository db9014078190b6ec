import { X509Certificate } from "node:crypto";

import type { toTrustMaterial } from "@sigstore/verify";
import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import { decodeBase64 } from "../base64.ts";
import { check } from "../schema.ts";

/** A Sigstore instance's authorities, as the library takes them. */
export type TrustedRoot = Parameters<typeof toTrustMaterial>[0];

/**
 * The parsed text of a `trusted_root.json` → the authorities in it.
 *
 * The shape is closed: a misspelt list would read as an empty one, and less would be demanded of a signature.
 *
 * @param what - names the root in messages
 * @throws RunnerError `TRUST_INVALID` — another shape, an authority without a beginning of its validity, a certificate
 *   that cannot be read, no certificate authority, or nobody who could sign the time
 */
export function readTrustedRoot(value: unknown, what: string): TrustedRoot {
  const root = check(rootSchema, value, what, "TRUST_INVALID");
  try {
    const authorities = {
      mediaType: root.mediaType,
      tlogs: (root.tlogs ?? []).map(readLog),
      certificateAuthorities: root.certificateAuthorities.map(readAuthority),
      ctlogs: (root.ctlogs ?? []).map(readLog),
      timestampAuthorities: (root.timestampAuthorities ?? []).map(readAuthority),
    };
    if (authorities.tlogs.length + authorities.timestampAuthorities.length > 0) return authorities;
  } catch (error) {
    throw new RunnerError("TRUST_INVALID", `${what} holds a key or certificate that cannot be read`, {
      hint: trustedRootHint,
      cause: error,
    });
  }
  throw new RunnerError("TRUST_INVALID", `${what} names no transparency log and no timestamp authority`, {
    hint: "a short-lived certificate proves nothing unless somebody signs the time of the signature",
  });
}

/**
 * How many of each proof a signature must bring, as the library's options: one of whatever the instance has, and always
 * a signed time within the certificate's validity, by a log or by an authority.
 */
export function demandsOf({ tlogs, ctlogs }: TrustedRoot) {
  return {
    tlogThreshold: Math.min(tlogs.length, 1),
    ctlogThreshold: Math.min(ctlogs.length, 1),
    timestampThreshold: 1,
  };
}

/** What to do about a trusted root that cannot be used. */
export const trustedRootHint =
  "take it anew: one line of gh attestation trusted-root, or cosign trusted-root create";

/** protobuf-specs' `PublicKeyDetails`, those that logs have; the library only tells RSA from the others. */
const keyDetails = {
  PKCS1_RSA_PKCS1V5: 1,
  PKIX_RSA_PKCS1V5: 3,
  PKIX_ECDSA_P256_SHA_256: 5,
  PKIX_ED25519: 7,
  PKIX_RSA_PKCS1V15_2048_SHA256: 9,
  PKIX_RSA_PKCS1V15_3072_SHA256: 10,
  PKIX_RSA_PKCS1V15_4096_SHA256: 11,
  PKIX_ECDSA_P384_SHA_384: 12,
  PKIX_ECDSA_P521_SHA_512: 13,
} as const;

type Log = TrustedRoot["tlogs"][number];

/** protobuf-specs' `HashAlgorithm`. */
const sha256 = 1;

const text = v.pipe(v.string(), v.maxLength(2_048, "at most 2048 characters"));

const time = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?Z$/, "a time like 2026-11-20T10:00:00Z"),
  v.check((value) => !Number.isNaN(Date.parse(value)), "a time that exists"),
);

/** The library takes an absent beginning for the beginning of time, so a root without one says more than its author meant. */
const validFor = v.strictObject({ start: time, end: v.nullish(time) });

const keyId = v.strictObject({ keyId: v.string() });

const logSchema = v.strictObject({
  baseUrl: text,
  hashAlgorithm: v.literal("SHA2_256"),
  publicKey: v.strictObject({
    rawBytes: v.string(),
    keyDetails: v.picklist(
      Object.keys(keyDetails).filter((name): name is keyof typeof keyDetails => name in keyDetails),
    ),
    validFor,
  }),
  logId: keyId,
  checkpointKeyId: v.nullish(keyId),
  operator: v.nullish(text),
});

const authoritySchema = v.strictObject({
  subject: v.nullish(v.strictObject({ organization: v.nullish(text), commonName: v.nullish(text) })),
  uri: v.nullish(text),
  certChain: v.strictObject({
    certificates: v.pipe(
      v.array(v.strictObject({ rawBytes: v.string() })),
      v.minLength(1, "at least one certificate"),
    ),
  }),
  validFor,
  operator: v.nullish(text),
});

const rootSchema = v.strictObject({
  mediaType: v.picklist([
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
  ]),
  tlogs: v.exactOptional(v.array(logSchema)),
  certificateAuthorities: v.pipe(
    v.array(authoritySchema),
    v.minLength(1, "at least one certificate authority"),
  ),
  ctlogs: v.exactOptional(v.array(logSchema)),
  timestampAuthorities: v.exactOptional(v.array(authoritySchema)),
});

function readLog({ publicKey, ...log }: v.InferOutput<typeof logSchema>): Log {
  // The two numbers are of enums in a package that is the library's own, so their types cannot be named here.
  return {
    baseUrl: log.baseUrl,
    // oxlint-disable-next-line typescript/no-unsafe-enum-assignment
    hashAlgorithm: sha256,
    publicKey: {
      rawBytes: decodeBase64(publicKey.rawBytes, "the key of a log"),
      // oxlint-disable-next-line typescript/no-unsafe-enum-assignment
      keyDetails: keyDetails[publicKey.keyDetails],
      validFor: readTimes(publicKey.validFor),
    },
    logId: { keyId: decodeBase64(log.logId.keyId, "the id of a log") },
    checkpointKeyId: log.checkpointKeyId
      ? { keyId: decodeBase64(log.checkpointKeyId.keyId, "the checkpoint id of a log") }
      : undefined,
    operator: log.operator ?? "",
  };
}

function readAuthority({ certChain, ...authority }: v.InferOutput<typeof authoritySchema>) {
  return {
    subject: undefined,
    uri: authority.uri ?? "",
    certChain: {
      certificates: certChain.certificates.map(({ rawBytes }) => ({ rawBytes: readCertificate(rawBytes) })),
    },
    validFor: readTimes(authority.validFor),
    operator: authority.operator ?? "",
  };
}

/** Its bytes, once OpenSSL has read it too: the library would notice rubbish in it only when it is needed. */
function readCertificate(base64: string): Buffer {
  const bytes = decodeBase64(base64, "a certificate");
  return new X509Certificate(bytes).raw;
}

function readTimes({ start, end }: v.InferOutput<typeof validFor>) {
  return { start: new Date(start), end: end ? new Date(end) : undefined };
}
