import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import type { Backfill } from "../../migration/backfill.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { factsOf } from "../../migration/mongo/command-kind.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { BackfillRanges } from "./backfill-ranges.ts";
import type { Bench } from "./bench.ts";
import { checksumOf, commandsOf, startEntry, stop } from "./statement-task.ts";

/** milliseconds between two questions to the throttle: at least, and at most while the database stays busy */
const throttleMs = { least: 1_000, most: 10_000 };
/** ranges that were not full, one after the other, after which the rest is left: documents are added as fast as they are reached */
const shortRanges = 10;

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
  if (backfill === undefined || command === undefined || statement === undefined)
    throw new RunnerError(
      "BACKFILL",
      `the release lists "${step.path}" as a backfill, and its file has no such header`,
      {
        hint: "publish it anew",
        fields: { migration: step.path, version: step.migration.version },
      },
    );
  const checkpoint = await startEntry(bench, step, settings);
  if (step.resumeAt === 0) {
    const checksum = sha256Hex(JSON.stringify([backfill.table, checksumOf(step, statement)]));
    const earlier = doneEarlier(step, checksum);
    const body = { bench, step, settings, checkpoint, onProgress, command, statement, index: 0 };
    const ranges = new BackfillRanges({ ...body, backfill, checksum }, earlier);
    try {
      if (!bench.database.hasTransactions && !factsOf(command).isRepeatable) throw notRepeatable(step);
      await ranges.begin();
      await followIds(ranges, bench, backfill);
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

async function followIds(ranges: BackfillRanges, bench: Bench, backfill: Backfill): Promise<void> {
  let short = 0;
  let askedAt = -Infinity;
  for (
    let bound = await ranges.next();
    bound !== undefined && short < shortRanges;
    bound = await ranges.next()
  ) {
    if (backfill.throttle !== undefined && performance.now() - askedAt >= throttleMs.least) {
      await untilCalm(ranges, bench);
      askedAt = performance.now();
    }
    short = bound.isFull ? 0 : short + 1;
    await ranges.run(bound);
    if (backfill.pauseMs > 0) await pause(bench, backfill.pauseMs);
  }
  ranges.meter.finished();
}

async function untilCalm(ranges: BackfillRanges, bench: Bench): Promise<void> {
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
async function pause(bench: Bench, ms: number): Promise<void> {
  await sleep(ms, undefined, { signal: bench.kept.signal }).catch(() => undefined);
  bench.kept.assertTrusted();
}

/** What an earlier attempt at the same command over the same collection has done; another one begins at the beginning. */
function doneEarlier(
  step: StatementStep,
  checksum: string,
): Pick<Extract<StatementCheckpoint, { kind: "backfill" }>, "cursor" | "rows"> {
  const earlier = step.unfinished?.checkpoint;
  return earlier?.kind === "backfill" && earlier.sha256 === checksum ? earlier : { cursor: null, rows: 0 };
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
