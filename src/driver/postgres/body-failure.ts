import { RunnerError, type RunnerErrorCode } from "../../error.ts";
import type { EntryError } from "../../history/entry.ts";
import { countCodePoints, locate } from "../../migration/position.ts";
import { scanSql } from "../../migration/scan-sql.ts";
import type { StatementStep, TransactionStep } from "../session.ts";
import type { Blocker } from "./blocker.ts";
import { serverError, type ServerError } from "./failure.ts";
import { sqlstate } from "./sqlstate.ts";
import { statementsBeforeBody } from "./transaction.ts";

/** Where in the file the failed text began, and where in the message. */
export interface SentPlace {
  /** code points of the file before what was sent of it */
  readonly sqlOffset: number;
  /** code points of the message before that text */
  readonly messageOffset: number;
  /** statements of the message that the server completed before the text and in it, for an error without a position */
  readonly completed?: number;
  /** who was seen to keep the text waiting for a lock */
  readonly blocker: Blocker | undefined;
  /** index of the failed statement, for a body that runs statement by statement; `rows` that a backfill had changed before */
  readonly statement?: { readonly index: number; readonly of: number; readonly rows?: number };
}

/** What a body's failure is to a person: file, line and column, the server's own words, and the state the database is in. */
export function bodyFailure(
  step: TransactionStep | StatementStep,
  cause: unknown,
  place: SentPlace,
): RunnerError {
  const told = whatWasTold(cause);
  const codePoint = codePointOf(step, told, place);
  const at = codePoint === undefined ? undefined : locate(step.text, Math.max(codePoint, place.sqlOffset));
  const { code, message, hint, blocker } = inWords(told, place);
  const where = at === undefined ? step.path : `${step.path}:${at.line}:${at.column}`;
  return new RunnerError(code, `${where}: ${message}`, {
    hint,
    fields: {
      migration: step.path,
      version: step.migration.version,
      direction: step.direction,
      ...(at === undefined ? {} : { line: at.line, column: at.column }),
      ...(place.statement === undefined
        ? {}
        : { statement: place.statement.index + 1, statements: place.statement.of }),
      ...(blocker === undefined ? {} : { blocker: blocker.pid }),
      ...told.fields,
    },
    cause,
  });
}

/** What a server's error says, whatever was sent to it: nothing of where in a file that is. */
export function serverFailure(
  cause: unknown,
  blocker: Blocker | undefined,
): Pick<RunnerError, "code" | "message" | "hint" | "fields"> {
  const told = whatWasTold(cause);
  const { code, message, hint, blocker: held } = inWords(told, { blocker });
  return { code, message, hint, fields: { ...(held && { blocker: held.pid }), ...told.fields } };
}

function whatWasTold(cause: unknown): ServerError {
  return (
    serverError(cause) ?? {
      sqlstate: "08006",
      message: "the connection was lost again and again",
      hint: undefined,
      position: undefined,
      fields: { sqlstate: "08006" },
    }
  );
}

function inWords(told: ServerError, place: Pick<SentPlace, "blocker" | "statement">) {
  const { code, hint } = meaning(told);
  const blocker = code === "LOCK_TIMEOUT" ? place.blocker : undefined;
  const held = blocker === undefined ? "" : `, the lock is held by ${blocker.description}`;
  return {
    code,
    message: `${told.message} (SQLSTATE ${told.sqlstate})${held}; ${stateNow(told, place)}`,
    hint: [told.hint, hint].filter((part) => part !== undefined).join("; "),
    blocker,
  };
}

/** Where in the file it went wrong: where the server points, else the beginning of the statement that it had reached. */
function codePointOf(
  step: TransactionStep | StatementStep,
  server: ServerError,
  place: SentPlace,
): number | undefined {
  if (server.position !== undefined) return place.sqlOffset + server.position - 1 - place.messageOffset;
  if (place.statement !== undefined) return place.sqlOffset;
  if (!("sql" in step) || place.completed === undefined) return undefined;
  const statement = scanSql(step.sql).statements[place.completed - statementsBeforeBody];
  return statement === undefined
    ? undefined
    : place.sqlOffset + countCodePoints(step.sql, 0, statement.start);
}

/** The part of an error that is kept in the database and shown to callers. */
export function toEntryError(error: RunnerError): EntryError {
  return { code: error.code, message: error.message, hint: error.hint ?? null, fields: error.fields };
}

function stateNow(server: ServerError, place: Pick<SentPlace, "statement">): string {
  if (server.sqlstate === sqlstate.bodyEndedTransaction)
    return "it ended its transaction itself, so what it did before that may have stayed";
  if (place.statement === undefined) return "nothing of this migration was applied";
  const { index, of, rows } = place.statement;
  if (rows === 0) return "none of its rows was changed";
  if (rows !== undefined) return `its earlier ranges, of ${rows} changed rows, are done and are not repeated`;
  return index === 0
    ? `none of its ${of} statements took effect`
    : `its first ${index} of ${of} statements took effect`;
}

function meaning(server: ServerError): { code: RunnerErrorCode; hint: string } {
  const fix = "correct the migration, publish it and run again";
  switch (server.sqlstate) {
    case sqlstate.lockNotAvailable:
      return {
        code: "LOCK_TIMEOUT",
        hint: "run again when the session that holds the lock has ended, end it, or raise lock_timeout",
      };
    case sqlstate.deadlockDetected:
    case sqlstate.serializationFailure:
      return {
        code: "MIGRATION_FAILED",
        hint: "it clashed with the application again and again: run again when it is quieter",
      };
    case sqlstate.readOnlyTransaction:
      return { code: "DATABASE_READ_ONLY", hint: "connect to the primary, or make the database writable" };
    case sqlstate.diskFull:
      return { code: "DATABASE_FULL", hint: "free disk space on the server and run again" };
    case sqlstate.bodyEndedTransaction:
      return {
        code: "TRANSACTION_CONTROL",
        hint: "remove COMMIT, ROLLBACK and RESET ALL, or say -- lockkeeper: tx=none in the first line",
      };
    case sqlstate.queryCanceled:
      return {
        code: "MIGRATION_FAILED",
        hint: "it took too long: raise statement_timeout, or do less in one migration",
      };
    case "25001":
      return {
        code: "MIGRATION_FAILED",
        hint: "this statement must run outside a transaction: say -- lockkeeper: tx=none in the first line",
      };
    default:
      return { code: "MIGRATION_FAILED", hint: fix };
  }
}
