import { setTimeout as sleep } from "node:timers/promises";
import { RunnerError, type RunnerErrorCode } from "../error.ts";

/** How long and how often a store is asked: `sourceLimits` in production, short in tests. */
export type Patience = Readonly<
  Record<"attempts" | "backoffMs" | "maxBackoffMs" | "connectMs" | "idleMs", number>
>;

/** What another try may cure. A refusal, a missing bucket or a body over its ceiling stays what it is. */
const curable: ReadonlySet<RunnerErrorCode> = new Set(["SOURCE_UNAVAILABLE", "TRUNCATED", "CLOCK_SKEW"]);

/** `RunnerError.fields` key under which a store's `Retry-After` travels, milliseconds. */
export const retryAfterField = "retryAfterMs";

/**
 * The one retry policy of all sources: `request` again after a failure that another try may cure.
 *
 * @param request - one whole request, its body included; told how many tries came before
 * @throws RunnerError the last try's, with `attempts` among its fields
 * @throws unknown the signal's reason, at once, when it is aborted
 */
export async function withRetries<T>(
  patience: Patience,
  signal: AbortSignal,
  request: (triesBefore: number) => Promise<T>,
): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    signal.throwIfAborted();
    try {
      return await unlessAborted(request(tries - 1), signal);
    } catch (error) {
      // An aborted request fails in many ways (reset, premature end): the reason is what the caller asked for.
      signal.throwIfAborted();
      if (!(error instanceof RunnerError) || !curable.has(error.code)) throw error;
      const delay = delayMs(tries, patience, retryAfter(error), Math.random());
      if (tries >= patience.attempts || delay === undefined) throw tried(error, tries);
      await sleep(delay, undefined, { signal }).catch(() => signal.throwIfAborted());
    }
  }
}

/**
 * Milliseconds to wait after the given failed try: exponential with full jitter, or what the store asked for.
 *
 * `undefined` when the store asks for more than `idleMs`: then failing now tells the caller more than waiting would.
 *
 * @param random - from 0 up to 1
 */
export function delayMs(
  tries: number,
  patience: Patience,
  retryAfterMs: number | undefined,
  random: number,
): number | undefined {
  const backoff = random * Math.min(patience.maxBackoffMs, patience.backoffMs * 2 ** (tries - 1));
  if (retryAfterMs === undefined) return backoff;
  // Some jitter on top: everybody who was turned away reads the same number.
  return retryAfterMs > patience.idleMs ? undefined : retryAfterMs + backoff;
}

/** A `Retry-After` header (seconds or a date, RFC 9110 10.2.3) in milliseconds from `now`; `undefined` when there is none. */
export function retryAfterMs(header: string | undefined, now: Date): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1_000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now.getTime());
}

/** Rejects as soon as the signal is aborted, even where `promise` does not listen to it (credential lookups). */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  return Promise.race([promise, aborted]).finally(() => signal.removeEventListener("abort", onAbort));
}

function retryAfter(error: RunnerError): number | undefined {
  const value = error.fields[retryAfterField];
  return typeof value === "number" ? value : undefined;
}

function tried(error: RunnerError, tries: number): RunnerError {
  return new RunnerError(error.code, tries === 1 ? error.message : `${error.message}, tried ${tries} times`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    fields: { ...error.fields, attempts: tries },
    cause: error.cause,
  });
}
