import { payloadType, preAuthEncoding } from "./envelope.ts";
import type { Envelope } from "./envelope.ts";
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

/** Those that signed, each once, whatever number of lines it wrote. Lines of unknown keys count nothing (trust.md 2.5.4). */
export function signersOf(
  envelopes: readonly Envelope[],
  { keys }: KnownSigners,
): readonly (PublicKey | Identity)[] {
  const signers = new Set<PublicKey | Identity>();
  for (const { payload, signature, hint } of envelopes) {
    const message = preAuthEncoding(payloadType, payload);
    const signer = keys.find(
      (key) => (hint === undefined || hint === key.hint) && isSignedBy(message, signature, key),
    );
    if (signer !== undefined) signers.add(signer);
  }
  return [...signers];
}
