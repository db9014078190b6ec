import { countCodePoints } from "./position.ts";
import { scanSql } from "./scan-sql.ts";
import type { ScannedStatement } from "./scan-sql.ts";
import { SqlLexer } from "./sql-lexer.ts";

/** What to send of a body that runs in one transaction. */
export interface SqlToSend {
  readonly sql: string;
  /** code points of the body before `sql`: add them to an error's position to find its place in the file */
  readonly offset: number;
}

/**
 * A body's SQL without its byte order mark and without the `BEGIN` and `COMMIT` that enclose all of it:
 * the transaction is ours, so that the history row commits with the body.
 */
export function sqlToSend(text: string): SqlToSend {
  const inner = unwrapTransaction(text) ?? { start: bodyStart(text), end: text.length };
  return { sql: text.slice(inner.start, inner.end), offset: countCodePoints(text, 0, inner.start) };
}

/**
 * The range between the first statement, where it is a plain `BEGIN` or `START TRANSACTION`, and the last,
 * where it is a plain `COMMIT` or `END` (UTF-16 indexes); undefined for all other bodies.
 */
export function unwrapTransaction(text: string): ScannedStatement | undefined {
  const lexer = new SqlLexer(text, bodyStart(text));
  if (!lexer.next() || lexer.kind !== "word" || !/^(begin|start)$/i.test(lexer.text)) return undefined;
  const { statements, isSure } = scanSql(text);
  const first = statements[0];
  const last = statements.at(-1);
  if (!isSure || first === undefined || last === undefined || first === last) return undefined;
  if (!BEGIN.test(wordsOf(text, first)) || !COMMIT.test(wordsOf(text, last))) return undefined;
  const semicolon = new SqlLexer(text, first.end);
  semicolon.next();
  return { start: semicolon.end, end: last.start };
}

/** What these ask for is what our own transaction has. */
const BEGIN =
  /^(BEGIN( WORK| TRANSACTION)?|START TRANSACTION)( ISOLATION LEVEL READ (UN)?COMMITTED| READ WRITE| NOT DEFERRABLE| ,)*$/;
const COMMIT = /^(COMMIT|END)( WORK| TRANSACTION)?( AND NO CHAIN)?$/;

/** More than the longest statement that {@link BEGIN} can match. */
const MAX_TOKENS = 32;

/** Tokens in upper case, one space between, comments left out. */
function wordsOf(text: string, statement: ScannedStatement): string {
  const lexer = new SqlLexer(text, statement.start, statement.end);
  const words: string[] = [];
  while (words.length < MAX_TOKENS && lexer.next()) words.push(lexer.text.toUpperCase());
  return words.join(" ");
}

function bodyStart(text: string): number {
  return text.charCodeAt(0) === 0xfeff ? 1 : 0;
}
