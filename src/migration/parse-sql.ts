import type * as LibpgQuery from "libpg-query";
import type { Node } from "libpg-query";
import { RunnerError } from "../error.ts";
import { unitIndex } from "./position.ts";
import { scanSql } from "./scan-sql.ts";
import type { ScannedStatement } from "./scan-sql.ts";
import { syntaxMessage } from "./syntax-message.ts";

export type { AlterTableCmd, DefElem, Node, RangeVar, WithClause } from "libpg-query";

/** Where one statement is in its text. */
export interface StatementRange {
  /** first byte in the text as UTF-8; a byte order mark counts */
  readonly offset: number;
  /** bytes up to the semicolon: blanks and comments before it count */
  readonly length: number;
}

/** Told of each statement of a text, in order. */
export interface StatementVisitor {
  /** one statement as PostgreSQL 18's own parser understood it */
  visit(statement: StatementRange & { readonly node: Node }): void;
  /** one that is too large to build its tree (a seed of many thousand rows), as the lexer sees it; false is `TOO_LARGE` */
  visitLarge(statement: StatementRange & { readonly scanned: ScannedStatement }): boolean;
}

/** Why the parser did not take a text, and where. */
export interface SyntaxProblem {
  /** the parser's own words, without a literal that they quote */
  readonly message: string;
  /** UTF-16 index */
  readonly index: number;
}

/**
 * Parses a text with PostgreSQL's own parser (libpg_query) and shows its statements to `visitor`.
 *
 * Large texts are parsed in parts, so that no more than one part's trees are in memory; hence the visitor.
 * Node kinds and fields are those of PostgreSQL's `parsenodes.h`.
 *
 * @returns the first problem; the statements of the parts before it were shown by then
 * @throws RunnerError `TOO_LARGE` — one statement so large or so deeply nested that the parser gives up
 */
export async function parseSql(text: string, visitor: StatementVisitor): Promise<SyntaxProblem | undefined> {
  const parser = await import("libpg-query");
  await parser.loadModule();
  let byteOffset = text.charCodeAt(0) === BOM ? BOM_BYTES : 0;
  for (const part of splitIntoParts(text)) {
    const piece = text.slice(part.start, part.end);
    const bytes = Buffer.byteLength(piece);
    if (isTangled(piece)) throw tooLarge();
    if (piece.length > MAX_PARSED_UNITS) {
      if (
        part.only === undefined ||
        !visitor.visitLarge({ ...rangeOf(text, part, part.only, byteOffset), scanned: part.only })
      )
        throw tooLarge();
    } else {
      const result = parsePart(parser, piece, part.start);
      if ("problem" in result) return result.problem;
      for (const { stmt, stmt_location = 0, stmt_len } of result.stmts) {
        if (stmt !== undefined)
          visitor.visit({
            offset: byteOffset + stmt_location,
            length: stmt_len ?? bytes - stmt_location,
            node: stmt,
          });
      }
    }
    byteOffset += bytes;
  }
  return undefined;
}

type Parser = Pick<typeof LibpgQuery, "parseSync" | "hasSqlDetails">;

const BOM = 0xfeff;
const BOM_BYTES = 3;

/** UTF-16 units of one part: its trees are some 90 times as large, and this keeps them near 25 MB. */
const PART_UNITS = 256 * 1024;

/** UTF-16 units of the largest statement whose tree is built. */
const MAX_PARSED_UNITS = 2 * 1024 * 1024;

interface Part {
  readonly start: number;
  readonly end: number;
  /** its statement, where it is the only one */
  readonly only?: ScannedStatement;
}

/** Cuts after whole statements; a text that the lexer is not sure of stays in one part. */
function splitIntoParts(text: string): readonly Part[] {
  const start = text.charCodeAt(0) === BOM ? 1 : 0;
  if (text.length <= PART_UNITS) return [{ start, end: text.length }];
  const { isSure, statements } = scanSql(text);
  if (!isSure) return [{ start, end: text.length }];
  const parts: Part[] = [];
  let partStart = start;
  let first: ScannedStatement | undefined;
  for (const [index, statement] of statements.entries()) {
    first ??= statement;
    const next = statements[index + 1];
    if (next !== undefined && next.end - partStart <= PART_UNITS) continue;
    const end = next === undefined ? text.length : statement.end;
    parts.push({ start: partStart, end, ...(first === statement && { only: statement }) });
    partStart = end;
    first = undefined;
  }
  if (partStart < text.length) parts.push({ start: partStart, end: text.length });
  return parts;
}

function rangeOf(text: string, part: Part, statement: ScannedStatement, partOffset: number): StatementRange {
  return {
    offset: partOffset + Buffer.byteLength(text.slice(part.start, statement.start)),
    length: Buffer.byteLength(text.slice(statement.start, statement.end)),
  };
}

function parsePart(
  parser: Parser,
  piece: string,
  partStart: number,
):
  | { readonly stmts: readonly { stmt?: Node; stmt_location?: number; stmt_len?: number }[] }
  | { readonly problem: SyntaxProblem } {
  // the parser takes no empty text, and a part may begin with the semicolon of the one before
  if (piece === "") return { stmts: [] };
  try {
    return { stmts: parser.parseSync(piece).stmts ?? [] };
  } catch (thrown) {
    if (!parser.hasSqlDetails(thrown) || thrown.sqlDetails === undefined || isExhausted(thrown.message)) {
      throw tooLarge(thrown);
    }
    const { message, cursorPosition } = thrown.sqlDetails;
    return {
      problem: { message: syntaxMessage(message), index: partStart + unitIndex(piece, cursorPosition) },
    };
  }
}

const OPERATOR_RUN = /[~!@#^&|`?+\-*/%<>=]{1000,}/g;
/** More than any frame around a comment has. */
const MAX_TANGLES = 100;

/**
 * Whether operators or comments follow each other without a gap by the hundred: PostgreSQL's lexer reads all that is left
 * of such a run for each of them, seconds for 64 KiB and hours for 16 MiB.
 */
function isTangled(piece: string): boolean {
  for (const [run] of piece.matchAll(OPERATOR_RUN)) {
    let tangles = 0;
    for (const _ of run.matchAll(/\/\*|\+/g)) if (++tangles > MAX_TANGLES) return true;
  }
  return false;
}

function tooLarge(cause?: unknown): RunnerError {
  return new RunnerError("TOO_LARGE", "a statement is too large or too deeply nested to be analysed", {
    hint: "split it into several statements",
    cause,
  });
}

function isExhausted(message: string): boolean {
  return message.startsWith("memory exhausted");
}
