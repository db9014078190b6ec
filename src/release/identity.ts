import type { Envelope } from "./envelope.ts";

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
}
