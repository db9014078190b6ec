import { RunnerError } from "../error.ts";
import type { RunnerErrorCode } from "../error.ts";
import type { SyntaxProblem } from "./parse-sql.ts";
import { locateUnit } from "./position.ts";
import type { SqlScan } from "./scan-sql.ts";
import type { SqlBody } from "./sql-body.ts";
import { SqlLexer } from "./sql-lexer.ts";
import type { OpenToken } from "./sql-lexer.ts";
import { COPY_FROM_STDIN } from "./statement-facts.ts";
import type { Refusal } from "./statement-facts.ts";

/** What the parser did not take, told as the mistake it most likely is. */
export function problemError(body: SqlBody, scan: SqlScan, problem: SyntaxProblem): RunnerError {
  for (const statement of scan.statements) {
    if (statement.start <= problem.index && isCopyFromStdin(body.text, statement.start, statement.end)) {
      return refusalError(body, statement.start, COPY_FROM_STDIN);
    }
  }
  if (scan.backslash !== undefined && scan.backslash <= problem.index)
    return refusalError(body, scan.backslash, PSQL_COMMAND);
  if (scan.open !== undefined && scan.open.index <= problem.index) return openError(body, scan.open);
  return errorAt(
    body,
    problem.index,
    "SQL_SYNTAX",
    problem.message,
    "correct it; PostgreSQL 18's parser was asked",
  );
}

/** `SQL_OPEN`: a quote or comment without an end. */
export function openError(body: SqlBody, { what, index }: OpenToken): RunnerError {
  return errorAt(body, index, "SQL_OPEN", `the ${what} that begins here has no end`, "close it");
}

/** `STATEMENT_REFUSED`: a statement that no migration may hold, or not this way; `index` in UTF-16 code units, as below. */
export function refusalError(body: SqlBody, index: number, refusal: Refusal): RunnerError {
  return errorAt(body, index, "STATEMENT_REFUSED", refusal.what, refusal.hint);
}

/** `TRANSACTION_CONTROL`: the transaction is ours. */
export function controlError(body: SqlBody, index: number, what: string): RunnerError {
  return errorAt(
    body,
    index,
    "TRANSACTION_CONTROL",
    what,
    "remove it: the migration's transaction is opened and committed together with its history row",
  );
}

/** `BACKFILL`: a file whose header makes it a backfill, which it cannot be. */
export function backfillError(body: SqlBody, index: number, what: string, hint: string): RunnerError {
  return errorAt(body, index, "BACKFILL", what, hint);
}

function errorAt(
  { text, path }: SqlBody,
  index: number,
  code: RunnerErrorCode,
  what: string,
  hint: string,
): RunnerError {
  const { line, column } = locateUnit(text, index);
  return new RunnerError(code, `${path}:${line}:${column}: ${what}`, {
    hint,
    fields: { migration: path, line, column },
  });
}

function isCopyFromStdin(text: string, start: number, end: number): boolean {
  const lexer = new SqlLexer(text, start, end);
  if (!lexer.next() || lexer.text.toUpperCase() !== "COPY") return false;
  for (let previous = ""; lexer.next() && lexer.kind !== "string";) {
    const word = lexer.text.toUpperCase();
    if (previous === "FROM") return word === "STDIN";
    previous = word;
  }
  return false;
}

const PSQL_COMMAND: Refusal = {
  what: "a psql command; only SQL can be sent to the server",
  hint: "remove it (newer pg_dump writes \\restrict and \\unrestrict lines, which can simply go)",
};
