import { RunnerError } from "../error.ts";
import type { KeylessVerifier } from "./identity.ts";

/**
 * A verifier for the Sigstore instances that a trust pins.
 *
 * @param trustedRoots - by the name that identities call their trust domain: the parsed text of its `trusted_root.json`
 * @throws RunnerError `TRUST_INVALID` — a trusted root is malformed, or has a log without a beginning of its validity
 */
export async function loadKeyless(trustedRoots: ReadonlyMap<string, unknown>): Promise<KeylessVerifier> {
  await Promise.resolve(trustedRoots);
  throw new RunnerError("INTERNAL", "not there yet");
}
