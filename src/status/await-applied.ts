import { setTimeout as sleep } from "node:timers/promises";

import type { Driver } from "../driver/driver.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import type { Position } from "../history/entry.ts";
import { emptyChain, formatChainEnd } from "../release/chain.ts";
import type { ChainEnd } from "../release/chain.ts";
import { hasChain } from "./chain.ts";

/** What a database is to have. */
export type Wanted =
  /** exactly this release, as the newest that was applied whole */
  | { readonly kind: "release"; readonly digest: string }
  /** everything up to this place, and maybe more */
  | { readonly kind: "chain"; readonly end: ChainEnd };

/** How long to wait, and who hears of it. */
export interface AwaitOptions {
  /** milliseconds; 0 asks once */
  readonly timeoutMs: number;
  /** milliseconds between two looks */
  readonly pollMs: number;
  readonly signal: AbortSignal;
  /** told at the first look, and whenever it is another reason */
  onWaiting(why: RunnerError): void;
}

/** milliseconds after which a look is given up, and another connection tried */
const lookMs = 20_000;

/**
 * Waits until a database has what is wanted. Reads only, and asks nothing but the database: neither a bucket nor a clock
 * of releases can keep a pod from starting that has what it needs.
 *
 * A database that cannot be reached is waited for like one that is not there yet.
 *
 * @throws RunnerError `NOT_APPLIED`, or `DATABASE_…` if that was the last word, when the time is over; `DATABASE_DENIED` at once
 */
export async function awaitApplied(
  driver: Driver,
  stream: string,
  wanted: Wanted,
  { timeoutMs, pollMs, signal, onWaiting }: AwaitOptions,
): Promise<StreamState> {
  const deadline = performance.now() + timeoutMs;
  let told = "";
  for (;;) {
    const found = await look(driver, stream, wanted, signal);
    if (!(found instanceof RunnerError)) return found;
    const leftMs = deadline - performance.now();
    if (leftMs <= 0) throw found;
    if (found.message !== told) onWaiting(found);
    told = found.message;
    await sleep(Math.min(pollMs, leftMs), undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** The state that has it, or why it is to be asked again. */
async function look(
  driver: Driver,
  stream: string,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<StreamState | RunnerError> {
  const patience = AbortSignal.timeout(lookMs);
  const either = AbortSignal.any([signal, patience]);
  try {
    const state = await driver.state(stream, either);
    const isThere =
      wanted.kind === "release"
        ? state.completed === wanted.digest
        : await hasChain(driver, stream, state, wanted.end, either);
    return isThere ? state : notApplied(stream, state, wanted);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof RunnerError && error.retryable) return error;
    if (!patience.aborted) throw error;
    return new RunnerError("DATABASE_UNAVAILABLE", `the database does not answer within ${lookMs / 1000} s`, {
      cause: error,
    });
  }
}

function notApplied(stream: string, state: StreamState, wanted: Wanted): RunnerError {
  const { completed, failed, lease, position } = state;
  const at = { length: position.length, head: position.chain ?? emptyChain(stream) };
  const goal = wanted.kind === "release" ? `release ${wanted.digest}` : formatChainEnd(wanted.end);
  return new RunnerError("NOT_APPLIED", `"${stream}" has ${heightInWords(position)}, and not yet ${goal}`, {
    hint: whatNext(state, at, wanted),
    fields: {
      chain: formatChainEnd(at),
      completed,
      failed: failed?.digest ?? null,
      run: lease?.runId ?? null,
    },
  });
}

function heightInWords({ length, version }: Position): string {
  if (version === null) return "no migrations";
  return `${length} ${length === 1 ? "migration" : "migrations"}, up to ${version}`;
}

function whatNext({ completed, failed, lease, paused }: StreamState, at: ChainEnd, wanted: Wanted): string {
  if (paused) return "the stream is paused: nothing is applied before somebody resumes it";
  if (lease !== null) return `run ${lease.runId} is changing the database now`;
  if (failed !== null && (wanted.kind === "chain" || failed.digest === wanted.digest))
    return `release ${failed.digest} failed in run ${failed.runId} (${failed.error.code}); see "lockkeeper status"`;
  if (wanted.kind === "chain" && at.length >= wanted.end.length)
    return "the database has other migrations there than expected: check which build this is, and which database";
  if (wanted.kind === "release" && completed !== null)
    return `it has release ${completed} whole; a place, --expect-chain, holds also after later releases`;
  return "nothing is on its way: apply the release";
}
