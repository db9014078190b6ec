import type { Direction } from "./migration.ts";

/**
 * The default export of a migration that is a program, `7_fill.up.ts`: what it does with `context.sql` is one transaction
 * together with its history entry, all or nothing.
 *
 * It may be called again, from its beginning, where its transaction met a lock or lost its connection: what it does
 * elsewhere has to bear that.
 */
export type MigrationFunction = (context: MigrationContext) => Promise<void> | void;

/** What a migration that is a program is given. */
export interface MigrationContext {
  /**
   * Sends SQL in the migration's transaction and gives the rows of its last statement.
   *
   * @param text - with `$1`, `$2` … for values it is one statement; without it may be several
   * @param values - as `pg` takes them
   */
  sql(text: string, values?: readonly unknown[]): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** aborts when the run is to stop: whatever takes long elsewhere should listen to it */
  readonly signal: AbortSignal;
  /** a line for whoever watches the run */
  log(message: string): void;
  readonly direction: Direction;
  /** as the file name wrote it */
  readonly version: string;
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
