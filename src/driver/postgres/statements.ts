import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { Statement } from "../../migration/migration.ts";
import type { SessionSettings, StatementStep } from "../driver.ts";
import { bodyFailure, toEntryError } from "./body-failure.ts";
import type { Connection } from "./connection.ts";
import { databaseFailure, isConnectionLoss } from "./failure.ts";
import { insertEntry } from "./history.ts";
import { begin, fence, fenced, workerLock } from "./lease.ts";
import { jsonLiteral, literal } from "./tables.ts";
import { resetSession, runMark } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/**
 * A body outside transactions: statement by statement, each checkpointed, beside a fence connection that holds the
 * lock but no snapshot (`protocol.md` 9). A statement that can run in a transaction commits together with its checkpoint,
 * so only for the others can a crash leave in doubt whether they took effect.
 *
 * @throws RunnerError `MIGRATION_FAILED` with the entry recorded; `NEEDS_ATTENTION` when an outcome cannot be known
 */
export async function runStatements(
  bench: Workbench,
  step: StatementStep,
  settings: SessionSettings,
  onStatement: (done: number) => void,
): Promise<{ readonly durationMs: number }> {
  const startedAt = performance.now();
  bench.kept.assertTrusted();
  const checkpoint = await startEntry(bench, step, settings);
  const worker = await openWorker(bench);
  try {
    for (const [index, statement] of step.statements.entries()) {
      if (index < step.resumeAt) continue;
      assertFenceHolds(bench, worker);
      if (statement.kind === "transactional") await runInTransaction(bench, worker, step, statement, index, settings, checkpoint);
      else await runAlone(bench, worker, step, statement, index, settings, checkpoint);
      onStatement(index + 1);
    }
    await bench.send(fenced(bench.t, bench.key(), checkpoint.done()));
  } finally {
    await worker.close();
  }
  return { durationMs: performance.now() - startedAt };
}

/** The SQL that moves the entry of the body under way. */
interface Checkpoint {
  reached(index: number, checksum: string): string;
  failed(error: RunnerError, status: "failed" | "needs_attention"): string;
  done(): string;
}

async function startEntry(bench: Workbench, step: StatementStep, settings: SessionSettings): Promise<Checkpoint> {
  const { t } = bench;
  const { stream, runId, token } = bench.key();
  const { migration } = step;
  const checksums = step.statements.slice(0, step.resumeAt).map((statement) => sha256Hex(textOf(step, statement)));
  const insert = insertEntry(t, {
    stream,
    seq: migration.seq,
    version: migration.version,
    path: step.path,
    direction: step.direction,
    sha256: step.sha256,
    size: migration.size,
    chain: migration.chain,
    origin: "run",
    status: "started",
    statementsDone: step.resumeAt,
    statements: step.statements.length,
    statementChecksums: checksums,
    signed: step.signed,
    runId,
    token,
    appliedBy: settings.appliedBy,
    note: null,
    error: null,
  });
  const results = await bench.send(fenced(t, bench.key(), insert)).catch((cause: unknown) => {
    throw databaseFailure(cause, bench.shownUrl);
  });
  const id = Number(results.flatMap((result) => result.rows).find((row) => "lockkeeper_entry" in row)?.["lockkeeper_entry"]);
  bench.lastEntryId = id;
  const elapsed = "extract(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000";
  return {
    reached: (index, checksum) =>
      `UPDATE ${t.history} SET statements_done = ${index + 1}, statement_checksums = statement_checksums || ${literal(checksum)}::text, duration_ms = ${elapsed} WHERE id = ${id}`,
    failed: (error, status) =>
      `UPDATE ${t.history} SET status = ${literal(status)}, error = ${jsonLiteral(toEntryError(error))}, duration_ms = ${elapsed} WHERE id = ${id}`,
    done: () => `UPDATE ${t.history} SET status = 'done', duration_ms = ${elapsed} WHERE id = ${id}`,
  };
}

/** Two connections: one for the statements, one whose open transaction keeps the token from being taken over meanwhile. */
interface Worker {
  readonly connection: Connection;
  readonly isPooled: boolean;
  /** undefined while the fence holds */
  fenceLoss(): unknown;
  close(): Promise<void>;
}

async function openWorker(bench: Workbench): Promise<Worker> {
  const { signal } = bench.kept;
  const connection = await bench.directPool.connect(signal);
  const fenceConnection = await bench.directPool.connect(signal).catch((cause: unknown) => {
    connection.release();
    throw cause;
  });
  let loss: unknown;
  let beating: Promise<unknown> | undefined;
  const isPooled = await isThroughPooler(connection);
  try {
    // A session lock behind a pooler would stay with whoever gets the backend next.
    if (!isPooled) await connection.send(`SELECT 1 / pg_catalog.pg_try_advisory_lock(${workerLock(bench.key().stream)})::int`);
    await fenceConnection.send(
      `${begin}; SET LOCAL idle_in_transaction_session_timeout = ${bench.times.leaseMs}; ${fence(bench.t, bench.key())}`,
    );
  } catch (cause) {
    connection.release(true);
    fenceConnection.release(true);
    throw databaseFailure(cause, bench.shownUrl);
  }
  const timer = setInterval(() => {
    beating = fenceConnection.send("SELECT 1").catch((cause: unknown) => {
      loss = cause;
    });
  }, bench.times.heartbeatMs);
  timer.unref();
  return {
    connection,
    isPooled,
    fenceLoss: () => (fenceConnection.isLost() ? (loss ?? new Error("the fence connection was lost")) : loss),
    async close() {
      clearInterval(timer);
      await beating;
      await fenceConnection.send("ROLLBACK").catch(() => undefined);
      fenceConnection.release();
      if (!isPooled) await connection.send("SELECT pg_catalog.pg_advisory_unlock_all()").catch(() => undefined);
      connection.release();
    },
  };
}

