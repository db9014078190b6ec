/**
 * What the header `backfill table=orders key=id batch=1000 pause=50ms` asks for: the file's one statement runs once for
 * each range of keys. It names the relation `batch`, whose columns are the key's and whose rows are the range's.
 */
export interface Backfill {
  /** as written, with its schema where it has one */
  readonly table: string;
  /** columns, as written, in the order of the index that is followed */
  readonly key: readonly string[];
  /** rows of the table a range holds, about */
  readonly batch: number;
  /** milliseconds between two ranges */
  readonly pauseMs: number;
  /** from the header `throttle SELECT …`: a query of one boolean; while it is true the next range waits */
  readonly throttle: string | undefined;
}

/** The relation that a backfill's statement names, and that each range fills. */
export const batchName = "batch";

/** Rows a range holds where the header does not say: some tens of milliseconds of work. */
export const defaultBatch = 1_000;

/** More rows would hold their locks for as long as a statement that is no backfill. */
export const maxBatch = 100_000;

/** Whether a text is a table's name as SQL writes it: with its schema or without, each part bare or in double quotes. */
export function isTableName(text: string): boolean {
  return TABLE.test(text);
}

/** Whether a text is a list of columns between commas, none of them twice. */
export function isColumnList(text: string): boolean {
  if (!COLUMNS.test(text)) return false;
  const names = splitNames(text).map(foldName);
  return new Set(names).size === names.length;
}

/** Whether a text is a number of rows that a range may hold. */
export function isBatchSize(text: string): boolean {
  return /^[1-9][0-9]{0,5}$/.test(text) && Number(text) <= maxBatch;
}

/** The names in a list of columns, or in a table's name with its schema, as written. */
export function splitNames(text: string): readonly string[] {
  return text.match(new RegExp(NAME, "g")) ?? [];
}

/** A name as PostgreSQL keeps it: without its quotes, or in lower case where it had none (ASCII letters only). */
export function foldName(written: string): string {
  return written.startsWith('"')
    ? written.slice(1, -1).replaceAll('""', '"')
    : written.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** Characters beyond ASCII are letters to PostgreSQL, all of them. */
const NAME = String.raw`(?:[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*|"(?:[^"]|"")+")`;
const TABLE = new RegExp(String.raw`^${NAME}(?:\.${NAME})?$`);
const COLUMNS = new RegExp(`^${NAME}(?:,${NAME})*$`);
