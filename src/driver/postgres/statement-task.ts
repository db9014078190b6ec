import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import type { Statement } from "../../migration/migration.ts";
import { countCodePoints } from "../../migration/position.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import type { bodyFailure } from "./body-failure.ts";
import { toEntryError } from "./body-failure.ts";
import { writeBackStep } from "./foreign/write-back.ts";
import { addEntries, entryOfStep, insertCovered } from "./history.ts";
import { jsonLiteral, literal } from "./tables.ts";
import type { Workbench } from "./workbench.ts";
import type { Worker } from "./worker.ts";

/** One statement, and all that its running needs. */
export interface Task {
  readonly bench: Workbench;
  readonly worker: Worker;
  readonly step: StatementStep;
  readonly statement: Statement;
  readonly index: number;
  readonly settings: SessionSettings;
  readonly checkpoint: Checkpoint;
  readonly sql: string;
  onProgress(progress: StatementProgress): void;
}

/** The SQL that moves the entry of the body under way; each may be sent again when nobody knows whether it arrived. */
export interface Checkpoint {
  /** a row with `lockkeeper_done`, the statements done so far */
  readonly select: string;
  /** the statement at `index` has taken effect; what was noted of it is no longer needed */
  reached(index: number, checksum: string): string;
  /** what is to be known of the statement under way after a crash; null: nothing is under way */
  noted(checkpoint: StatementCheckpoint | null): string;
  failed(error: RunnerError, status: "failed" | "needs_attention"): string;
  done(): string;
}

/** Adds the entry of a body that begins. */
export async function startEntry(
  bench: Workbench,
  worker: Pick<Worker, "write">,
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
    // Until it is settled: this run may die as the one before did.
    checkpoint: step.unfinished?.checkpoint ?? null,
    error: null,
  });
  const results = await worker.write(addEntries(t, bench.knownEntries(), [entry]));
  const id = Number(
    results.flatMap((result) => result.rows).find((row) => "lockkeeper_entry" in row)?.["lockkeeper_entry"],
  );
  bench.lastEntryId = id;
  const elapsed = "extract(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000";
  const also = (): readonly string[] =>
    writeBackStep({ t, key: bench.key(), inStep: bench.inStep }, step, {
      bytes: step.bytes,
      statements: step.statements.length,
      durationMs: `SELECT duration_ms FROM ${t.history} WHERE id = ${id}`,
    });
  return {
    select: `SELECT statements_done AS lockkeeper_done FROM ${t.history} WHERE id = ${id}`,
    reached: (index, checksum) =>
      `UPDATE ${t.history} SET statements_done = ${index + 1}, statement_checksums = statement_checksums || ${literal(checksum)}::text, checkpoint = NULL, duration_ms = ${elapsed} WHERE id = ${id} AND statements_done = ${index}`,
    noted: (checkpoint) =>
      `UPDATE ${t.history} SET checkpoint = ${jsonLiteral(checkpoint)}, duration_ms = ${elapsed} WHERE id = ${id}`,
    failed: (error, status) =>
      `UPDATE ${t.history} SET status = ${literal(status)}, error = ${jsonLiteral(toEntryError(error))}, duration_ms = ${elapsed} WHERE id = ${id}`,
    done: () =>
      [
        ...insertCovered(t, step, bench.key(), settings.appliedBy),
        `UPDATE ${t.history} SET status = 'done', duration_ms = ${elapsed} WHERE id = ${id}`,
        ...also(),
      ].join("; "),
  };
}

/** Before a statement is sent: what stops the run here leaves nothing in doubt. */
export async function assertMayStart(task: Task): Promise<void> {
  await task.worker.assertFenced().catch((reason: unknown) => stop(task, reason));
}

/** A statement that was ended because the run is to stop has failed for that reason, not for its own. */
export async function assertMayGoOn(task: Task, cause: unknown): Promise<void> {
  await task.bench.assertMayGoOn(cause).catch((reason: unknown) => stop(task, reason));
}

/** Records that the run stopped here and why, if the lease is still ours. */
export async function stop(
  { bench, checkpoint }: Pick<Task, "bench" | "checkpoint">,
  reason: unknown,
): Promise<never> {
  const error =
    reason instanceof RunnerError
      ? reason
      : new RunnerError("CANCELED", "the run was interrupted", { cause: reason });
  if (error.code !== "LEASE_LOST") await bench.lastWrite(checkpoint.failed(error, "failed"));
  throw reason;
}

/** Writes into the entry why its body did not go on; gives the failure back. */
export async function recordFailure(
  task: Pick<Task, "worker" | "checkpoint">,
  failure: RunnerError,
  status: "failed" | "needs_attention",
): Promise<RunnerError> {
  await task.worker.write(task.checkpoint.failed(failure, status));
  return failure;
}

/** Where the statement lies in its file and in the message that was sent. */
export function placeOf(
  { bench, step, statement, index }: Task,
  messageOffset: number,
): Parameters<typeof bodyFailure>[2] {
  const before = step.bytes.subarray(0, statement.offset).toString("utf8");
  return {
    sqlOffset: countCodePoints(before, 0, before.length),
    messageOffset,
    blocker: bench.blocker,
    statement: { index, of: step.statements.length },
  };
}

/** A statement's own text. */
export function textOf(step: StatementStep, statement: Statement): string {
  return step.bytes.subarray(statement.offset, statement.offset + statement.length).toString("utf8");
}
