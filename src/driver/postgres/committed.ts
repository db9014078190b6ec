import { RunnerError } from "../../error.ts";
import type { SessionSettings } from "../session.ts";
import { toEntryError } from "./body-failure.ts";
import type { StatementResult } from "./connection.ts";
import { isConnectionLoss } from "./failure.ts";
import { addEntries, entryOfStep, readEntry, selectHistory, type NewEntry } from "./history.ts";
import type { Surroundings } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/**
 * After a message failed: ends what is left of its transaction, or, when the connection was lost, takes a new token,
 * which waits for the old transaction. Only then does the history say what committed (`protocol.md` 7, 8).
 */
export async function settle(bench: Workbench, cause: unknown): Promise<void> {
  if (isConnectionLoss(cause) || bench.isLost()) {
    await bench.reconnect(cause);
    return;
  }
  await bench.rollBack();
  await bench.assertMayGoOn(cause);
}

/** Durations of the bodies of this run that the history has beyond those already counted, in order. */
export async function committedMeanwhile(bench: Workbench): Promise<readonly number[]> {
  const { stream, runId } = bench.key();
  const [result] = await bench.send(selectHistory(bench.t, stream, { afterId: bench.lastEntryId, runId }));
  const entries = (result?.rows ?? []).map((row) => readEntry(row));
  bench.lastEntryId = entries.at(-1)?.id ?? bench.lastEntryId;
  return entries
    .filter(({ status, origin }) => status === "done" && origin !== "covered")
    .map((entry) => entry.durationMs);
}

/** Adds the entry of a body that did not commit, and why. */
export async function recordFailure(
  bench: Workbench,
  step: Parameters<typeof entryOfStep>[0],
  settings: SessionSettings,
  failure: RunnerError,
): Promise<void> {
  const error = toEntryError(failure);
  const progress = {
    status: "failed",
    statementsDone: 0,
    statements: 1,
    statementChecksums: [],
    error,
  } as const;
  const entry = entryOfStep(step, bench.key(), settings.appliedBy, progress);
  await addToHistory(bench, [entry]);
}

/** What a message of `expected` bodies says of their entries; the last of them counts from now on. */
export function readDurations(
  bench: Workbench,
  results: readonly StatementResult[],
  expected: number,
): readonly number[] {
  const entries = results.flatMap((result) => result.rows).filter((row) => "lockkeeper_ms" in row);
  if (entries.length !== expected) {
    throw new RunnerError(
      "INTERNAL",
      `a message of ${expected} migrations gave ${entries.length} history entries`,
    );
  }
  bench.lastEntryId = Number(entries.at(-1)?.["lockkeeper_entry"]);
  return entries.map((row) => Number(row["lockkeeper_ms"]));
}

/** What a transaction's settings depend on, as it is now. */
export function surroundings(bench: Workbench, settings: SessionSettings): Surroundings {
  return {
    t: bench.t,
    key: bench.key(),
    settings,
    leaseMs: bench.times.leaseMs,
    isPooled: bench.isPooled,
    facts: bench.facts,
    inStep: bench.inStep,
  };
}

/** Adds entries, and does what else goes with them; `also` may be sent twice, as the entries may. */
export async function addToHistory(
  bench: Workbench,
  entries: readonly NewEntry[],
  also: readonly string[] = [],
): Promise<void> {
  const statements = [addEntries(bench.t, bench.knownEntries(), entries), ...also].join("; ");
  const results = await bench.writeThrough(statements);
  const added = results.flatMap(({ rows }) => rows).findLast((row) => "lockkeeper_entry" in row);
  if (added !== undefined) bench.lastEntryId = Number(added["lockkeeper_entry"]);
}
