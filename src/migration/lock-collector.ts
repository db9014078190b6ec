import type { Node, RangeVar } from "./parse-sql.ts";

/** PostgreSQL's table locks that others can feel, strongest first. */
export const TABLE_LOCKS = [
  "ACCESS EXCLUSIVE",
  "EXCLUSIVE",
  "SHARE ROW EXCLUSIVE",
  "SHARE",
  "SHARE UPDATE EXCLUSIVE",
  "ROW EXCLUSIVE",
] as const;

/** One of {@link TABLE_LOCKS}. */
export type TableLock = (typeof TABLE_LOCKS)[number];

/**
 * Collects the locks that the statements of one body take on tables that were there before it.
 *
 * Measured on PostgreSQL 15 and 18. What only the catalog knows (the other side of a dropped foreign key,
 * the tables behind `CASCADE`) is not in it, nor are ACCESS SHARE and ROW SHARE, which stop no ordinary work.
 */
export class LockCollector {
  readonly #locks = new Set<TableLock>();
  readonly #created = new Set<string>();

  /** A table this body made is nobody else's yet; `undefined` where the statement does not name the table. */
  take(lock: TableLock, table: string | undefined): void {
    if (table === undefined || !this.#created.has(table)) this.#locks.add(lock);
  }

  create(table: string): void {
    this.#created.add(table);
  }

  /** Distinct, strongest first. */
  get locks(): readonly TableLock[] {
    return TABLE_LOCKS.filter((lock) => this.#locks.has(lock));
  }
}

/** Takes a lock on a table, where the statement names one. */
export function take(lock: TableLock, table: RangeVar | undefined, locks: LockCollector): void {
  if (table !== undefined) locks.take(lock, nameOf(table));
}

/** Takes a lock on each table of a list. */
export function takeAll(lock: TableLock, tables: readonly Node[] | undefined, locks: LockCollector): void {
  for (const table of tables ?? []) if ("RangeVar" in table) take(lock, table.RangeVar, locks);
}

/** Notes a table that the statement makes. */
export function create(table: RangeVar | undefined, locks: LockCollector): void {
  if (table !== undefined) locks.create(nameOf(table));
}

/** A table's name, its schema where it is written. */
export function nameOf(table: RangeVar): string {
  return qualifiedName([...(table.schemaname === undefined ? [] : [table.schemaname]), table.relname ?? ""]);
}

/** One text for a name and its schema; a dot within a quoted name cannot confuse it. */
export function qualifiedName(names: readonly string[]): string {
  return JSON.stringify(names);
}
