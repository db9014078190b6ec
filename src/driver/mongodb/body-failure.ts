import { RunnerError, type RunnerErrorCode } from "../../error.ts";
import type { EntryError } from "../../history/entry.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type { FailureWords } from "../program.ts";
import type { StatementStep, TransactionStep } from "../session.ts";
import { commandError, errorCode, type CommandError } from "./command-error.ts";

/** Which command failed, and what the database is like after it. */
export interface FailedPlace {
  /** undefined: what failed is none of the body's commands, but the transaction around them */
  readonly command: Command | undefined;
  readonly index: number;
  readonly of: number;
  /** it failed in a transaction of its own or of the whole body, so nothing of it stays */
  readonly extent: "body" | "command" | "outside";
  /** documents that a backfill had changed before */
  readonly rows?: number;
  /** the time limit is the server's lack of sight, and not the user's wish */
  readonly isLimitOurs?: boolean;
}

/** What a body's failure is to a person: file and line, the server's words without values, and the state the database is in. */
export function bodyFailure(
  step: Pick<TransactionStep | StatementStep, "path" | "migration" | "direction">,
  cause: unknown,
  place: FailedPlace,
): RunnerError {
  const { command, index, of } = place;
  const where = command === undefined ? step.path : `${step.path}:${command.line}`;
  const which = command === undefined ? "" : `command ${index + 1} of ${of} (${command.name}): `;
  const { code, message, hint, fields } = wordsOf(cause, place);
  return new RunnerError(code, `${where}: ${which}${message}`, {
    hint,
    fields: {
      migration: step.path,
      version: step.migration.version,
      direction: step.direction,
      ...(command === undefined ? {} : { line: command.line, statement: index + 1 }),
      statements: of,
      ...fields,
    },
    cause,
  });
}

/** What the server said of a body that is one transaction, without the place of it. */
export function serverWords(cause: unknown): FailureWords {
  return { ...wordsOf(cause, { command: undefined, index: 0, of: 1, extent: "body" }), cause };
}

function wordsOf(cause: unknown, place: FailedPlace) {
  const told = commandError(cause) ?? lost;
  const name = [told.codeName, told.code].filter((part) => part !== undefined).join(" ");
  return {
    ...meaning(told, place),
    message: `${name}: ${told.message}; ${stateNow(told, place)}`,
    fields: {
      ...(told.code === undefined ? {} : { mongoCode: told.code }),
      ...(told.codeName === undefined ? {} : { codeName: told.codeName }),
    },
  };
}

/** The part of an error that is kept in the database and shown to callers. */
export function toEntryError(error: RunnerError): EntryError {
  return { code: error.code, message: error.message, hint: error.hint ?? null, fields: error.fields };
}

const lost: CommandError = {
  code: undefined,
  codeName: "connection lost",
  message: "the connection was lost again and again",
  writeErrors: undefined,
  isUnconfirmed: false,
};

function stateNow(told: CommandError, { index, of, extent, rows }: FailedPlace): string {
  if (extent === "body") return "nothing of this migration was applied";
  if (rows !== undefined)
    return rows === 0
      ? "none of its documents was changed"
      : `its earlier ranges, of ${rows} changed documents, are done and are not repeated`;
  const before =
    index === 0
      ? `none of its ${of} commands took effect`
      : `its first ${index} of ${of} commands took effect`;
  if (told.isUnconfirmed) return `${before}, and this one did on the primary`;
  return extent === "command" || told.writeErrors === undefined
    ? before
    : `${before}, and a part of this one may have`;
}

function meaning(told: CommandError, { isLimitOurs }: FailedPlace): { code: RunnerErrorCode; hint: string } {
  const failed = (hint: string): { code: RunnerErrorCode; hint: string } => ({
    code: "MIGRATION_FAILED",
    hint,
  });
  switch (told.code) {
    case errorCode.maxTimeMsExpired:
      return failed(
        isLimitOurs === true
          ? 'this server does not show what it works on, so a command without a limit is given that of the lease: say how long it may take, {"$lockkeeper": {"statement_timeout": "10m"}}, as the first element'
          : "it took too long: raise statement_timeout, or do less in one migration",
      );
    case errorCode.transactionExceededLifetime:
    case errorCode.noSuchTransaction:
    case errorCode.transactionTooLarge:
    case errorCode.transactionTooLargeForCache:
      return failed(
        'a transaction must not be so long or so large: write it as a backfill, or without one, {"$lockkeeper": {"tx": "none"}} as the first element',
      );
    case errorCode.operationNotSupportedInTransaction:
      return failed('this must run outside a transaction: put {"$lockkeeper": {"tx": "none"}} first');
    case 13:
      return failed("grant the role that this command needs to the migration's user, and run again");
    case 100:
      return failed("ask for no more members than there are in the command's writeConcern");
    case 112:
      return failed("it clashed with the application again and again: run again when it is quieter");
    case undefined:
      return failed("look what ends the connection, and run again: it goes on there");
    default:
      return failed(
        told.isUnconfirmed
          ? "look at the replica set's members, and run again: it goes on there"
          : "correct the migration, publish it and run again",
      );
  }
}
