import { RunnerError } from "../../error.ts";
import type { Backfill } from "../../migration/backfill.ts";
import type { Statement } from "../../migration/migration.ts";
import { countCodePoints } from "../../migration/position.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import { readKey, selectKey, type FollowedKey } from "./backfill-key.ts";
import { BackfillMeter } from "../backfill-progress.ts";
import { selectBound, selectScale, textSettings, withBatch, type Cursor } from "./backfill-range.ts";
import { bodyFailure } from "./body-failure.ts";
import type { Row, StatementResult } from "./connection.ts";
import { firstValue } from "./database.ts";
import { deathSettings } from "./death.ts";
import { isConnectionLoss, serverError } from "./failure.ts";
import { begin, fence } from "./lease.ts";
import { mayTryAgain } from "./retry.ts";
import { sqlstate } from "./sqlstate.ts";
import { literal } from "./tables.ts";
import { runMark } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** A backfill and all that its running needs. */
export interface BackfillTask {
  readonly bench: Workbench;
  readonly step: StatementStep;
  readonly backfill: Backfill;
  readonly settings: SessionSettings;
  readonly statement: Statement;
  readonly sql: string;
  /** the history entry that holds the cursor */
  readonly entryId: number;
  onProgress(progress: StatementProgress): void;
}

/** The end of the next range. */
export interface Bound {
  readonly to: Cursor;
  /** rows of the table up to it */
  readonly rows: number;
  /** as many as were asked for, so there may be more behind them */
  readonly isFull: boolean;
  /** its place on the key's scale */
  readonly at: number | undefined;
}

/** Statements of a range's message before the body's own: BEGIN, the fence, the settings. */
const statementsBefore = 3;

/** The ranges of one backfill, each with its own transaction, and where they have come to. */
export class BackfillRanges {
  readonly #task: BackfillTask;
  #key: FollowedKey | undefined;
  #meter: BackfillMeter | undefined;
  #cursor: Cursor | null = null;
  #rowsEarlier = 0;
  /** rows of the next range: fewer for a while after it met a lock */
  #size: number;

  constructor(task: BackfillTask) {
    this.#task = task;
    this.#size = task.backfill.batch;
  }

  /** Where an earlier run has come to. */
  goOnAfter({ cursor, rows }: { readonly cursor: Cursor | null; readonly rows: number }): void {
    this.#cursor = cursor;
    this.#rowsEarlier = rows;
  }

  /**
   * SQL that writes the rows of the last range into the entry as well: how many they are is known only when it has
   * committed. Never its cursor: the last answer may be missing, and the entry then knows more than this program.
   */
  recount(): string {
    const { bench, entryId } = this.#task;
    return `UPDATE ${bench.t.history} SET checkpoint = checkpoint || pg_catalog.jsonb_build_object('rows', ${this.#rows()}) WHERE id = ${entryId} AND checkpoint -> 'cursor' = ${json(this.#cursor)}`;
  }

