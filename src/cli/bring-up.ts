import { setTimeout as sleep } from "node:timers/promises";

import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import type { RunResult } from "../executor/result.ts";
import type { Look } from "../run/request.ts";
import type { Limits, Target } from "../runner.ts";
import { awaitReady, isPassing } from "../status/await-ready.ts";
import { hasChain } from "../status/chain.ts";
import { endOfRelease } from "../status/release-end.ts";
import type { Output } from "./output.ts";

/** What is wanted of a target when a container starts, and how long that may take. */
export interface BringUp {
  /** digest; undefined for the newest */
  readonly release: string | undefined;
  /** milliseconds that a database or a bucket may be away */
  readonly patienceMs: number;
  /** milliseconds between two looks at what is away; default 1 s */
  readonly pollMs?: number;
  readonly signal: AbortSignal;
  readonly output: Pick<Output, "waiting" | "note">;
  /**
   * One run, under these limits; or what of it the database has already, and more, in words.
   *
   * @param looked - what database and bucket have just said
   */
  run(limits: Limits, looked: Look): Promise<RunResult | string>;
}

/** How it ended: by a run, or because the database had it all. */
export type BroughtUp =
  | { readonly kind: "run"; readonly result: RunResult }
  /** what was asked for, in words, and more */
  | { readonly kind: "ahead"; readonly state: StreamState; readonly what: string };

const usualPollMs = 1_000;
/** Runs of one call: a migration under which the server falls over would do so again and again. */
const maxRuns = 3;
/** Milliseconds between two tries at a server that takes no writes yet: in a failover that may last, and nothing can have run. */
const readOnlyPauseMs = 3_000;

/**
 * Brings a target up as a container needs it that starts whenever its platform likes: waits for the database, leaves one
 * alone that has what is asked for, also beside newer things, and runs again where a connection was lost on the way.
 *
 * @throws RunnerError `DATABASE_…`, `SOURCE_…` as {@link awaitReady}; `DEADLINE`
 */
export async function bringUp(target: Target, wish: BringUp): Promise<BroughtUp> {
  const { release, patienceMs, pollMs = usualPollMs, signal, output } = wish;
  const began = performance.now();
  const { deadlineMs } = target.limits;
  const msLeft = (): number =>
    deadlineMs === 0 ? Infinity : Math.max(0, deadlineMs - (performance.now() - began));
  let runs = 0;
  let readOnlyBy: number | undefined;
  const mayRetry = (error: RunnerError): boolean => {
    if (!isPassing(error) || signal.aborted) return false;
    const now = performance.now();
    if (isReadOnly(error)) return now < (readOnlyBy ??= now + patienceMs);
    readOnlyBy = undefined;
    runs += 1;
    return runs < maxRuns;
  };
  for (let isFirst = true; ; isFirst = false) {
    const { state, newest } = await awaitReady(target, release, {
      timeoutMs: Math.min(patienceMs, msLeft()),
      deadlineMs: msLeft(),
      pollMs,
      signal,
      onWaiting: (why) => output.waiting(why),
    });
    if (newest !== undefined && release === undefined && isFirst)
      output.note(`release ${newest} is the newest of ${target.releases.url}`);
    const left = msLeft();
    if (left === 0) throw late(deadlineMs);
    const limits = { ...target.limits, deadlineMs: left === Infinity ? 0 : left };
    const looked = { state, head: release ?? newest };
    const end = await tryOnce(target, looked, wish, limits, mayRetry);
    if (!(end instanceof RunnerError)) return end;
    output.waiting(end);
    if (isReadOnly(end)) await sleep(Math.min(readOnlyPauseMs, msLeft()), undefined, { signal });
  }
}

function isReadOnly({ code }: RunnerError): boolean {
  return code === "DATABASE_READ_ONLY";
}

/** The end, or why it is worth another try. */
async function tryOnce(
  target: Target,
  looked: Look,
  { release, signal, run }: BringUp,
  limits: Limits,
  mayRetry: (error: RunnerError) => boolean,
): Promise<BroughtUp | RunnerError> {
  const { state } = looked;
  try {
    if (release !== undefined && (await isAhead(target, state, release, signal)))
      return { kind: "ahead", state, what: `release ${release}` };
    const result = await run(limits, looked);
    if (typeof result === "string") return { kind: "ahead", state, what: result };
    const { error } = result;
    if (isFolderBehind(error)) return { kind: "ahead", state, what: "all of the folder" };
    return error !== null && mayRetry(error) ? error : { kind: "run", result };
  } catch (error) {
    if (error instanceof RunnerError && mayRetry(error)) return error;
    throw error;
  }
}

/**
 * Whether a database that went on to newer releases has all of an older one, as a pod of the former version needs it. A
 * run would refuse that one, because nothing goes back by itself.
 */
async function isAhead(
  target: Target,
  state: StreamState,
  release: string,
  signal: AbortSignal,
): Promise<boolean> {
  const mark = state.highWaterMark;
  if (mark === null || mark.digest === release || state.completed === release) return false;
  const end = await endOfRelease(target, state, release, new Date(), signal);
  return end !== undefined && hasChain(target.driver, target.stream, state, end, signal);
}

/**
 * Whether a folder of plain files was applied to its last file, and newer ones after it: then it lies in the image of an
 * older version, whose pods may start again at any time, or for which somebody has gone back.
 */
function isFolderBehind(error: RunnerError | null): boolean {
  return error?.code === "DATABASE_AHEAD" && error.fields["pending"] === 0;
}

function late(deadlineMs: number): RunnerError {
  return new RunnerError("DEADLINE", `the deadline of ${Math.round(deadlineMs / 1_000)} s has passed`, {
    hint: "the next start goes on; or give it more time (--deadline)",
  });
}
