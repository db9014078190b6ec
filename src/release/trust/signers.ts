import { payloadType, preAuthEncoding } from "../envelope.ts";
import type { Envelope } from "../envelope.ts";
import type { Identity, KeylessVerifier } from "./identity.ts";
import { isSignedBy } from "./key.ts";
import type { PublicKey } from "./key.ts";

/** Whose signatures are looked for. A threshold counts keys and identities together. */
export interface KnownSigners {
  readonly keys: readonly PublicKey[];
  readonly identities: readonly Identity[];
  /** judges the lines of identities; null where none is trusted */
  readonly keyless: KeylessVerifier | null;
}

/** These keys, and no identities. */
export function onlyKeys(keys: readonly PublicKey[]): KnownSigners {
  return { keys, identities: [], keyless: null };
}

/**
 * Those that signed, each once, whatever number of lines it wrote and of certificates it was given. Lines of unknown keys
 * and identities count nothing (trust.md 2.5.4).
 */
export function signersOf(
  envelopes: readonly Envelope[],
  known: KnownSigners,
): readonly (PublicKey | Identity)[] {
  const signers = envelopes.map((envelope) =>
    envelope.keyless === undefined
      ? keyOf(envelope, known.keys)
      : known.keyless?.signerOf(envelope, known.identities),
  );
  return [...new Set(signers)].filter((signer) => signer !== undefined);
}

/** Why the first line that a certificate signed counts nothing, as part of a sentence; undefined where there is none. */
export function whyNoIdentity(
  envelopes: readonly Envelope[],
  { identities, keyless }: KnownSigners,
): string | undefined {
  const certified = envelopes.filter((envelope) => envelope.keyless !== undefined);
  if (certified.length === 0) return undefined;
  if (keyless === null) return "no identity is trusted";
  return certified.map((envelope) => keyless.whyNot(envelope, identities)).find((why) => why !== undefined);
}

function keyOf({ payload, signature, hint }: Envelope, keys: readonly PublicKey[]): PublicKey | undefined {
  const message = preAuthEncoding(payloadType, payload);
  return keys.find((key) => (hint === undefined || hint === key.hint) && isSignedBy(message, signature, key));
}
