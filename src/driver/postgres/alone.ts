import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { StatementStep } from "../session.ts";
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
  const attempt: Attempt = { number: 1, note: undefined, messageOffset: 0 };
  for (;;) {
    await assertMayStart(task);
    try {
      if (await sendOnce(task, kind, attempt)) break;
    } catch (cause) {
      if (await hasTakenEffect(task, kind, attempt, cause)) break;
      const mayRepeat = isConnectionLoss(cause) || kind !== "call";
      if (!mayRepeat || !(await mayTryAgain(bench, step, settings, cause, attempt.number))) {
        await worker.write(checkpoint.noted(null));
        throw await recordFailure(
          task,
          bodyFailure(step, cause, placeOf(task, attempt.messageOffset)),
          "failed",
        );
      }
      attempt.number += 1;
    }
  }
  await worker.rollBack();
  if (kind === "discard-all" || kind === "call") await worker.lockAgain();
  await worker.write(checkpoint.reached(index, sha256Hex(sql)));
}

interface Attempt {
  /** from 1 */
  number: number;
  /** set once the statement may have been sent */
  note: SentNote | undefined;
  /** code points of the message before the statement */
  messageOffset: number;
}

/** False: the server took an index for ours that has turned out to be nobody's, and that is gone now. */
async function sendOnce(task: Task, kind: AloneKind, attempt: Attempt): Promise<boolean> {
  const { bench, worker, step, settings, sql } = task;
  const probe = probes[kind];
  const lockTimeoutMs = lockTimeoutOf(task, kind);
  const statementTimeoutMs = step.statementTimeoutMs ?? settings.statementTimeoutMs;
  attempt.note = undefined;
  attempt.messageOffset = 0;
  await prepareSession(task, { lockTimeoutMs, statementTimeoutMs });
  attempt.note = await noteBefore(task, probe);
  const mark = runMark(bench.key());
  attempt.messageOffset = mark.length;
  await bench.sendOn(worker.connection, mark + sql, lockTimeoutMs);
  const site = { bench, connection: worker.connection };
  const hasResult = probe.hasResult === undefined || (await probe.hasResult(site, attempt.note.before));
  if (!hasResult) await worker.rollBack();
  return hasResult;
}

/** After it failed, or nobody knows: whether it has taken effect all the same. What it left half done is cleared away. */
async function hasTakenEffect(
  task: Task,
  kind: AloneKind,
  { note }: Attempt,
  cause: unknown,
): Promise<boolean> {
  const { bench, worker, index, checkpoint } = task;
  const { leavesRests } = probes[kind];
  if (isConnectionLoss(cause) || worker.connection.isLost()) {
    await worker.regain(cause);
    if (note === undefined) return false;
    const verdict = await settle(task, note);
    task.onProgress({ kind: "probed", statement: index + 1, verdict });
    return verdict === "done";
  }
  await worker.rollBack();
  // What the server said is known; only what a failed attempt leaves behind is still to be found out.
  if (!leavesRests) await bench.lastWrite(checkpoint.noted(null));
  if (cause instanceof RunnerError) await stop(task, cause);
  await assertMayGoOn(task, cause);
  if (!leavesRests || note === undefined) return false;
  const isThere = (await settle(task, note)) === "done";
  return isThere && serverError(cause)?.sqlstate !== sqlstate.duplicateTable;
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
