import { RunnerError } from "../../error.ts";
import type { Backfill } from "../../migration/backfill.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { doneEarlier, followRanges, notABackfill } from "../follow-ranges.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { BackfillRanges } from "./backfill-ranges.ts";
import type { StatementResult } from "./connection.ts";
import { startEntry, textOf } from "./statement-task.ts";
import type { Workbench } from "./workbench.ts";

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
  if (backfill === undefined) throw notABackfill(step);
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
      await followRanges(ranges, await ranges.begin(), backfill, bench.kept);
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
