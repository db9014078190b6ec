import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { factsOf } from "../../migration/mongo/command-kind.ts";
import { doneEarlier, followRanges, notABackfill } from "../follow-ranges.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { BackfillRanges } from "./backfill-ranges.ts";
import type { Bench } from "./bench.ts";
import { openCheckpoint } from "./checkpoint.ts";
import { checksumOf, commandsOf, stop } from "./statement-task.ts";

/**
 * Runs a body's one command for one range of `_id`s after the other. Each range is a fenced transaction that moves the
 * entry's cursor with it, so whatever dies, the next run goes on behind the last range that is done. Between two ranges
 * nothing is open, no transaction and no cursor of the server's. Without transactions the cursor follows its range, and
 * the range that was under way is done again.
 *
 * @throws RunnerError `BACKFILL`, `MIGRATION_FAILED` with the entry recorded, its cursor kept
 */
export async function runBackfill(
  bench: Bench,
  step: StatementStep,
  settings: SessionSettings,
  onProgress: (progress: StatementProgress) => void,
): Promise<{ readonly durationMs: number }> {
  const startedAt = performance.now();
  const { backfill } = step;
  const [command] = commandsOf(step);
  const [statement] = step.statements;
  if (backfill === undefined || command === undefined || statement === undefined) throw notABackfill(step);
  const checkpoint = openCheckpoint({ bench, step, settings }, undefined, undefined);
  await checkpoint.begin();
  if (step.resumeAt === 0) {
    const checksum = sha256Hex(JSON.stringify([backfill.table, checksumOf(step, statement)]));
    const earlier = doneEarlier(step, checksum);
    const body = { bench, step, settings, checkpoint, onProgress, command, statement, index: 0 };
    const ranges = new BackfillRanges({ ...body, backfill, checksum }, earlier);
    try {
      if (!bench.database.hasTransactions && !factsOf(command).isRepeatable) throw notRepeatable(step);
      await followRanges(ranges, await ranges.begin(), backfill, bench.kept);
    } catch (cause) {
      const { signal } = bench.kept;
      if (signal.aborted) await stop(body, signal.reason);
      if (cause instanceof RunnerError && cause.code !== "LEASE_LOST")
        await checkpoint.failed(cause, "failed");
      throw cause;
    }
    await checkpoint.reached(0, checksumOf(step, statement));
    onProgress({ kind: "statement", done: 1 });
  }
  await checkpoint.done();
  return { durationMs: performance.now() - startedAt };
}

function notRepeatable(step: StatementStep): RunnerError {
  return new RunnerError(
    "BACKFILL",
    `${step.path}: this server has no transactions, and the backfill's command would change a document again if it was cut off and repeated`,
    {
      hint: 'leave out of "q" what is done already and mark it, or set values that do not hang on themselves; or run it on a replica set',
      fields: { migration: step.path, version: step.migration.version },
    },
  );
}
