import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../error.ts";

/** How long to ask, and who hears of it. */
export interface AskOptions {
  /** milliseconds; 0 asks once */
  readonly timeoutMs: number;
  /** milliseconds between two looks, about: many may have begun at once */
  readonly pollMs: number;
  readonly signal: AbortSignal;
  /** told at the first look, whenever it is another reason, and now and then while it is the same */
  onWaiting(why: RunnerError): void;
}

/** milliseconds after which the same reason is told again, so that a log shows somebody who waits */
const repeatMs = 30_000;

/**
 * Asks until there is an answer.
 *
 * @param look - gives the answer, or why it is worth asking again; throws what no waiting mends
 * @throws RunnerError whatever code the last reason has, such as `DATABASE_UNAVAILABLE`, when the time is over
 */
export async function askUntil<T>(
  look: (signal: AbortSignal) => Promise<T | RunnerError>,
  { timeoutMs, pollMs, signal, onWaiting }: AskOptions,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let told = { message: "", at: 0 };
  for (;;) {
    const found = await look(signal);
    if (!(found instanceof RunnerError)) return found;
    const now = performance.now();
    if (now >= deadline) throw found;
    if (found.message !== told.message || now - told.at >= repeatMs) {
      onWaiting(found);
      told = { message: found.message, at: now };
    }
    const pauseMs = Math.min(pollMs * (0.75 + Math.random() / 2), deadline - now);
    await sleep(pauseMs, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** milliseconds after which a look at a database is given up, and another connection tried */
const mostLookMs = 20_000;
/** milliseconds that a look has also where the time is over: a server that is well needs far less */
const leastLookMs = 1_000;

/**
 * One look at a database, as {@link askUntil} takes it: what passes by itself is a reason to ask again.
 *
 * @param isPassing - which errors are
 * @param msLeft - for everything; a look that hangs ends with it
 */
export async function lookAt<T>(
  look: (signal: AbortSignal) => Promise<T | RunnerError>,
  signal: AbortSignal,
  isPassing: (error: RunnerError) => boolean,
  msLeft = Infinity,
): Promise<T | RunnerError> {
  const lookMs = Math.ceil(Math.max(leastLookMs, Math.min(mostLookMs, msLeft)));
  const patience = AbortSignal.timeout(lookMs);
  try {
    return await look(AbortSignal.any([signal, patience]));
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RunnerError && isPassing(error)) return error;
    if (!patience.aborted) throw error;
    return new RunnerError(
      "DATABASE_UNAVAILABLE",
      `the database does not answer within ${Math.round(lookMs / 1000)} s`,
      {
        cause: error,
      },
    );
  }
}
