import type { BackfillProgress } from "./session.ts";

/** milliseconds between two reports: a table of many small ranges is no flood of lines */
const reportMs = 1_000;
/** what is not whole yet is never said to be, also when rows were added behind the last one */
const almostWhole = 0.999;

/** What is known of a backfill when this run begins with it. */
export interface BackfillStart {
  /** rows that earlier runs have changed */
  readonly rows: number;
  /** places on the scale of the key's first column; undefined where it has none, or the table no rows */
  readonly scale: { readonly least: number; readonly greatest: number } | undefined;
  /** place of the cursor that this run begins at */
  readonly at: number | undefined;
  /** rows of the table by its statistics */
  readonly estimatedRows: number | undefined;
}

/** Counts what a backfill does and says now and then how far it is. */
export class BackfillMeter {
  readonly #start: BackfillStart;
  readonly #report: (progress: BackfillProgress) => void;
  readonly #startedAt = performance.now();
  readonly #startFraction: number | null;
  #rows = 0;
  #seen = 0;
  #at: number | undefined;
  #reportedAt = -Infinity;

  constructor(start: BackfillStart, report: (progress: BackfillProgress) => void) {
    this.#start = start;
    this.#report = report;
    this.#at = start.at;
    this.#startFraction = this.#fraction();
  }

  /** Rows that the statement has changed, in earlier runs too. */
  get rows(): number {
    return this.#start.rows + this.#rows;
  }

  /**
   * A range is done.
   *
   * @param seen - rows of the table in it
   * @param at - place of its end on the scale
   */
  add(rows: number, seen: number, at: number | undefined): void {
    this.#rows += rows;
    this.#seen += seen;
    this.#at = at;
    if (performance.now() - this.#reportedAt >= reportMs) this.#say(false, this.#fraction());
  }

  /** The next range waits because the database is busy. */
  throttled(): void {
    this.#say(true, this.#fraction());
  }

  /** All ranges are done. */
  finished(): void {
    this.#say(false, 1);
  }

  #say(isThrottled: boolean, fraction: number | null): void {
    const now = performance.now();
    const seconds = (now - this.#startedAt) / 1_000;
    this.#reportedAt = now;
    this.#report({
      kind: "backfill",
      rows: this.rows,
      fraction,
      rowsPerSecond: seconds > 0 ? this.#rows / seconds : 0,
      secondsLeft: this.#secondsLeft(fraction, seconds),
      isThrottled,
    });
  }

  #fraction(): number | null {
    const { scale, estimatedRows, rows } = this.#start;
    const share =
      scale === undefined
        ? estimatedRows === undefined
          ? undefined
          : (rows + this.#seen) / estimatedRows
        : this.#at === undefined
          ? 0
          : (this.#at - scale.least) / (scale.greatest - scale.least);
    return share === undefined || Number.isNaN(share) ? null : Math.min(Math.max(share, 0), almostWhole);
  }

  #secondsLeft(fraction: number | null, seconds: number): number | null {
    if (fraction === 1) return 0;
    if (fraction === null || this.#startFraction === null) return null;
    const done = fraction - this.#startFraction;
    return done > 0 ? (seconds * (1 - fraction)) / done : null;
  }
}
