import type { Driver } from "../driver/driver.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import type { Position } from "../history/entry.ts";
import { emptyChain, formatChainEnd } from "../release/chain.ts";
import type { ChainEnd } from "../release/chain.ts";
import { askUntil, lookAt, type AskOptions } from "./ask-until.ts";
import { hasChain, isAtLeast } from "./chain.ts";

/** What a database is to have. */
export type Wanted =
  /** exactly this release, as the newest that was applied whole */
  | { readonly kind: "release"; readonly digest: string }
  /** everything up to this place, and maybe more */
  | { readonly kind: "chain"; readonly end: ChainEnd }
  /** this version, and maybe more */
  | { readonly kind: "version"; readonly min: string };

/**
 * Waits until a database has what is wanted. Reads only, and asks nothing but the database: neither a bucket nor a clock
 * of releases can keep a pod from starting that has what it needs.
 *
 * A database that cannot be reached is waited for like one that is not there yet.
 *
 * @throws RunnerError `NOT_APPLIED`, or `DATABASE_…` if that was the last word, when the time is over; `DATABASE_DENIED` at once
 */
export function awaitApplied(
  driver: Driver,
  stream: string,
  wanted: Wanted,
  options: AskOptions,
): Promise<StreamState> {
  const look = async (signal: AbortSignal): Promise<StreamState | RunnerError> => {
    const state = await driver.state(stream, signal);
    return (await isThere(driver, stream, state, wanted, signal)) ? state : notApplied(stream, state, wanted);
  };
  return askUntil((signal) => lookAt(look, signal, ({ retryable }) => retryable), options);
}

async function isThere(
  driver: Driver,
  stream: string,
  state: StreamState,
  wanted: Wanted,
  signal: AbortSignal,
): Promise<boolean> {
  switch (wanted.kind) {
    case "release":
      return state.completed === wanted.digest;
    case "chain":
      return hasChain(driver, stream, state, wanted.end, signal);
    case "version":
      return isAtLeast(state, wanted.min);
  }
}

function notApplied(stream: string, state: StreamState, wanted: Wanted): RunnerError {
  const { completed, failed, lease, position } = state;
  const at = { length: position.length, head: position.chain ?? emptyChain(stream) };
  return new RunnerError(
    "NOT_APPLIED",
    `"${stream}" has ${heightInWords(position)}, and not yet ${describeWanted(wanted)}`,
    {
      hint: whatNext(state, at, wanted),
      fields: {
        chain: formatChainEnd(at),
        completed,
        failed: failed?.digest ?? null,
        run: lease?.runId ?? null,
      },
    },
  );
}

/** What is wanted, in a few words. */
export function describeWanted(wanted: Wanted): string {
  switch (wanted.kind) {
    case "release":
      return `release ${wanted.digest}`;
    case "chain":
      return formatChainEnd(wanted.end);
    case "version":
      return `version ${wanted.min}`;
  }
}

function heightInWords({ length, version }: Position): string {
  if (version === null) return "no migrations";
  return `${length} ${length === 1 ? "migration" : "migrations"}, up to ${version}`;
}

function whatNext({ completed, failed, lease, paused }: StreamState, at: ChainEnd, wanted: Wanted): string {
  if (paused) return "the stream is paused: nothing is applied before somebody resumes it";
  if (lease !== null) return `run ${lease.runId} is changing the database now`;
  if (failed !== null && (wanted.kind !== "release" || failed.digest === wanted.digest))
    return `release ${failed.digest} failed in run ${failed.runId} (${failed.error.code}); see "lockkeeper status"`;
  if (wanted.kind === "chain" && at.length >= wanted.end.length)
    return "the database has other migrations there than expected: check which build this is, and which database";
  if (wanted.kind === "release" && completed !== null)
    return `it has release ${completed} whole; a place, --expect-chain, holds also after later releases`;
  return "nothing is on its way: apply the release";
}
