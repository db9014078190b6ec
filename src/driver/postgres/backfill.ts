import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import type { Backfill } from "../../migration/backfill.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { BackfillRanges, type BackfillTask } from "./backfill-ranges.ts";
import type { StatementResult } from "./connection.ts";
import { startEntry, textOf } from "./statement-task.ts";
import type { Workbench } from "./workbench.ts";

/** milliseconds between two questions to the throttle's query: at least, and at most while the database stays busy */
const throttleMs = { least: 1_000, most: 10_000 };
/** ranges that were not full, one after the other, after which the rest is left: rows are added as fast as they are reached */
const shortRanges = 10;

/**
 * Runs a body's one statement for one range of keys after the other. Each range is a fenced transaction that moves the
 * entry's cursor with it, so whatever dies, the next run goes on behind the last range that is done. Between two ranges
 * nothing is open, no transaction, no snapshot, no lock: so there is no fence beside it either, and any pooler will do.
 *
 * @throws RunnerError `BACKFILL`, `MIGRATION_FAILED`, `LOCK_TIMEOUT` with the entry recorded, its cursor kept
 */
export async function runBackfill(
  bench: Workbench,
  step: StatementStep,
  settings: SessionSettings,
  onProgress: (progress: StatementProgress) => void,
): Promise<{ readonly durationMs: number }> {
  const startedAt = performance.now();
  const { backfill } = step;
  if (backfill === undefined)
    throw new RunnerError(
      "BACKFILL",
      `the release lists "${step.path}" as a backfill, and its file has no such header`,
      {
        hint: "publish it anew",
        fields: { migration: step.path, version: step.migration.version },
      },
    );
  const write = (statements: string): Promise<readonly StatementResult[]> => bench.writeThrough(statements);
  const entry = await startEntry(bench, { write }, step, settings);
  const [statement] = step.statements;
  if (statement !== undefined && step.resumeAt === 0) {
    const sql = textOf(step, statement);
    const entryId = bench.lastEntryId;
    const ranges = new BackfillRanges({
      bench,
      step,
      backfill,
      settings,
      statement,
      sql,
      entryId,
      onProgress,
    });
    try {
      const checksum = checksumOf(sql, backfill);
      const done = doneEarlier(step, checksum);
      ranges.goOnAfter(done);
      const { cursor, rows } = done;
      await write(entry.noted({ kind: "backfill", statement: 0, sha256: checksum, cursor, rows }));
      await followKey(ranges, { bench, backfill });
    } catch (cause) {
      await record(bench, cause, (error) => `${ranges.recount()}; ${entry.failed(error, "failed")}`);
      throw cause;
    }
    await write(entry.reached(0, sha256Hex(sql)));
    onProgress({ kind: "statement", done: 1 });
  }
  await write(entry.done());
  return { durationMs: performance.now() - startedAt };
}

async function followKey(
  ranges: BackfillRanges,
  { bench, backfill }: Pick<BackfillTask, "bench" | "backfill">,
): Promise<void> {
  let bound = await ranges.begin();
  let short = 0;
  let askedAt = -Infinity;
  while (bound !== undefined && short < shortRanges) {
    if (backfill.throttle !== undefined && performance.now() - askedAt >= throttleMs.least) {
      await untilCalm(ranges, bench);
      askedAt = performance.now();
    }
    short = bound.isFull ? 0 : short + 1;
    bound = await ranges.run(bound);
    if (bound !== undefined && backfill.pauseMs > 0) await pause(bench, backfill.pauseMs);
  }
  ranges.meter.finished();
}

async function untilCalm(ranges: BackfillRanges, bench: Workbench): Promise<void> {
  for (
    let delayMs = throttleMs.least;
    await ranges.isBusy();
    delayMs = Math.min(delayMs * 2, throttleMs.most)
  ) {
    ranges.meter.throttled();
    await pause(bench, delayMs * (0.75 + Math.random() / 4));
  }
}

/** Throws the run's own reason when it is to stop meanwhile. */
async function pause(bench: Workbench, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal: bench.kept.signal }).catch(() => undefined);
  bench.kept.assertTrusted();
}

/** What an earlier attempt at the same statement along the same key has done; another one begins at the beginning. */
function doneEarlier(
  step: StatementStep,
  checksum: string,
): Pick<Extract<StatementCheckpoint, { kind: "backfill" }>, "cursor" | "rows"> {
  const earlier = step.unfinished?.checkpoint;
  return earlier?.kind === "backfill" && earlier.sha256 === checksum ? earlier : { cursor: null, rows: 0 };
}

/** Over all that the cursor's meaning hangs on; batch size, pause and throttle may change from one attempt to the next. */
function checksumOf(sql: string, { table, key }: Backfill): string {
  return sha256Hex(JSON.stringify([table, key, sql]));
}

/** Writes into the entry why its body did not go on, if the lease is still ours. */
async function record(
  bench: Workbench,
  cause: unknown,
  statements: (error: RunnerError) => string,
): Promise<void> {
  const { signal } = bench.kept;
  if (signal.aborted) {
    const reason: unknown = signal.reason;
    const error =
      reason instanceof RunnerError
        ? reason
        : new RunnerError("CANCELED", "the run was interrupted", { cause: reason });
    if (error.code !== "LEASE_LOST") await bench.lastWrite(statements(error));
  } else if (cause instanceof RunnerError && cause.code !== "LEASE_LOST") {
    await bench.writeThrough(statements(cause));
  }
}
