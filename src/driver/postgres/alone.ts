import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { Statement } from "../../migration/migration.ts";
import type { StatementStep } from "../driver.ts";
import { bodyFailure } from "./body-failure.ts";
import { isConnectionLoss } from "./failure.ts";
import { assertIndexIsValid, builtIndex, dropInvalidIndex } from "./index-build.ts";
import { preludeOf } from "./session-setting.ts";
import { assertMayGoOn, assertMayStart, placeOf, recordFailure, type Task } from "./statement-task.ts";
import { runMark } from "./transaction.ts";

/** What PostgreSQL refuses inside a transaction; its checkpoint follows it. */
export async function runAlone(task: Task, kind: Statement["kind"]): Promise<void> {
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
export function assertNoSettingsOutside(step: StatementStep): void {
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