  get meter(): BackfillMeter {
    if (this.#meter === undefined) throw new TypeError("the backfill has not begun");
    return this.#meter;
  }

  /**
   * Makes sure that the key can be followed, and finds the first range.
   *
   * @throws RunnerError `BACKFILL`
   */
  async begin(): Promise<Bound | undefined> {
    const { backfill, step, onProgress } = this.#task;
    const key = readKey(await this.#ask(selectKey(backfill)), backfill, step);
    this.#key = key;
    const scale = (await this.#ask(selectScale(key, this.#cursor))) ?? {};
    const [least, greatest] = [place(scale["lockkeeper_least"]), place(scale["lockkeeper_greatest"])];
    this.#meter = new BackfillMeter(
      {
        rows: this.#rowsEarlier,
        scale: least === undefined || greatest === undefined ? undefined : { least, greatest },
        at: place(scale["lockkeeper_cursor"]),
        estimatedRows: key.estimatedRows,
      },
      onProgress,
    );
    return this.#bound(key);
  }

  /**
   * Runs the statement for the rows up to `bound`, and finds the next one; undefined when no row is left.
   *
   * @throws RunnerError `MIGRATION_FAILED`, `LOCK_TIMEOUT` - it failed, or met locks again and again; the ranges before it are done
   */
  async follow(bound: Bound): Promise<Bound | undefined> {
    const { bench, step, settings } = this.#task;
    const key = this.#followed();
    let next = bound;
    for (let attempt = 1; ; attempt += 1) {
      bench.kept.assertTrusted();
      const { text, bodyOffset } = this.#message(key, next);
      try {
        const results = await bench.sendBody(text, this.#lockTimeoutMs());
        this.#move(next, results[statementsBefore]?.rowCount ?? 0);
        return readBound(results, this.#size);
      } catch (cause) {
        await this.#settle(cause);
        if (await this.#isCommitted(next.to)) {
          // The answer was lost, or what failed is the question after it: its rows are not known.
          this.#move(next, 0);
          return this.#bound(key);
        }
        if (!(await mayTryAgain(bench, step, settings, cause, attempt)))
          throw this.#failure(cause, bodyOffset);
        const isLocked = serverError(cause)?.sqlstate === sqlstate.lockNotAvailable;
        if (!isLocked || attempt === 1) continue;
        // Fewer rows at once meet fewer locks, and hold fewer while they wait for the next.
        this.#size = Math.max(1, Math.floor(this.#size / 2));
        const smaller = await this.#bound(key);
        if (smaller === undefined) return undefined;
        next = smaller;
      }
    }
  }

  /** Whether the throttle's query asks to wait. */
  async isBusy(): Promise<boolean> {
    const { throttle } = this.#task.backfill;
    if (throttle === undefined) return false;
    const row = await this.#ask(`SELECT (\n${throttle}\n) IS TRUE AS busy`, "the throttle's query");
    return row?.["busy"] === true;
  }

  /** Rows changed so far, by earlier runs too. */
  #rows(): number {
    return this.#meter?.rows ?? this.#rowsEarlier;
  }

  #followed(): FollowedKey {
    if (this.#key === undefined) throw new TypeError("the backfill has not begun");
    return this.#key;
  }

  async #bound(key: FollowedKey): Promise<Bound | undefined> {
    const row = await this.#ask(selectBound(key, this.#cursor, this.#size));
    return row === undefined ? undefined : readBound([{ rowCount: 1, rows: [row] }], this.#size);
  }

  #move(bound: Bound, rows: number): void {
    this.#cursor = bound.to;
    this.#size = this.#nextSize();
    this.meter.add(rows, bound.rows, bound.at);
  }

  #nextSize(): number {
    return Math.min(this.#size * 2, this.#task.backfill.batch);
  }

  #lockTimeoutMs(): number {
    return this.#task.step.lockTimeoutMs ?? this.#task.settings.lockTimeoutMs;
  }

  #limits(): readonly (readonly [name: string, value: string])[] {
    const { bench, step, settings } = this.#task;
    return [
      ["idle_in_transaction_session_timeout", String(bench.times.leaseMs)],
      ["lock_timeout", String(this.#lockTimeoutMs())],
      ["statement_timeout", String(step.statementTimeoutMs ?? settings.statementTimeoutMs)],
      ...deathSettings(bench.facts),
    ];
  }

  /**
   * One range, and behind its COMMIT the question for the next. The settings are refused, by a division by zero, where
   * the entry has another cursor than this program thinks.
   */
  #message(key: FollowedKey, { to }: Bound): { readonly text: string; readonly bodyOffset: number } {
    const { bench, sql, entryId } = this.#task;
    const { history } = bench.t;
    const isHere = `(SELECT pg_catalog.count(*) FROM ${history} WHERE id = ${entryId} AND checkpoint -> 'cursor' = ${json(this.#cursor)})`;
    const range = withBatch(sql, key, this.#cursor, to);
    const head = `${runMark(bench.key())}${begin}; ${fence(bench.t, bench.key())}; SELECT 1 / ${isHere}, ${local(this.#limits())};\n`;
    const moved = `UPDATE ${history} SET checkpoint = checkpoint || pg_catalog.jsonb_build_object('cursor', ${json(to)}, 'rows', ${this.#rows()}), duration_ms = extract(epoch FROM pg_catalog.clock_timestamp() - started_at) * 1000 WHERE id = ${entryId}`;
    const tail = `\n; RESET SESSION AUTHORIZATION; RESET ROLE; SET LOCAL search_path = pg_catalog; ${moved}; RESET ALL; SET LOCAL synchronous_commit = on; COMMIT;\n`;
    return {
      text: head + range.text + tail + this.#question(selectBound(key, to, this.#nextSize())),
      bodyOffset: codePoints(head) + codePoints(range.inserted),
    };
  }

  #question(query: string): string {
    return `${begin} READ ONLY; SELECT ${local([...this.#limits(), ...textSettings])}; ${query}; COMMIT`;
  }

  /** The one row of a query, in a transaction of its own that may be repeated at will. */
  async #ask(query: string, what?: string): Promise<Row | undefined> {
    const { bench, step, settings } = this.#task;
    for (let attempt = 1; ; attempt += 1) {
      bench.kept.assertTrusted();
      const message = runMark(bench.key()) + this.#question(query);
      try {
        const results = await bench.sendBody(message, this.#lockTimeoutMs());
        return results[2]?.rows[0];
      } catch (cause) {
        await this.#settle(cause);
        if (await mayTryAgain(bench, step, settings, cause, attempt)) continue;
        const failure = this.#failure(cause, message.length);
        throw what === undefined ? failure : renamed(failure, what);
      }
    }
  }

  /** After a failed message: a connection without an open transaction, under our own lease; throws when the run is to stop. */
  async #settle(cause: unknown): Promise<void> {
    const { bench } = this.#task;
    if (isConnectionLoss(cause) || bench.isLost()) return bench.reconnect(cause);
    await bench.rollBack();
    await bench.assertMayGoOn(cause);
  }