/** A pooler answers with the process id of its choice at start-up, and with the backend's own in a query. */
async function isThroughPooler(connection: Connection): Promise<boolean> {
  const [result] = await connection.send("SELECT pg_catalog.pg_backend_pid() AS pid");
  return connection.processId !== Number(result?.rows[0]?.["pid"]);
}

function assertFenceHolds(bench: Workbench, worker: Worker): void {
  bench.kept.assertTrusted();
  const loss = worker.fenceLoss();
  if (loss === undefined) return;
  throw new RunnerError("LEASE_LOST", "the fence connection of this run was lost", {
    hint: "run again to go on after the last statement done",
    cause: loss,
  });
}

async function runInTransaction(
  bench: Workbench,
  worker: Worker,
  step: StatementStep,
  statement: Statement,
  index: number,
  settings: SessionSettings,
  checkpoint: Checkpoint,
): Promise<void> {
  const limits = [
    `SET LOCAL lock_timeout = ${step.lockTimeoutMs ?? settings.lockTimeoutMs}`,
    `SET LOCAL statement_timeout = ${step.statementTimeoutMs ?? settings.statementTimeoutMs}`,
    `SET LOCAL idle_in_transaction_session_timeout = ${bench.times.leaseMs}`,
  ].join("; ");
  const sql = textOf(step, statement);
  const head = `${runMark(bench.key())}${begin}; ${fence(bench.t, bench.key())}; ${limits};\n`;
  const tail = `\n; RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path = pg_catalog; ${checkpoint.reached(index, sha256Hex(sql))}; RESET ALL; SET LOCAL synchronous_commit = on; COMMIT`;
  try {
    await bench.sendOn(worker.connection, head + sql + tail);
  } catch (cause) {
    if (!worker.connection.isLost()) await worker.connection.send("ROLLBACK").catch(() => undefined);
    const isUnknown = isConnectionLoss(cause);
    throw await failed(bench, step, statement, index, checkpoint, cause, { messageOffset: [...head].length, isUnknown });
  }
}

async function runAlone(
  bench: Workbench,
  worker: Worker,
  step: StatementStep,
  statement: Statement,
  index: number,
  settings: SessionSettings,
  checkpoint: Checkpoint,
): Promise<void> {
  const sql = textOf(step, statement);
  const mark = runMark(bench.key());
  try {
    if (!worker.isPooled) {
      // A lock time-out in the middle of a concurrent build would leave an invalid index behind.
      const lockTimeoutMs = step.lockTimeoutMs ?? (statement.kind === "create-index-concurrently" ? 0 : settings.lockTimeoutMs);
      await worker.connection.send(`SET lock_timeout = ${lockTimeoutMs}`);
      await worker.connection.send(`SET statement_timeout = ${step.statementTimeoutMs ?? settings.statementTimeoutMs}`);
    }
    await bench.sendOn(worker.connection, mark + sql);
  } catch (cause) {
    const isUnknown = isConnectionLoss(cause);
    throw await failed(bench, step, statement, index, checkpoint, cause, { messageOffset: mark.length, isUnknown });
  } finally {
    if (!worker.connection.isLost()) await worker.connection.send(resetSession).catch(() => undefined);
  }
  await bench.send(fenced(bench.t, bench.key(), checkpoint.reached(index, sha256Hex(sql)))).catch((cause: unknown) => {
    throw databaseFailure(cause, bench.shownUrl);
  });
}

/** Records why the statement did not succeed; what is thrown is for the caller. */
async function failed(
  bench: Workbench,
  step: StatementStep,
  statement: Statement,
  index: number,
  checkpoint: Checkpoint,
  cause: unknown,
  sent: { readonly messageOffset: number; readonly isUnknown: boolean },
): Promise<RunnerError> {
  const sqlOffset = codePoints(step.bytes.subarray(0, statement.offset).toString("utf8"));
  const place = { sqlOffset, messageOffset: sent.messageOffset, statement: { index, of: step.statements.length } };
  const isInDoubt = sent.isUnknown && statement.kind !== "transactional";
  const error = isInDoubt ? inDoubt(step, index, cause) : bodyFailure(step, cause, place);
  if (bench.isLost()) await bench.reconnect(cause);
  await bench.send(fenced(bench.t, bench.key(), checkpoint.failed(error, isInDoubt ? "needs_attention" : "failed"))).catch(async () => {
    await bench.rollBack();
  });
  bench.kept.assertTrusted();
  return error;
}

/** Nobody can tell whether a statement took effect: a person looks, and says so with `repair`. */
export function inDoubt(step: Pick<StatementStep, "path" | "migration" | "direction" | "statements">, index: number, cause?: unknown): RunnerError {
  return new RunnerError(
    "NEEDS_ATTENTION",
    `${step.path}: the connection was lost during statement ${index + 1} of ${step.statements.length}, and whether it took effect is not known`,
    {
      hint: `look whether it did, then say so: lockkeeper repair --as applied|not-applied --reason "…"`,
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

function textOf(step: StatementStep, statement: Statement): string {
  return step.bytes.subarray(statement.offset, statement.offset + statement.length).toString("utf8");
}

function codePoints(text: string): number {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
