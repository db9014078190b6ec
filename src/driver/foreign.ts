import type { ForeignPlace, ForeignRow, ForeignTable } from "../history/foreign.ts";
import type { Direction, Migration } from "../migration/migration.ts";

/**
 * What other tools left in a database: read as it is, and locked as they lock it. Nothing is understood here; that is
 * `src/adopt`. Asked outside the lease as well as under it.
 */
export interface ForeignHistories {
  /**
   * Tables that by their names may be a tool's record, where an unqualified name would find them; or the one that is
   * named, `table` or `schema.table`, none where it does not exist.
   */
  tables(named: string | undefined, signal: AbortSignal): Promise<readonly ForeignTable[]>;

  /**
   * Every row of a table, in no order.
   *
   * @throws RunnerError `DATABASE_DENIED` - our role may not read it; `ADOPTION` - it is gone, or far too large for such a table
   */
  rows(
    table: Pick<ForeignTable, "schema" | "table" | "columns">,
    signal: AbortSignal,
  ): Promise<readonly ForeignRow[]>;

  /**
   * Makes the record that golang-migrate begins with, in which nothing is applied, where an unqualified name would make
   * it. Nothing happens where the table is there already.
   *
   * @param named - `table`, or `schema.table` where such a schema is there
   * @throws RunnerError `DATABASE_DENIED` - our role may make no table there
   */
  begin(named: string, signal: AbortSignal): Promise<void>;

  /**
   * Runs `work` while the tool's own lock is held, where it has one. Tried again and again, never waited for inside a
   * query: who waits there blocks an index that is built beside it. Given back also when `work` throws.
   *
   * @throws RunnerError `LEASE_HELD` - the tool, or who has its lock, did not finish in time
   */
  withLock<T>(place: ForeignPlace, options: ForeignLockOptions, work: () => Promise<T>): Promise<T>;
}

/** How long to wait for another tool. */
export interface ForeignLockOptions {
  /** milliseconds; 0 tries once */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** whose lease nobody else holds: a lock that an earlier holder of it left behind is nobody's any more */
  readonly stream?: string;
}

/** What of a step, or of a declared entry, is written into another tool's record. */
export interface DoneStep {
  readonly migration: Pick<Migration, "seq" | "version" | "path" | "crc32">;
  readonly direction: Direction;
  /** of a checkpoint: those that it stands for */
  readonly covers?: readonly Migration[];
}
