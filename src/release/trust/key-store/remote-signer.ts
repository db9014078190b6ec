import { RunnerError } from "../../../error.ts";
import { isSignedBy } from "../key.ts";
import type { PublicKey, Signer } from "../key.ts";

/** Longest wait of one request to a key store, milliseconds. */
export const keyStorePatience = { connectMs: 5_000, idleMs: 15_000, attempts: 3 } as const;

/**
 * A signer whose every signature is checked before anybody sees it: what a store answers is no proof,
 * and a signature that does not count would only be found by the runners.
 *
 * @param what - names the key in errors
 */
export function checkedSigner(
  key: PublicKey,
  what: string,
  sign: (message: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>,
): Signer {
  return {
    public: key,
    async sign(message, signal) {
      const signature = Buffer.from(await sign(message, signal));
      if (isSignedBy(message, signature, key)) return signature;
      throw new RunnerError("KEY_STORE", `${what} answered with a signature that is not its own`, {
        hint: "check that no alias was moved to another key meanwhile, and which server answers; nothing was written",
        fields: { keyId: key.id },
      });
    },
  };
}

/** `promise`, or the signal's reason as soon as it is aborted: SDKs look for credentials without listening to one. */
export async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", onAbort));
}
