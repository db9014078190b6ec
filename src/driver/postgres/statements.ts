import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { Statement } from "../../migration/migration.ts";
import { countCodePoints } from "../../migration/position.ts";
import type { SessionSettings, StatementStep } from "../driver.ts";
import { bodyFailure, toEntryError } from "./body-failure.ts";
import { isConnectionLoss } from "./failure.ts";
import { entryOfStep, insertEntry } from "./history.ts";
import { assertIndexIsValid, builtIndex, dropInvalidIndex } from "./index-build.ts";
import { begin, fence } from "./lease.ts";
import { mayTryAgain } from "./retry.ts";
import { preludeOf } from "./session-setting.ts";
import { jsonLiteral, literal } from "./tables.ts";
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
  onStatement: (done: number) => void,
): Promise<{ readonly durationMs: number }> {
  const startedAt = performance.now();
  const worker = await Worker.open(bench);
  try {
    if (worker.isPooled) assertNoSettingsOutside(step);
    const checkpoint = await startEntry(bench, worker, step, settings);
    for (const [index, statement] of step.statements.entries()) {
      if (index < step.resumeAt) continue;
      const task: Task = {
        bench,
        worker,
        step,
        statement,
        index,
        settings,
        checkpoint,
        sql: textOf(step, statement),
      };
      if (statement.kind === "transactional") await runInTransaction(task);
      else await runAlone(task, statement.kind);
      onStatement(index + 1);
    }
    await worker.write(checkpoint.done());
  } finally {
    await worker.close();
  }
  return { durationMs: performance.now() - startedAt };
}

/** One statement, and all that its running needs. */
interface Task {
  readonly bench: Workbench;
  readonly worker: Worker;
  readonly step: StatementStep;
  readonly statement: Statement;
  readonly index: number;
  readonly settings: SessionSettings;
  readonly checkpoint: Checkpoint;
  readonly sql: string;
}

/** The SQL that moves the entry of the body under way; each may be sent again when nobody knows whether it arrived. */
interface Checkpoint {
  /** a row with `lockkeeper_done`, the statements done so far */
  readonly select: string;
  reached(index: number, checksum: string): string;
  failed(error: RunnerError, status: "failed" | "needs_attention"): string;
  done(): string;
}

async function startEntry(
  bench: Workbench,
  worker: Worker,
  step: StatementStep,
  settings: SessionSettings,
): Promise<Checkpoint> {
  const { t } = bench;
  const checksums = step.statements
    .slice(0, step.resumeAt)
    .map((statement) => sha256Hex(textOf(step, statement)));
  const entry = entryOfStep(step, bench.key(), settings.appliedBy, {
    status: "started",
    statementsDone: step.resumeAt,
    statements: step.statements.length,
    statementChecksums: checksums,
    error: null,
  });
  const results = await worker.write(insertEntry(t, entry));
  const id = Number(
    results.flatMap((result) => result.rows).find((row) => "lockkeeper_entry" in row)?.["lockkeeper_entry"],
  );
  bench.lastEntryId = id;
  const elapsed = "extract(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000";
  return {
    select: `SELECT statements_done AS lockkeeper_done FROM ${t.history} WHERE id = ${id}`,
    reached: (index, checksum) =>
      `UPDATE ${t.history} SET statements_done = ${index + 1}, statement_checksums = statement_checksums || ${literal(checksum)}::text, duration_ms = ${elapsed} WHERE id = ${id} AND statements_done = ${index}`,
    failed: (error, status) =>
      `UPDATE ${t.history} SET status = ${literal(status)}, error = ${jsonLiteral(toEntryError(error))}, duration_ms = ${elapsed} WHERE id = ${id}`,
    done: () => `UPDATE ${t.history} SET status = 'done', duration_ms = ${elapsed} WHERE id = ${id}`,
  };
}

