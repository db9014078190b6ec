import { RunnerError } from "../../error.ts";
import { factsOf } from "../../migration/mongo/command-kind.ts";
import { readCommands } from "../../migration/mongo/read-commands.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { runBackfill } from "./backfill.ts";
import type { Bench } from "./bench.ts";
import { toCommandDocument } from "./bson.ts";
import { bodyFailure } from "./body-failure.ts";
import { openCheckpoint, type NextBody } from "./checkpoint.ts";
import { commandError, errorCode } from "./command-error.ts";
import { runOutside } from "./outside.ts";
import { mayTryAgain } from "./retry.ts";
import { probeOf } from "./outcome.ts";
import { sendCommand } from "./send-command.ts";
import type { SentNote } from "./sent-note.ts";
import { plainNote, settle } from "./settle.ts";
import {
  assertMayStart,
  checksumOf,
  commandsOf,
  recordFailure,
  statementTimeoutOf,
  stop,
  type Body,
  type Task,
} from "./statement-task.ts";
import { applyAtOnce } from "./transactions.ts";

/**
 * A body command by command, each checkpointed. On a replica set a command that can be is one transaction with its
 * checkpoint and the fence, so only for the others can a crash leave in doubt whether they took effect.
 *
 * @param next - the body that will follow: where its first command may be repeated, it is noted with the end of this one
 * @throws RunnerError `MIGRATION_FAILED` with the entry recorded; `NEEDS_ATTENTION` when an outcome cannot be known
 */
export async function applyStatements(
  bench: Bench,
  step: StatementStep,
  settings: SessionSettings,
  onProgress: (progress: StatementProgress) => void,
  next?: StatementStep,
): Promise<{ readonly durationMs: number }> {
  if (step.statements.some(({ kind }) => kind === "backfill"))
    return runBackfill(bench, step, settings, onProgress);
  const startedAt = performance.now();
  const commands = commandsOf(step);
  const hasBegun = step.resumeAt > 0 || (step.unfinished?.checkpoint ?? null) !== null;
  if (bench.database.isOneTransaction && !hasBegun) return applyAtOnce(bench, step, settings, onProgress);
  const ahead = bench.entries.takeAhead(step);
  const checkpoint = openCheckpoint({ bench, step, settings }, ahead?.begun, nextBody(bench, next, settings));
  // The note of its first command begins the entry of a body that has nothing behind it.
  if (hasBegun || step.statements[0]?.kind === "transactional") await checkpoint.begin();
  const body: Body = { bench, step, settings, checkpoint, onProgress };
  const { from, earlier } = await settleUnfinished(body);
  for (const [index, command] of commands.entries()) {
    const statement = step.statements[index];
    if (index < from || statement === undefined) continue;
    const task: Task = { ...body, command, statement, index };
    if (statement.kind === "transactional" && bench.database.hasTransactions) await runInTransaction(task);
    else await runOutside(task, index === from ? { earlier, ahead: ahead?.noted } : {});
    onProgress({ kind: "statement", done: index + 1 });
  }
  await checkpoint.done();
  return { durationMs: performance.now() - startedAt };
}

/** What can be begun ahead: nothing of it would have to be found out first, or asked of a person after a crash. */
function nextBody(
  bench: Bench,
  step: StatementStep | undefined,
  settings: SessionSettings,
): NextBody | undefined {
  const [statement] = step?.statements ?? [];
  if (step === undefined || statement?.kind !== "repeatable" || step.unfinished !== null) return undefined;
  if (step.resumeAt > 0 || bench.database.isOneTransaction) return undefined;
  const command = firstCommand(step);
  if (command === undefined || probeOf(command) !== undefined) return undefined;
  const place = { index: 0, sha256: checksumOf(step, statement) };
  return { step, note: () => plainNote({ bench, step, settings }, command, place) };
}

/** What is wrong with a body is said when its own turn comes. */
function firstCommand({ bytes, path }: StatementStep): Command | undefined {
  try {
    return readCommands(bytes, path).commands[0];
  } catch {
    return undefined;
  }
}

interface GoOn {
  /** index of the command to go on at */
  readonly from: number;
  /** what was noted of that very command, where it is not done, or only in part */
  readonly earlier?: SentNote;
}

/**
 * An earlier run was cut off while a command was under way. Its note tells what it was about, also when the file has
 * been corrected since: what has taken effect then counts as any other done command, and may not have changed.
 */
async function settleUnfinished(body: Body): Promise<GoOn> {
  const { step, checkpoint, onProgress } = body;
  const { resumeAt: index } = step;
  const note = step.unfinished?.checkpoint;
  if (note?.kind !== "sent" || note.statement !== index) return { from: index };
  const statement = step.statements[index];
  const isSame = statement !== undefined && checksumOf(step, statement) === note.sha256;
  if ((await settle(body, note)) !== "done") {
    if (isSame) return { from: index, earlier: note };
    await checkpoint.noted(null);
    return { from: index };
  }
  await checkpoint.reached(index, note.sha256);
  onProgress({ kind: "statement", done: index + 1 });
  if (isSame) return { from: index + 1 };
  throw await recordFailure(body, changedMeanwhile(step, index), "failed");
}

function changedMeanwhile(step: StatementStep, index: number): RunnerError {
  return new RunnerError(
    "CHANGED_FILE",
    `command ${index + 1} of "${step.path}" was changed after it had taken effect: an earlier run was cut off while it was under way, and it is done`,
    {
      hint: `keep the first ${index + 1} commands as they were, and correct only what follows`,
      fields: { migration: step.path, version: step.migration.version, statement: index + 1 },
    },
  );
}

/** Commits with its checkpoint, so after a lost connection the entry says whether it took effect. */
async function runInTransaction(task: Task): Promise<void> {
  const { bench, step, index, statement, command, settings, checkpoint } = task;
  const document = toCommandDocument(command, step.path);
  const maxTimeMs = statementTimeoutOf(task);
  for (let attempt = 1; ; attempt += 1) {
    await assertMayStart(task);
    try {
      await bench.transaction(async (session) => {
        await sendCommand(bench.database.db, document, {
          key: bench.key(),
          maxTimeMs,
          session,
          signal: bench.kept.signal,
        });
        await checkpoint.reached(index, checksumOf(step, statement), session);
      });
      return;
    } catch (cause) {
      if (bench.kept.signal.aborted) await stop(task, bench.kept.signal.reason);
      if (cause instanceof RunnerError) throw cause;
      if (isTooMuch(cause) && factsOf(command).isRepeatable) return runOutside(task);
      if (!isTooMuch(cause) && (await mayTryAgain(bench, step, settings, cause, attempt))) continue;
      const of = step.statements.length;
      const failure = bodyFailure(step, cause, { command, index, of, extent: "command" });
      throw await recordFailure(task, failure, "failed");
    }
  }
}

/** Larger or longer than the server lets a transaction be, so that the next try would end the same way. */
function isTooMuch(cause: unknown): boolean {
  const code = commandError(cause)?.code;
  return (
    code === errorCode.transactionTooLarge ||
    code === errorCode.transactionTooLargeForCache ||
    code === errorCode.transactionExceededLifetime
  );
}
