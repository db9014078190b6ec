import { factsOf } from "../../migration/mongo/command-kind.ts";
import { toCommandDocument, type CommandDocument } from "./bson.ts";
import { bodyFailure } from "./body-failure.ts";
import { commandError, isOutcomeUnknown } from "./command-error.ts";
import { probeOf, probes } from "./outcome.ts";
import type { Seen } from "./probe.ts";
import { mayTryAgain } from "./retry.ts";
import { sendCommand } from "./send-command.ts";
import type { Noted, SendLimit, SentNote } from "./sent-note.ts";
import { ended, firstSlackMs, isInTime, limitOf, noteBefore, seenIn, settle } from "./settle.ts";
import { assertMayStart, checksumOf, recordFailure, stop, type Task } from "./statement-task.ts";

/**
 * A command outside transactions; its checkpoint follows it. What it is about is noted before it is sent, so that
 * whoever does not know how it ended can ask the database and go on.
 *
 * @param known - `earlier`: what an earlier run noted of this very command, which has not taken effect, or only in part;
 * `ahead`: what this run has noted of it already, without sending it
 */
export async function runOutside(
  task: Task,
  { earlier, ahead }: { readonly earlier?: SentNote | undefined; readonly ahead?: Noted | undefined } = {},
): Promise<void> {
  const { bench, step, index, statement, settings, checkpoint } = task;
  const attempt: Attempt = {
    number: 1,
    seen: earlier === undefined ? undefined : seenIn(earlier),
    note: ahead?.note,
    wasUnknown: earlier !== undefined,
    isLimitOurs: false,
  };
  for (;;) {
    await assertMayStart(task);
    try {
      await sendOnce(task, attempt, ahead);
      break;
    } catch (cause) {
      if (await hasTakenEffect(task, attempt, cause)) break;
      if (!(await mayTryAgain(bench, step, settings, cause, attempt.number))) {
        const isUnconfirmed = commandError(cause)?.isUnconfirmed === true;
        await checkpoint.noted(isUnconfirmed && attempt.note !== undefined ? ended(attempt.note) : null);
        throw await recordFailure(task, failureOf(task, attempt, cause), "failed");
      }
      attempt.number += 1;
    }
  }
  await checkpoint.reached(index, checksumOf(step, statement));
}

interface Attempt {
  /** from 1 */
  number: number;
  /** what its probe saw before it was sent for the first time */
  seen: Seen | undefined;
  /** set once the command may have been sent */
  note: SentNote | undefined;
  /** of one that was sent before nobody knows the outcome for certain */
  wasUnknown: boolean;
  isLimitOurs: boolean;
}

async function sendOnce(task: Task, attempt: Attempt, ahead: Noted | undefined): Promise<void> {
  const { bench, step, command } = task;
  const isNoted = ahead !== undefined && attempt.number === 1 && isInTime(ahead.limit);
  const limit = isNoted ? ahead.limit : await noteInTime(task, attempt);
  attempt.isLimitOurs = limit.isOurs;
  if (attempt.note === undefined) throw new TypeError("nothing was noted");
  const document = await documentOf(task, attempt.note, toCommandDocument(command, step.path));
  const { signal } = bench.kept;
  await sendCommand(bench.database.db, document, { key: bench.key(), maxTimeMs: limit.maxTimeMs, signal });
}

/** Notes it, once more where that took so long that the note no longer says when it will have ended. */
async function noteInTime(task: Task, attempt: Attempt): Promise<SendLimit> {
  for (let slackMs = firstSlackMs; ; slackMs *= 2) {
    task.bench.kept.assertTrusted();
    const limit = await limitOf(task, slackMs);
    attempt.note = undefined;
    const note = await noteBefore(task, limit, { isRepeatable: isRepeatable(task), seen: attempt.seen });
    attempt.seen = seenIn(note);
    attempt.note = note;
    if (isInTime(limit)) return limit;
  }
}

async function documentOf(task: Task, note: SentNote, document: CommandDocument): Promise<CommandDocument> {
  const name = probeOf(task.command);
  const rest = name === undefined ? undefined : probes[name].rest;
  return rest === undefined ? document : rest(task.bench.database.db, seenIn(note), document);
}

/** By what the release says of it, or, where it was meant for a transaction, by its form. */
function isRepeatable({ statement, command }: Task): boolean {
  return (
    statement.kind === "repeatable" || (statement.kind === "transactional" && factsOf(command).isRepeatable)
  );
}

/** After it failed, or nobody knows: whether it has taken effect all the same. */
async function hasTakenEffect(task: Task, attempt: Attempt, cause: unknown): Promise<boolean> {
  const { bench, command } = task;
  const { signal } = bench.kept;
  if (signal.aborted) await stop(task, signal.reason);
  if (isOutcomeUnknown(cause)) {
    if (attempt.note === undefined) return false;
    attempt.wasUnknown = true;
    const hasAnswered = commandError(cause) !== undefined;
    return (await settle(task, hasAnswered ? ended(attempt.note) : attempt.note)) === "done";
  }
  const code = commandError(cause)?.code;
  if (commandError(cause) === undefined) throw cause;
  return attempt.wasUnknown && code !== undefined && factsOf(command).doneCodes.includes(code);
}

function failureOf(task: Task, { isLimitOurs }: Attempt, cause: unknown): ReturnType<typeof bodyFailure> {
  const { step, command, index } = task;
  const of = step.statements.length;
  return bodyFailure(step, cause, { command, index, of, extent: "outside", isLimitOurs });
}
