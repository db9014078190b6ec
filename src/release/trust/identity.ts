import * as v from "valibot";

import type { Envelope } from "../envelope.ts";
import { nameText } from "../schema.ts";

/**
 * Somebody who signs without a key of their own: a workload, named by the certificate that Sigstore gave it for one
 * signature. All of it is compared exactly; nothing is a pattern.
 */
export interface Identity {
  /** `oidc:<name>`; never equal to a key's id */
  readonly id: string;
  /** name of the Sigstore instance, whose trusted root the trust pins */
  readonly trustDomain: string;
  /** URL of the OIDC issuer, as Fulcio wrote it into the certificate */
  readonly issuer: string;
  /** the certificate's only subject alternative name */
  readonly san: string;
  /** further extensions of the certificate, by dotted OID: their values as text */
  readonly oids: ReadonlyMap<string, string>;
}

/** Judges lines that are signed by a certificate. Made only where an identity is trusted: it loads Sigstore's library. */
export interface KeylessVerifier {
  /**
   * Which of `identities` signed the envelope, proven by certificate, log and timestamps; undefined: none of them, whatever
   * the reason. Never throws.
   */
  signerOf(envelope: Envelope, identities: readonly Identity[]): Identity | undefined;

  /** Why that is none of them, as part of a sentence for people; may quote the certificate, in printable ASCII. */
  whyNot(envelope: Envelope, identities: readonly Identity[]): string | undefined;
}

/** What is compared is text of a certificate: printable ASCII, which names and URLs of certificates are by their format. */
const certificateText = v.pipe(
  v.string(),
  v.regex(/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/, "printable ASCII text"),
  v.maxLength(2_048, "at most 2048 characters"),
);

/** The id of an identity in a trust: so that it can never be mistaken for a key's, `sha256:…`. */
export const identityId = v.pipe(
  v.string(),
  v.regex(/^oidc:[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/, "oidc: and a name of letters, digits, '.', '_' and '-'"),
);

/** Fulcio's extensions that name who signed, from where and how; those of its certificates that are not text are left out. */
const fulcioOid = v.pipe(
  v.string(),
  v.regex(
    /^1\.3\.6\.1\.4\.1\.57264\.1\.(?:[1-6]|[89]|[1-9][0-9]{1,2})$/,
    "an extension of Fulcio's, 1.3.6.1.4.1.57264.1.<number>",
  ),
);

/** An identity as a trust file and a root document write it, under its {@link identityId}. */
export const identitySchema = v.strictObject({
  type: v.literal("sigstore"),
  trustDomain: nameText,
  issuer: certificateText,
  san: v.pipe(certificateText, v.regex(/[:@]/, "a URI or an e-mail address")),
  oids: v.exactOptional(v.record(fulcioOid, certificateText)),
});

/** An identity as it is written: {@link identitySchema}. */
export type IdentityText = v.InferOutput<typeof identitySchema>;

/** The identity that `text` describes. */
export function makeIdentity(id: string, { trustDomain, issuer, san, oids = {} }: IdentityText): Identity {
  return { id, trustDomain, issuer, san, oids: new Map(Object.entries(oids)) };
}

/**
 * Whether two identities are one workload: whoever can sign as the one could perhaps sign as the other, by another claim or
 * with a certificate of another Sigstore instance, so a threshold may not name both.
 */
export function isSameWorkload(one: Identity, other: Identity): boolean {
  return one.issuer === other.issuer && one.san === other.san;
}
