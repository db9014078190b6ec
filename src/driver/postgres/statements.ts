import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { countCodePoints } from "../../migration/position.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { assertNoSettingsOutside, runAlone } from "./alone.ts";
import { runBackfill } from "./backfill.ts";
import { bodyFailure } from "./body-failure.ts";
import { deathSettings } from "./death.ts";
import { isConnectionLoss } from "./failure.ts";
import { begin, fence } from "./lease.ts";
import { mayTryAgain } from "./retry.ts";
import { preludeOf } from "./session-setting.ts";
import { settle, type Unsettled } from "./settle.ts";
import {
  assertMayGoOn,
  assertMayStart,
  placeOf,
  recordFailure,
  startEntry,
  textOf,
  type Task,
} from "./statement-task.ts";
import { runMark } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";
import { Worker } from "./worker.ts";

/**
 * A body outside transactions: statement by statement, each checkpointed, beside a fence that holds the lock but no
 * snapshot (`protocol.md` 9). A statement that can run in a transaction commits together with its checkpoint, so only
 * for the others can a crash leave in doubt whether they took effect.
 *
 * @throws RunnerError `MIGRATION_FAILED`, `LOCK_TIMEOUT` with the entry recorded; `NEEDS_ATTENTION` when an outcome cannot be known
 */
export async function runStatements(
  bench: Workbench,
  step: StatementStep,
  settings: SessionSettings,
  onProgress: (progress: StatementProgress) => void,
): Promise<{ readonly durationMs: number }> {
  if (step.statements.some(({ kind }) => kind === "backfill"))
    return runBackfill(bench, step, settings, onProgress);
  const startedAt = performance.now();
  const worker = await Worker.open(bench);
  try {
    if (worker.isPooled) assertNoSettingsOutside(step);
    const checkpoint = await startEntry(bench, worker, step, settings);
    const body = { bench, worker, step, settings, checkpoint, onProgress };
    const from = await settleUnfinished({ ...body, index: step.resumeAt });
    for (const [index, statement] of step.statements.entries()) {
      if (index < from) continue;
      const task: Task = { ...body, statement, index, sql: textOf(step, statement) };
      if (statement.kind === "transactional") await runInTransaction(task);
      else if (statement.kind !== "backfill") await runAlone(task, statement.kind);
      onProgress({ kind: "statement", done: index + 1 });
    }
    await worker.write(checkpoint.done());
  } finally {
    await worker.close();
  }
  return { durationMs: performance.now() - startedAt };
}

/**
 * An earlier run was cut off while a statement was under way. Its note tells what it was about, also when the file has
 * been corrected since: what has taken effect then counts as any other done statement, and may not have changed.
 *
 * @returns the index to go on at
 */
async function settleUnfinished(task: Unsettled): Promise<number> {
  const { worker, step, index, checkpoint, onProgress } = task;
  const note = step.unfinished?.checkpoint;
  if (note?.kind !== "sent" || note.statement !== index) return index;
  const verdict = await settle(task, note);
  onProgress({ kind: "probed", statement: index + 1, verdict });
  if (verdict !== "done") {
    await worker.write(checkpoint.noted(null));
    return index;
  }
  await worker.write(checkpoint.reached(index, note.sha256));
  onProgress({ kind: "statement", done: index + 1 });
  const statement = step.statements[index];
  if (statement !== undefined && sha256Hex(textOf(step, statement)) === note.sha256) return index + 1;
  throw await recordFailure(task, changedMeanwhile(step, index), "failed");
}

function changedMeanwhile(step: StatementStep, index: number): RunnerError {
  return new RunnerError(
    "CHANGED_FILE",
    `statement ${index + 1} of "${step.path}" was changed after it had taken effect: an earlier run was cut off while it was under way, and it is done`,
    {
      hint: `keep the first ${index + 1} statements as they were, and correct only what follows`,
      fields: { migration: step.path, version: step.migration.version, statement: index + 1 },
    },
  );
}

/** Commits with its checkpoint, so after a lost connection the entry says whether it took effect. */
async function runInTransaction(task: Task): Promise<void> {
  const { bench, worker, step, index, settings, checkpoint, sql } = task;
  for (let attempt = 1; ; attempt += 1) {
    await assertMayStart(task);
    const lockTimeoutMs = step.lockTimeoutMs ?? settings.lockTimeoutMs;
    const limits = [
      `SET LOCAL lock_timeout = ${lockTimeoutMs}`,
      `SET LOCAL statement_timeout = ${step.statementTimeoutMs ?? settings.statementTimeoutMs}`,
      `SET LOCAL idle_in_transaction_session_timeout = ${bench.times.leaseMs}`,
      ...deathSettings(bench.facts).map(([name, value]) => `SET LOCAL ${name} = '${value}'`),
      ...preludeOf(step, index),
    ].join("; ");
    const head = `${runMark(bench.key())}${begin}; ${fence(bench.t, bench.key())}; ${limits};\n`;
    const tail = `\n; RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path = pg_catalog; ${checkpoint.reached(index, sha256Hex(sql))}; RESET ALL; SET LOCAL synchronous_commit = on; COMMIT`;
    try {
      await bench.sendOn(worker.connection, head + sql + tail, lockTimeoutMs);
      return;
    } catch (cause) {
      if (isConnectionLoss(cause) || worker.connection.isLost()) {
        await worker.regain(cause);
        const [result] = await bench.send(checkpoint.select);
        if (Number(result?.rows[0]?.["lockkeeper_done"]) > index) return;
      } else {
        await worker.rollBack();
        await assertMayGoOn(task, cause);
      }
      if (await mayTryAgain(bench, step, settings, cause, attempt)) continue;
      throw await recordFailure(
        task,
        bodyFailure(step, cause, placeOf(task, countCodePoints(head, 0, head.length))),
        "failed",
      );
    }
  }
}
