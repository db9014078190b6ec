import type { Node } from "libpg-query";
import { RunnerError } from "../error.ts";
import { unitIndex } from "./position.ts";
import { scanSql } from "./scan-sql.ts";
import type { ScannedStatement } from "./scan-sql.ts";

export type { AlterTableCmd, ColumnDef, Constraint, DefElem, Node, RangeVar, WithClause } from "libpg-query";

/** One statement as PostgreSQL 18's own parser understood it. */
export interface ParsedStatement {
  /** first byte in the text as UTF-8; a byte order mark counts */
  readonly offset: number;
  /** bytes up to the semicolon: blanks and comments before it count */
  readonly length: number;
  readonly node: Node;
}

/** Why the parser did not take a text, and where. */
export interface SyntaxProblem {
  /** the parser's own words; a quoted piece of the text is cut short */
  readonly message: string;
  /** UTF-16 index */
  readonly index: number;
}

/**
 * Parses a text with PostgreSQL's own parser (libpg_query) and shows each statement to `visit`, in order.
 *
 * Large texts are parsed in parts, so that no more than one part's trees are in memory; hence the visitor.
 * Node kinds and fields are those of PostgreSQL's `parsenodes.h`.
 *
 * @returns the first problem; the statements of the parts before it were shown by then
 * @throws RunnerError `TOO_LARGE` — one statement so large or so deeply nested that the parser gives up
 */
export async function parseSql(text: string, visit: (statement: ParsedStatement) => void): Promise<SyntaxProblem | undefined> {
  const parser = await import("libpg-query");
  await parser.loadModule();
  let byteOffset = text.charCodeAt(0) === BOM ? BOM_BYTES : 0;
  for (const part of splitIntoParts(text)) {
    const piece = text.slice(part.start, part.end);
    const result = parsePart(parser, piece, part.start);
    if ("problem" in result) return result.problem;
    const bytes = Buffer.byteLength(piece);
    for (const { stmt, stmt_location = 0, stmt_len } of result.stmts) {
      if (stmt === undefined) continue;
      const length = stmt_len ?? bytes - stmt_location;
      visit({ offset: byteOffset + stmt_location, length, node: stmt });
    }
    byteOffset += bytes;
  }
  return undefined;
}

type Parser = typeof import("libpg-query");

const BOM = 0xfeff;
const BOM_BYTES = 3;

/** UTF-16 units of one part: its trees are some 90 times as large, and this keeps them near 25 MB. */
const PART_UNITS = 256 * 1024;

/** How much of the text a message may repeat. */
const MAX_QUOTED = 40;

interface Part {
  readonly start: number;
  readonly end: number;
}

/** Cuts after whole statements; a text that the lexer is not sure of stays in one part. */
function splitIntoParts(text: string): readonly Part[] {
  const start = text.charCodeAt(0) === BOM ? 1 : 0;
  if (text.length <= PART_UNITS) return [{ start, end: text.length }];
  const scan = scanSql(text);
  if (!scan.isSure) return [{ start, end: text.length }];
  const parts: Part[] = [];
  let partStart = start;
  for (const [index, statement] of scan.statements.entries()) {
    const next: ScannedStatement | undefined = scan.statements[index + 1];
    if (next === undefined || next.end - partStart <= PART_UNITS) continue;
    parts.push({ start: partStart, end: statement.end });
    partStart = statement.end;
  }
  parts.push({ start: partStart, end: text.length });
  return parts;
}

function parsePart(
  parser: Parser,
  piece: string,
  partStart: number,
): { readonly stmts: readonly { stmt?: Node; stmt_location?: number; stmt_len?: number }[] } | { readonly problem: SyntaxProblem } {
  // the parser takes no empty text, and a part may begin with the semicolon of the one before
  if (piece === "") return { stmts: [] };
  try {
    return { stmts: parser.parseSync(piece).stmts ?? [] };
  } catch (thrown) {
    if (!parser.hasSqlDetails(thrown) || thrown.sqlDetails === undefined || isExhausted(thrown.message)) {
      throw new RunnerError("TOO_LARGE", "a statement is too large or too deeply nested to be analysed", {
        hint: "split it into several statements",
        cause: thrown,
      });
    }
    const { message, cursorPosition } = thrown.sqlDetails;
    return { problem: { message: shorten(message), index: partStart + unitIndex(piece, cursorPosition) } };
  }
}

function isExhausted(message: string): boolean {
  return message.startsWith("memory exhausted");
}

function shorten(message: string): string {
  const quoted = /^([\s\S]{0,100}? at or near ")([\s\S]*)"$/.exec(message);
  const [, before, near] = quoted ?? [];
  if (before === undefined || near === undefined) return message.slice(0, 200);
  const firstLine = near.split(/[\r\n]/, 1)[0] ?? "";
  return `${before}${firstLine.length > MAX_QUOTED ? `${firstLine.slice(0, MAX_QUOTED)}…` : firstLine}"`;
}
