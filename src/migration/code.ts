import type { ClientSession, Db } from "mongodb";

import type { Direction, Engine } from "./migration.ts";

/**
 * The default export of a migration that is a program, `7_fill.up.ts`: what it does with its context's transaction takes
 * effect together with its history entry, all or nothing. For MongoDB it is a `MigrationFunction<"mongodb">`.
 *
 * It may be called again, from its beginning, where its transaction met others or lost its connection: what it does
 * elsewhere has to bear that.
 */
export type MigrationFunction<E extends Engine = "postgres"> = (
  context: MigrationContext<E>,
) => Promise<void> | void;

/** What a migration that is a program is given: the transaction of its engine, and word of the run. */
export type MigrationContext<E extends Engine = "postgres"> = Transactions[E] & {
  /** aborts when the run is to stop: whatever takes long elsewhere should listen to it */
  readonly signal: AbortSignal;
  /** a line for whoever watches the run */
  log(message: string): void;
  readonly direction: Direction;
  /** as the file name wrote it */
  readonly version: string;
};

interface Transactions {
  readonly postgres: PostgresTransaction;
  readonly mongodb: MongoTransaction;
}

interface PostgresTransaction {
  /**
   * Sends SQL in the migration's transaction and gives the rows of its last statement.
   *
   * @param text - with `$1`, `$2` … for values it is one statement; without it may be several
   * @param values - as `pg` takes them
   */
  sql(text: string, values?: readonly unknown[]): Promise<readonly Readonly<Record<string, unknown>>[]>;
}

interface MongoTransaction {
  /** the target's database, by the official driver; a call without {@link session} is refused */
  readonly db: Db;
  /** of the migration's transaction, which is opened and ended for it: an option of every call, one call at a time */
  readonly session: ClientSession;
}

/** A place in a source file. */
export interface SourcePlace {
  /** as the bundle knows it, relative to the folder of the migrations */
  readonly file: string;
  /** from 1 */
  readonly line: number;
  /** from 1 */
  readonly column: number;
}
