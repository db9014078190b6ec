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
