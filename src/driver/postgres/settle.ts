import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { locate } from "../../migration/position.ts";
import type { ProbeVerdict } from "../session.ts";
import { deathSettings } from "./death.ts";
import { databaseFailure, isConnectionLoss, serverError } from "./failure.ts";
import { probes } from "./probe/probes.ts";
import type { Probe } from "./probe/probe.ts";
import { preludeOf } from "./session-setting.ts";
import { retryableBody } from "./sqlstate.ts";
import { recordFailure, stop, textOf, type Task } from "./statement-task.ts";

/** What was noted of a statement before it was sent. */
export type SentNote = Extract<StatementCheckpoint, { readonly kind: "sent" }>;

/** A body whose statement at `index` may have begun; the file may have changed since, so there is no text of it. */
export type Unsettled = Omit<Task, "statement" | "sql">;

/** Tries of finding out and clearing away, when the connection is lost again or others hold the locks. */
const mostTries = 10;
const delayMs = { first: 200, longest: 5_000 };

/** Reads what the statement is about, and notes it: whoever finds the entry after a crash needs no more than that. */
export async function noteBefore(task: Task, probe: Probe): Promise<SentNote> {
  const { bench, worker, checkpoint, statement, index, sql } = task;
  const seen = await probe.look({ bench, connection: worker.connection }, sql);
  const note: SentNote = {
    kind: "sent",
    statement: index,
    sha256: sha256Hex(sql),
    before: { ...seen, kind: statement.kind },
  };
  await worker.write(checkpoint.noted(note));
  return note;
}

/**
 * Finds out what became of a statement that was sent. No backend works on it any more: `Worker` has waited for that.
 *
 * @throws RunnerError `NEEDS_ATTENTION` - nobody can tell, as the entry then says too
 */
export async function settle(task: Unsettled, note: SentNote): Promise<ProbeVerdict> {
  const { bench, worker } = task;
  const probe = probeOf(note);
  for (let attempt = 1; ; attempt += 1) {
    try {
      await prepareSession(task, { lockTimeoutMs: 0, statementTimeoutMs: 0 });
      const verdict = await probe?.settle({ bench, connection: worker.connection }, note.before);
      if (verdict === undefined) throw await recordFailure(task, undecided(task, note), "needs_attention");
      await worker.rollBack();
      return verdict;
    } catch (cause) {
      if (cause instanceof RunnerError && cause.code === "NEEDS_ATTENTION") throw cause;
      await assertMayTryAgain(task, cause, attempt);
    }
  }
}

/** Limits, server-side death detection and the file's own settings, for what is sent next; a pooler would give them to others. */
export async function prepareSession(
  { bench, worker, step, index }: Pick<Task, "bench" | "worker" | "step" | "index">,
  limits: { readonly lockTimeoutMs: number; readonly statementTimeoutMs: number },
): Promise<void> {
  if (worker.isPooled) return;
  const settings = [
    ["lock_timeout", limits.lockTimeoutMs],
    ["statement_timeout", limits.statementTimeoutMs],
    ...deathSettings(bench.facts),
  ].map(([name, value]) => `SET ${name} = '${value}'`);
  await worker.connection.send([...settings, ...preludeOf(step, index)].join("; "));
}

/** The probe of the kind that the statement had when it was sent. */
function probeOf({ before: { kind } }: SentNote): Probe | undefined {
  return typeof kind === "string" && Object.hasOwn(probes, kind)
    ? probes[kind as keyof typeof probes]
    : undefined;
}

async function assertMayTryAgain(task: Unsettled, cause: unknown, attempt: number): Promise<void> {
  const { bench, worker } = task;
  if (isConnectionLoss(cause) || worker.connection.isLost()) {
    if (attempt >= mostTries) throw databaseFailure(cause, bench.shownUrl);
    return worker.regain(cause);
  }
  await worker.rollBack();
  if (cause instanceof RunnerError) await stop(task, cause);
  await bench.assertMayGoOn(cause).catch((reason: unknown) => stop(task, reason));
  const code = serverError(cause)?.sqlstate;
  if (attempt >= mostTries || code === undefined || !retryableBody.has(code))
    throw await recordFailure(task, notCleared(task, cause), "failed");
  const waitMs = Math.min(delayMs.first * 2 ** (attempt - 1), delayMs.longest) * (0.5 + Math.random());
  await sleep(waitMs, undefined, { signal: bench.kept.signal }).catch(() => undefined);
}

function undecided(task: Unsettled, note: SentNote): RunnerError {
  const { step, index } = task;
  const { kind } = note.before;
  const statement = step.statements[index];
  const isSame = statement !== undefined && sha256Hex(textOf(step, statement)) === note.sha256;
  const at = isSame ? placeIn(step, statement.offset) : undefined;
  const name = typeof kind === "string" ? kind.replaceAll("-", " ").toUpperCase() : "of an unknown kind";
  const what = `${name}${at === undefined ? "" : ` in line ${at.line}`}`;
  return new RunnerError(
    "NEEDS_ATTENTION",
    `"${step.path}" (${step.direction}): the connection was lost, or the runner died, while statement ${index + 1} of ${step.statements.length} (${what}) was under way, and nothing in the database tells whether it took effect`,
    {
      hint: 'look whether what it was to change is changed, then say so: lockkeeper repair --as applied|not-applied --reason "…"',
      fields: { ...fieldsOf(task), ...(at === undefined ? {} : { line: at.line, column: at.column }) },
    },
  );
}

function notCleared(task: Unsettled, cause: unknown): RunnerError {
  const { step, index } = task;
  const server = serverError(cause);
  return new RunnerError(
    "MIGRATION_FAILED",
    `"${step.path}" (${step.direction}): what statement ${index + 1} left half done could not be cleared away: ${server === undefined ? "an unexpected failure" : `${server.message} (SQLSTATE ${server.sqlstate})`}`,
    {
      hint: "remove that cause and run again: it goes on there",
      fields: { ...fieldsOf(task), ...server?.fields },
      cause,
    },
  );
}

function fieldsOf({ step, index }: Unsettled): Record<string, string | number> {
  return {
    migration: step.path,
    version: step.migration.version,
    direction: step.direction,
    statement: index + 1,
    statements: step.statements.length,
  };
}

function placeIn(step: Task["step"], offset: number): ReturnType<typeof locate> {
  const before = step.bytes.subarray(0, offset).toString("utf8");
  return locate(step.text, [...before].length);
}
