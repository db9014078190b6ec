import { setTimeout as sleep } from "node:timers/promises";
import type { HistoryEntry } from "../history/entry.ts";
import { isEnded, type RunRecord } from "../history/run.ts";
import type { Target } from "../runner.ts";
import type { ActiveRuns } from "../dispatch/active-runs.ts";
import { unknownRun } from "./auth/access.ts";
import type { HttpLimits } from "./limits.ts";
import { within } from "../dispatch/patience.ts";

/** Milliseconds that one look at the database may take. */
const readMs = 10_000;

/** Where a watcher looks. The database is what all processes share, so a run is watched in the same way wherever it goes on. */
export interface WatchOptions {
  readonly active: ActiveRuns;
  readonly limits: Pick<HttpLimits, "pollMs" | "localPollMs">;
  /** ends the watch: the caller left, the server stops, or time is up */
  readonly signal: AbortSignal;
}

/** What a watcher is told. */
export type Update =
  | { readonly kind: "run"; readonly run: RunRecord }
  /** `resumeId`: everything up to this entry was told; null while it, or an earlier one, is still under way */
  | { readonly kind: "entry"; readonly entry: HistoryEntry; readonly resumeId: number | null }
  | { readonly kind: "done"; readonly run: RunRecord };

/**
 * The run's record once it has ended, or as it is after `waitMs`.
 *
 * @throws RunnerError `UNKNOWN_RUN`, `DATABASE_…`
 */
export async function waitForEnd(
  target: Target,
  runId: string,
  waitMs: number,
  options: WatchOptions,
): Promise<RunRecord> {
  const { active, limits, signal } = options;
  const deadline = performance.now() + waitMs;
  for (;;) {
    // A run of this process says itself when it has ended; looking before would only cost a query.
    if (active.has(runId)) await orAfter(active.ended(runId), deadline - performance.now(), signal);
    const run = await within(readMs, (reading) => target.driver.run(runId, reading));
    if (run === undefined) throw unknownRun(runId);
    const leftMs = deadline - performance.now();
    if (isEnded(run.status) || leftMs <= 0 || signal.aborted) return run;
    await pause(Math.min(limits.pollMs, leftMs), signal);
  }
}

/**
 * All that happens in a run from the history entry after `afterId` on, until it has ended or the signal aborts.
 * Looked up once a second, and soon after each event of a run that this process executes.
 *
 * @throws RunnerError `UNKNOWN_RUN`, `DATABASE_…`
 */
export async function* watchRun(
  target: Target,
  runId: string,
  afterId: number,
  options: WatchOptions,
): AsyncGenerator<Update, void> {
  const { active, limits, signal } = options;
  let cursor = afterId;
  /** what was told of the entries behind the cursor */
  const told = new Map<number, string>();
  let toldRun = "";
  // Once at least: a watcher always hears where the run stands.
  do {
    const change = active.changed(runId);
    // The run before its entries: once it has ended, nothing is added to them any more.
    const run = await within(readMs, (reading) => target.driver.run(runId, reading));
    if (run === undefined) throw unknownRun(runId);
    const entries = await within(readMs, (reading) =>
      target.driver.history(target.stream, { runId, afterId: cursor }, reading),
    );

    const now = JSON.stringify([run.status, run.cancelRequested, run.releaseDigest]);
    if (now !== toldRun) yield { kind: "run", run };
    toldRun = now;

    // Entries are updated in place while their statements run: the cursor stays before the first that is.
    let isSettled = true;
    for (const entry of entries) {
      isSettled &&= entry.status !== "started" || isEnded(run.status);
      const rows = entry.checkpoint?.kind === "backfill" ? entry.checkpoint.rows : 0;
      const state = `${entry.status} ${entry.statementsDone} ${rows}`;
      if (told.get(entry.id) !== state) yield { kind: "entry", entry, resumeId: isSettled ? entry.id : null };
      told.set(entry.id, state);
      if (isSettled) cursor = entry.id;
    }
    for (const id of told.keys()) if (id <= cursor) told.delete(id);

    if (isEnded(run.status)) {
      yield { kind: "done", run };
      return;
    }
    await (change === undefined ? pause(limits.pollMs, signal) : soonAfter(change, limits, signal));
  } while (!signal.aborted);
}

async function soonAfter(
  change: Promise<void>,
  limits: WatchOptions["limits"],
  signal: AbortSignal,
): Promise<void> {
  await pause(limits.localPollMs, signal);
  await orAfter(change, limits.pollMs, signal);
}

async function orAfter(promise: Promise<void>, ms: number, signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  try {
    await Promise.race([promise, pause(ms, AbortSignal.any([signal, done.signal]))]);
  } finally {
    done.abort();
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(Math.max(0, ms), undefined, { signal }).catch(() => undefined);
}
