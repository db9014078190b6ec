import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { StatementStep } from "../driver.ts";
import { bodyFailure } from "./body-failure.ts";
import { isConnectionLoss, serverError } from "./failure.ts";
import { probes } from "./probe/probes.ts";
import { mayTryAgain } from "./retry.ts";
import { preludeOf } from "./session-setting.ts";
import { noteBefore, prepareSession, settle, type SentNote } from "./settle.ts";
import { sqlstate } from "./sqlstate.ts";
import { assertMayGoOn, assertMayStart, placeOf, recordFailure, stop, type Task } from "./statement-task.ts";
import { runMark } from "./transaction.ts";

/** The kinds that PostgreSQL refuses inside a transaction. */
export type AloneKind = keyof typeof probes;

/**
 * What PostgreSQL refuses inside a transaction; its checkpoint follows it. What it is about is noted before it is sent,
 * so that whoever does not know how it ended can ask the database and go on.
 */
export async function runAlone(task: Task, kind: AloneKind): Promise<void> {
  const { bench, worker, step, index, settings, checkpoint, sql } = task;
  const probe = probes[kind];
  const lockTimeoutMs = lockTimeoutOf(task, kind);
  for (let attempt = 1; ;) {
    await assertMayStart(task);
    let note: SentNote | undefined;
    let messageOffset = 0;
    try {
      const statementTimeoutMs = step.statementTimeoutMs ?? settings.statementTimeoutMs;
      await prepareSession(task, { lockTimeoutMs, statementTimeoutMs });
      note = await noteBefore(task, probe);
      const mark = runMark(bench.key());
      messageOffset = mark.length;
      await bench.sendOn(worker.connection, mark + sql, lockTimeoutMs);
      const site = { bench, connection: worker.connection };
      if (probe.hasResult === undefined || (await probe.hasResult(site, note.before))) break;
      await worker.rollBack();
      continue;
    } catch (cause) {
      if (isConnectionLoss(cause) || worker.connection.isLost()) {
        await worker.regain(cause);
        if (note !== undefined) {
          const verdict = await settle(task, note);
          task.onProgress({ kind: "probed", statement: index + 1, verdict });
          if (verdict === "done") break;
        }
      } else {
        await worker.rollBack();
        // What the server said is known; only what a failed attempt leaves behind is still to be found out.
        if (!probe.leavesRests) await bench.lastWrite(checkpoint.noted(null));
        if (cause instanceof RunnerError) await stop(task, cause);
        await assertMayGoOn(task, cause);
        const isInTheWay = serverError(cause)?.sqlstate === sqlstate.duplicateTable;
        if (probe.leavesRests && note !== undefined && (await settle(task, note)) === "done" && !isInTheWay)
          break;
      }
      const mayRepeat = isConnectionLoss(cause) || kind !== "call";
      if (mayRepeat && (await mayTryAgain(bench, step, settings, cause, attempt))) {
        attempt += 1;
        continue;
      }
      await worker.write(checkpoint.noted(null));
      throw await recordFailure(task, bodyFailure(step, cause, placeOf(task, messageOffset)), "failed");
    }
  }
  await worker.rollBack();
  if (kind === "discard-all" || kind === "call") await worker.lockAgain();
  await worker.write(checkpoint.reached(index, sha256Hex(sql)));
}

/** A lock time-out in the middle of what runs concurrently would leave an invalid index, or half a partition, behind. */
function lockTimeoutOf({ worker, step, settings }: Task, kind: AloneKind): number {
  if (worker.isPooled) return 0;
  return step.lockTimeoutMs ?? (kind.endsWith("concurrently") ? 0 : settings.lockTimeoutMs);
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
