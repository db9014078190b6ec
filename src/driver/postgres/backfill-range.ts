import { batchName } from "../../migration/backfill.ts";
import { SqlLexer } from "../../migration/sql-lexer.ts";
import type { FollowedKey, KeyColumn } from "./backfill-key.ts";
import { literal } from "./tables.ts";

/**
 * The SQL of a backfill's ranges. A key's values travel as text and come back as literals cast to the columns' own
 * types, so what compares them is what the index is ordered by.
 */

/** A key's value: each column as text, written under {@link textSettings}. */
export type Cursor = readonly string[];

/** What makes a value's text say the same under any setting of the session that reads it. */
export const textSettings = [
  ["DateStyle", "ISO, YMD"],
  ["IntervalStyle", "postgres"],
  ["TimeZone", "UTC"],
  ["bytea_output", "hex"],
  ["extra_float_digits", "1"],
] as const;

/** The statement with the range's keys as its first WITH query. */
export interface RangeStatement {
  readonly text: string;
  /** what was put into the statement; errors behind it are that much further back in the file */
  readonly inserted: string;
}

/** Adds `batch` to a statement: the keys above `from` (null: from the least on) up to and including `to`. */
export function withBatch(sql: string, key: FollowedKey, from: Cursor | null, to: Cursor): RangeStatement {
  const names = key.columns.map(({ name }) => name).join(", ");
  const conditions = [
    ...(from === null ? [] : [compare(key, ">", from)]),
    compare(key, "<=", to),
    ...hints(key, from, to),
  ];
  const query = `${batchName} AS (SELECT ${names} FROM ${key.table} WHERE ${conditions.join(" AND ")})`;
  const at = endOfWith(sql);
  const inserted = at === 0 ? `WITH ${query} ` : ` ${query},`;
  return { text: sql.slice(0, at) + inserted + sql.slice(at), inserted };
}

/**
 * A row for the end of the next range: `lockkeeper_bound` is the key of the `size`th row above `from`, or of the last
 * one where there are fewer, `lockkeeper_rows` how many rows that are, `lockkeeper_at` the place of its first column on
 * the scale. No row: nothing is left above.
 */
export function selectBound(key: FollowedKey, from: Cursor | null, size: number): string {
  const inner = key.columns.map(({ name }, index) => `r.${name} AS k${index}`).join(", ");
  const texts = key.columns.map((_, index) => `k${index}::text`).join(", ");
  const where = from === null ? "" : ` WHERE ${compare(key, ">", from)}`;
  return `SELECT ARRAY[${texts}]::text[] AS lockkeeper_bound, n AS lockkeeper_rows, ${measure(key.columns[0], "k0")} AS lockkeeper_at
 FROM (SELECT ${inner}, pg_catalog.row_number() OVER (ORDER BY ${order(key, "")}) AS n FROM ${key.table} r${where} ORDER BY ${order(key, "")} LIMIT ${size}) b
 ORDER BY n DESC LIMIT 1`;
}

/** A row with the places of the least key, the greatest and the cursor on the scale: `lockkeeper_least`, `…_greatest`, `…_cursor`. */
export function selectScale(key: FollowedKey, cursor: Cursor | null): string {
  const [first] = key.columns;
  const end = (direction: string): string =>
    `(SELECT ${measure(first, `r.${first?.name}`)} FROM ${key.table} r ORDER BY ${order(key, direction)} LIMIT 1)`;
  const at = cursor === null ? "NULL" : measure(first, cast(first, cursor[0]));
  return `SELECT ${end("")} AS lockkeeper_least, ${end(" DESC")} AS lockkeeper_greatest, ${at} AS lockkeeper_cursor`;
}

/** Qualified: a plain name would mean a column of the result, where one has it, and sort by its text. */
function order({ columns }: FollowedKey, direction: string): string {
  return columns.map(({ name }) => `r.${name}${direction}`).join(", ");
}

function compare({ columns }: FollowedKey, operator: string, cursor: Cursor): string {
  const names = columns.map(({ name }) => name);
  const values = columns.map((column, index) => cast(column, cursor[index]));
  return columns.length === 1
    ? `${names[0]} ${operator} ${values[0]}`
    : `(${names.join(", ")}) ${operator} (${values.join(", ")})`;
}

/**
 * Of a comparison of whole keys the planner estimates each end by itself, and takes half a table for what is a thousand
 * rows in the middle of it. From both ends of one column it sees how narrow the range is.
 */
function hints({ columns }: FollowedKey, from: Cursor | null, to: Cursor): readonly string[] {
  const [first] = columns;
  if (first === undefined || columns.length === 1 || from === null) return [];
  return [`${first.name} >= ${cast(first, from[0])}`, `${first.name} <= ${cast(first, to[0])}`];
}

function cast(column: KeyColumn | undefined, value: string | undefined): string {
  return `${literal(value)}::${column?.type}`;
}

function measure(column: KeyColumn | undefined, expression: string): string {
  switch (column?.scale) {
    case "number":
      return `(${expression})::text`;
    case "time":
      return `extract(epoch FROM ${expression})::text`;
    case undefined:
      return "NULL";
  }
}

/** Behind a statement's own `WITH` or `WITH RECURSIVE`; 0 where it begins otherwise. */
function endOfWith(sql: string): number {
  const lexer = new SqlLexer(sql);
  const isWord = (word: string): boolean => lexer.kind === "word" && lexer.text.toUpperCase() === word;
  if (!lexer.next() || !isWord("WITH")) return 0;
  const end = lexer.end;
  if (!lexer.next() || !isWord("RECURSIVE")) return end;
  const endOfBoth = lexer.end;
  // `WITH recursive AS (…)` and `WITH recursive (a) AS (…)` name a query so
  const isName = lexer.next() && (isWord("AS") || lexer.text === "(");
  return isName ? end : endOfBoth;
}