/** Commits with its checkpoint, so after a lost connection the entry says whether it took effect. */
async function runInTransaction(task: Task): Promise<void> {
  const { bench, worker, step, index, settings, checkpoint, sql } = task;
  for (let attempt = 1; ; attempt += 1) {
    await assertMayStart(task);
    const limits = [
      `SET LOCAL lock_timeout = ${step.lockTimeoutMs ?? settings.lockTimeoutMs}`,
      `SET LOCAL statement_timeout = ${step.statementTimeoutMs ?? settings.statementTimeoutMs}`,
      `SET LOCAL idle_in_transaction_session_timeout = ${bench.times.leaseMs}`,
      ...preludeOf(step, index),
    ].join("; ");
    const head = `${runMark(bench.key())}${begin}; ${fence(bench.t, bench.key())}; ${limits};\n`;
    const tail = `\n; RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path = pg_catalog; ${checkpoint.reached(index, sha256Hex(sql))}; RESET ALL; SET LOCAL synchronous_commit = on; COMMIT`;
    try {
      await bench.sendOn(worker.connection, head + sql + tail);
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

/** What PostgreSQL refuses inside a transaction; its checkpoint follows it. */
async function runAlone(task: Task, kind: Statement["kind"]): Promise<void> {
  const { bench, worker, step, index, settings, checkpoint, sql } = task;
  await assertMayStart(task);
  const mark = runMark(bench.key());
  const built = kind === "create-index-concurrently" ? builtIndex(sql) : undefined;
  try {
    if (!worker.isPooled) {
      // A lock time-out in the middle of what runs concurrently would leave an invalid index, or half a partition, behind.
      const lockTimeoutMs =
        step.lockTimeoutMs ?? (kind.endsWith("concurrently") ? 0 : settings.lockTimeoutMs);
      const limits = [
        `SET lock_timeout = ${lockTimeoutMs}`,
        `SET statement_timeout = ${step.statementTimeoutMs ?? settings.statementTimeoutMs}`,
      ];
      await worker.connection.send([...limits, ...preludeOf(step, index)].join("; "));
    }
    if (built !== undefined) await dropInvalidIndex(bench, worker.connection, built);
    await bench.sendOn(worker.connection, mark + sql);
    if (built !== undefined) await assertIndexIsValid(worker.connection, step, built);
  } catch (cause) {
    if (isConnectionLoss(cause) || worker.connection.isLost())
      throw await recordFailure(task, inDoubt(step, index, cause), "needs_attention");
    await worker.rollBack();
    await assertMayGoOn(task, cause);
    const failure =
      cause instanceof RunnerError ? cause : bodyFailure(step, cause, placeOf(task, mark.length));
    throw await recordFailure(task, failure, "failed");
  }
  await worker.rollBack();
  await worker.write(checkpoint.reached(index, sha256Hex(sql)));
}

/** Before a statement is sent: what stops the run here leaves nothing in doubt. */
async function assertMayStart(task: Task): Promise<void> {
  await task.worker.assertFenced().catch((reason: unknown) => stop(task, reason));
}

/** A statement that was ended because the run is to stop has failed for that reason, not for its own. */
async function assertMayGoOn(task: Task, cause: unknown): Promise<void> {
  await task.bench.assertMayGoOn(cause).catch((reason: unknown) => stop(task, reason));
}

/** Records that the run stopped here and why, if the lease is still ours. */
async function stop({ bench, checkpoint }: Task, reason: unknown): Promise<never> {
  const error =
    reason instanceof RunnerError
      ? reason
      : new RunnerError("CANCELED", "the run was interrupted", { cause: reason });
  if (error.code !== "LEASE_LOST") await bench.lastWrite(checkpoint.failed(error, "failed"));
  throw reason;
}

async function recordFailure(
  task: Task,
  failure: RunnerError,
  status: "failed" | "needs_attention",
): Promise<RunnerError> {
  await task.worker.write(task.checkpoint.failed(failure, status));
  return failure;
}

function placeOf({ step, statement, index }: Task, messageOffset: number): Parameters<typeof bodyFailure>[2] {
  const before = step.bytes.subarray(0, statement.offset).toString("utf8");
  return {
    sqlOffset: countCodePoints(before, 0, before.length),
    messageOffset,
    statement: { index, of: step.statements.length },
  };
}

function inDoubt(step: StatementStep, index: number, cause: unknown): RunnerError {
  return new RunnerError(
    "NEEDS_ATTENTION",
    `"${step.path}" (${step.direction}): the connection was lost at statement ${index + 1} of ${step.statements.length}, and whether it took effect is not known`,
    {
      hint: 'look whether it did, then say so: lockkeeper repair --as applied|not-applied --reason "…"',
      fields: {
        migration: step.path,
        version: step.migration.version,
        direction: step.direction,
        statement: index + 1,
        statements: step.statements.length,
      },
      cause,
    },
  );
}

/** A pooler gives the next message to any backend: a setting would be lost, or be another client's. */
function assertNoSettingsOutside(step: StatementStep): void {
  const index = step.statements.findIndex(
    ({ kind }, at) => kind !== "transactional" && preludeOf(step, at).length > 0,
  );
  if (index < 0) return;
  throw new RunnerError(
    "STATEMENT_REFUSED",
    `"${step.path}": statement ${index + 1} of ${step.statements.length} runs outside a transaction and needs settings of the session, which the pooler before the database does not keep`,
    {
      hint: "connect past the pooler (directUrl), or write the migration without SET",
      fields: { migration: step.path, version: step.migration.version, statement: index + 1 },
    },
  );
}

function textOf(step: StatementStep, statement: Statement): string {
  return step.bytes.subarray(statement.offset, statement.offset + statement.length).toString("utf8");
}
