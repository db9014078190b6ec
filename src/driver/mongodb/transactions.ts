import type { ClientSession } from "mongodb";

import { RunnerError } from "../../error.ts";
import { readCommands } from "../../migration/mongo/read-commands.ts";
import { factsOf } from "../../migration/mongo/command-kind.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type {
  AppliedSteps,
  SessionSettings,
  StatementProgress,
  StatementStep,
  TransactionStep,
} from "../session.ts";
import type { Bench } from "./bench.ts";
import { toCommandDocument, type CommandDocument } from "./bson.ts";
import { bodyFailure } from "./body-failure.ts";
import { isTooOld, mayTryAgain } from "./retry.ts";
import { sendCommand } from "./send-command.ts";
import { addDone, addFailed, type WholeBody } from "./whole-entry.ts";

/** Runs bodies, each in one transaction with its history entry. */
export async function applyInTransactions(
  bench: Bench,
  steps: readonly TransactionStep[],
  settings: SessionSettings,
): Promise<AppliedSteps> {
  const done: { readonly durationMs: number }[] = [];
  for (const step of steps) {
    try {
      const { commands } = readCommands(Buffer.from(step.sql), step.path);
      done.push(await applyOne({ bench, step, settings, commands }));
    } catch (cause) {
      if (!(cause instanceof BodyFailed)) throw cause;
      return { done, failure: cause.failure };
    }
  }
  return { done, failure: null };
}

/**
 * A body of commands that could run one by one, in one transaction, as `x-transaction-mode=true` of the URL asks.
 *
 * @throws RunnerError `STATEMENT_REFUSED` - one of them cannot; `MIGRATION_FAILED` with the entry recorded
 */
export async function applyAtOnce(
  bench: Bench,
  step: StatementStep,
  settings: SessionSettings,
  onProgress: (progress: StatementProgress) => void,
): Promise<{ readonly durationMs: number }> {
  const { commands } = readCommands(step.bytes, step.path);
  assertTransactional(commands, step);
  try {
    const applied = await applyOne({ bench, step, settings, commands });
    onProgress({ kind: "statement", done: commands.length });
    return applied;
  } catch (cause) {
    throw cause instanceof BodyFailed ? cause.failure : cause;
  }
}

/** A body in one transaction. */
interface OneBody extends WholeBody {
  readonly step: TransactionStep | StatementStep;
  readonly commands: readonly Command[];
}

/** It failed, its entry says so, and nothing of it is there. */
class BodyFailed extends Error {
  readonly failure: RunnerError;

  constructor(failure: RunnerError) {
    super(failure.message, { cause: failure });
    this.failure = failure;
  }
}

/** Tried again as long as it merely met others, or the server was away; what came of a commit is the bench's care. */
async function applyOne(body: OneBody): Promise<{ readonly durationMs: number }> {
  const { bench, step, settings, commands } = body;
  if (!bench.database.hasTransactions) throw new BodyFailed(await addFailed(body, withoutTransactions(step)));
  const documents = commands.map((command) => toCommandDocument(command, step.path));
  for (let attempt = 1; ; attempt += 1) {
    bench.kept.assertTrusted();
    const startedAt = performance.now();
    const place = { index: 0 };
    try {
      return await bench.transaction((session) => send(body, documents, session, place, startedAt));
    } catch (cause) {
      if (bench.kept.signal.aborted) bench.kept.assertTrusted();
      if (cause instanceof RunnerError) throw cause;
      if (!isTooOld(cause, startedAt) && (await mayTryAgain(bench, step, settings, cause, attempt))) continue;
      const command = commands[place.index];
      const failure = bodyFailure(step, cause, {
        command,
        index: place.index,
        of: commands.length,
        extent: "body",
      });
      throw new BodyFailed(await addFailed(body, failure));
    }
  }
}

/** The commands, and then the entry. */
async function send(
  body: OneBody,
  documents: readonly CommandDocument[],
  session: ClientSession,
  place: { index: number },
  startedAt: number,
): Promise<{ readonly durationMs: number }> {
  const { bench, step, settings } = body;
  const maxTimeMs = step.statementTimeoutMs ?? settings.statementTimeoutMs;
  const { signal } = bench.kept;
  for (const [index, document] of documents.entries()) {
    place.index = index;
    await sendCommand(bench.database.db, document, { key: bench.key(), maxTimeMs, signal, session });
  }
  place.index = documents.length;
  return addDone(body, session, startedAt);
}

function assertTransactional(commands: readonly Command[], step: StatementStep): void {
  const index = commands.findIndex((command) => factsOf(command).kind !== "transactional");
  const command = commands[index];
  if (command === undefined) return;
  throw new RunnerError(
    "STATEMENT_REFUSED",
    `${step.path}:${command.line}: command ${index + 1} of ${commands.length} (${command.name}) cannot run in a transaction, which x-transaction-mode of the URL asks for`,
    {
      hint: "give the command a migration of its own and leave x-transaction-mode out of the URL",
      fields: { migration: step.path, line: command.line, statement: index + 1, statements: commands.length },
    },
  );
}

function withoutTransactions(step: Pick<TransactionStep, "path" | "migration">): RunnerError {
  return new RunnerError(
    "DATABASE_UNSUPPORTED",
    `"${step.path}" is to run in one transaction, and this server has none: it is no member of a replica set`,
    {
      hint: 'run the server as a replica set, or let the commands run one by one: {"$lockkeeper": {"tx": "none"}} as the first element',
      fields: { migration: step.path, version: step.migration.version },
    },
  );
}