  /** Whether the range up to `to` took effect, by the entry that commits with it. */
  async #isCommitted(to: Cursor): Promise<boolean> {
    const { bench, entryId, step } = this.#task;
    const row = await this.#ask(
      `SELECT checkpoint -> 'cursor' = ${json(to)} AS moved, checkpoint -> 'cursor' = ${json(this.#cursor)} AS here FROM ${bench.t.history} WHERE id = ${entryId}`,
    );
    if (row?.["moved"] === true) return true;
    if (row?.["here"] === true) return false;
    throw new RunnerError(
      "INTERNAL",
      `the history entry of "${step.path}" was changed while its backfill ran`,
      {
        hint: "run again: it goes on where the entry now says",
      },
    );
  }

  #failure(cause: unknown, messageOffset: number): RunnerError {
    const { bench, step, statement } = this.#task;
    const before = step.bytes.subarray(0, statement.offset).toString("utf8");
    return bodyFailure(step, cause, {
      sqlOffset: codePoints(before),
      messageOffset,
      blocker: bench.blocker,
      statement: { index: 0, of: 1, rows: this.#rows() },
    });
  }
}

function readBound(results: readonly StatementResult[], size: number): Bound | undefined {
  const to = firstValue(results, "lockkeeper_bound");
  if (!Array.isArray(to)) return undefined;
  const rows = Number(firstValue(results, "lockkeeper_rows"));
  return { to: to.map(String), rows, isFull: rows >= size, at: place(firstValue(results, "lockkeeper_at")) };
}

function place(value: unknown): number | undefined {
  const number = typeof value === "string" ? Number(value) : Number.NaN;
  return Number.isFinite(number) ? number : undefined;
}

function renamed(failure: RunnerError, what: string): RunnerError {
  return new RunnerError("BACKFILL", `${what} failed: ${failure.message}`, {
    hint: "write one SELECT of one boolean that the migration's role may run",
    fields: failure.fields,
    cause: failure,
  });
}

function local(settings: readonly (readonly [name: string, value: string])[]): string {
  return settings
    .map(([name, value]) => `pg_catalog.set_config('${name}', ${literal(value)}, true)`)
    .join(", ");
}

function json(cursor: Cursor | null): string {
  return `${literal(JSON.stringify(cursor))}::jsonb`;
}

function codePoints(text: string): number {
  return countCodePoints(text, 0, text.length);
}
