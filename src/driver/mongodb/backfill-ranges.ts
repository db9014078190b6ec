import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import type { Backfill } from "../../migration/backfill.ts";
import { readCommand } from "../../migration/mongo/read-commands.ts";
import { BackfillMeter } from "../backfill-progress.ts";
import {
  changedBy,
  findBound,
  findEnds,
  placeOf,
  readBusy,
  withRange,
  type Bound,
  type Cursor,
} from "./backfill-range.ts";
import { toCommandDocument, type CommandDocument } from "./bson.ts";
import { bodyFailure } from "./body-failure.ts";
import { commandError, errorCode, isConflict, isOutcomeUnknown } from "./command-error.ts";
import { mayTryAgain } from "./retry.ts";
import { sendCommand } from "./send-command.ts";
import { statementTimeoutOf, type Task } from "./statement-task.ts";

/** A backfill and all that its running needs. */
export interface BackfillTask extends Task {
  readonly backfill: Backfill;
  /** over all that the cursor's meaning hangs on; batch size, pause and throttle may change from one attempt to the next */
  readonly checksum: string;
}

type Note = Extract<StatementCheckpoint, { readonly kind: "backfill" }>;

/** milliseconds of the lease that a range leaves unused, for its cursor to be written */
const spareMs = 500;

/** The ranges of one backfill, and where they have come to. */
export class BackfillRanges {
  readonly #task: BackfillTask;
  readonly #document: CommandDocument;
  #meter: BackfillMeter | undefined;
  #cursor: Cursor | null;
  readonly #rowsEarlier: number;
  /** `performance.now()` when the range that was sent last has surely ended, where no transaction ends it */
  #endsAt = 0;
  /** documents of the next range: fewer for a while after it met a conflict */
  #size: number;

  /** @param earlier - where an earlier run has come to */
  constructor(task: BackfillTask, earlier: Pick<Note, "cursor" | "rows">) {
    this.#task = task;
    this.#document = toCommandDocument(task.command, task.step.path);
    this.#cursor = earlier.cursor?.[0] ?? null;
    this.#rowsEarlier = earlier.rows;
    this.#size = task.backfill.batch;
  }

  get meter(): BackfillMeter {
    if (this.#meter === undefined) throw new TypeError("the backfill has not begun");
    return this.#meter;
  }

  /** Notes where it begins, and measures how much there is; gives the first range, or undefined where there is none. */
  async begin(): Promise<Bound | undefined> {
    const { checkpoint, bench, backfill, onProgress } = this.#task;
    await checkpoint.noted(this.#note(this.#cursor, this.#rowsEarlier));
    const collection = bench.database.db.collection(backfill.table);
    const { ends, estimated } = await this.#ask(async (signal) => ({
      ends: await findEnds(collection, signal),
      estimated: await collection.estimatedDocumentCount(),
    }));
    const [least, greatest] = (ends ?? []).map(placeOf);
    const isScale = least !== undefined && greatest !== undefined && least.scale === greatest.scale;
    this.#meter = new BackfillMeter(
      {
        rows: this.#rowsEarlier,
        scale: isScale ? { least: least.at, greatest: greatest.at } : undefined,
        at: placeOf(this.#cursor)?.at,
        estimatedRows: estimated > 0 ? estimated : undefined,
      },
      onProgress,
    );
    return this.#next();
  }

  #next(): Promise<Bound | undefined> {
    const { bench, backfill } = this.#task;
    const collection = bench.database.db.collection(backfill.table);
    return this.#ask((signal) => findBound(collection, this.#cursor, this.#size, signal));
  }

  /**
   * Runs the command for a range, and finds the next one; undefined when no document is left.
   *
   * @throws RunnerError `MIGRATION_FAILED` - it failed, or met conflicts again and again; the ranges before it are done
   */
  async follow(bound: Bound): Promise<Bound | undefined> {
    await this.#run(bound);
    return this.#next();
  }

  async #run(bound: Bound): Promise<void> {
    const { bench, step, settings, command } = this.#task;
    let range = bound;
    for (let attempt = 1; ; attempt += 1) {
      bench.kept.assertTrusted();
      try {
        const rows = await this.#send(range);
        return this.#move(range, rows);
      } catch (cause) {
        if (bench.kept.signal.aborted || cause instanceof RunnerError) throw cause;
        // In a transaction it has not taken effect; without, it is repeated.
        if (isOutcomeUnknown(cause)) await this.#untilEnded();
        if (!(await mayTryAgain(bench, step, settings, cause, attempt)))
          throw bodyFailure(step, cause, {
            command,
            index: 0,
            of: 1,
            extent: "command",
            rows: this.meter.rows,
          });
        const isSmall = !isConflict(cause) && commandError(cause)?.code !== errorCode.maxTimeMsExpired;
        if (isSmall || attempt === 1) continue;
        // Fewer documents at once meet fewer writes of others.
        this.#size = Math.max(1, Math.floor(this.#size / 2));
        const smaller = await this.#next();
        if (smaller === undefined) return;
        range = smaller;
      }
    }
  }

  /** Whether the throttle's command asks to wait. */
  async isBusy(): Promise<boolean> {
    const { bench, step, backfill } = this.#task;
    const { throttle } = backfill;
    if (throttle === undefined) return false;
    const { db } = bench.database;
    const document = toCommandDocument(readCommand(throttle, step.path), step.path);
    const answer = await this.#ask((signal) => db.command(document, { signal }));
    return readBusy(answer, step.path);
  }

  async #send(range: Bound): Promise<number> {
    const { bench, checkpoint } = this.#task;
    const { db, hasTransactions } = bench.database;
    const { signal } = bench.kept;
    const document = withRange(this.#document, range);
    if (!hasTransactions) {
      // Ended while the lease is ours, it cannot meet what comes after it.
      const trustedMs = Math.max(1, bench.kept.trustedForMs() - spareMs);
      const maxTimeMs = Math.min(statementTimeoutOf(this.#task) || Infinity, trustedMs);
      this.#endsAt = performance.now() + maxTimeMs;
      const rows = changedBy(await sendCommand(db, document, { key: bench.key(), maxTimeMs, signal }));
      await checkpoint.noted(this.#note(range.to, this.meter.rows + rows));
      return rows;
    }
    const maxTimeMs = statementTimeoutOf(this.#task);
    return bench.transaction(async (session) => {
      const options = { key: bench.key(), maxTimeMs, signal, session };
      const rows = changedBy(await sendCommand(db, document, options));
      await checkpoint.noted(this.#note(range.to, this.meter.rows + rows), session);
      return rows;
    });
  }

  #note(cursor: Cursor | null, rows: number): Note {
    const { checksum } = this.#task;
    return {
      kind: "backfill",
      statement: 0,
      sha256: checksum,
      cursor: cursor === null ? null : [cursor],
      rows,
    };
  }

  #move({ to, count }: Bound, rows: number): void {
    this.#cursor = to;
    this.#size = Math.min(this.#size * 2, this.#task.backfill.batch);
    this.meter.add(rows, count, placeOf(to)?.at);
  }

  /** The server may still work on it, and would meet what comes after it. */
  async #untilEnded(): Promise<void> {
    const { kept } = this.#task.bench;
    const waitMs = Math.max(0, this.#endsAt - performance.now());
    await sleep(waitMs, undefined, { signal: kept.signal }).catch(() => kept.assertTrusted());
  }

  /** A question that may be repeated at will. */
  async #ask<T>(question: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { bench, step, settings, command } = this.#task;
    for (let attempt = 1; ; attempt += 1) {
      bench.kept.assertTrusted();
      try {
        return await question(bench.kept.signal);
      } catch (cause) {
        if (bench.kept.signal.aborted || cause instanceof RunnerError) throw cause;
        if (await mayTryAgain(bench, step, settings, cause, attempt)) continue;
        throw bodyFailure(step, cause, {
          command,
          index: 0,
          of: 1,
          extent: "command",
          rows: this.#meter?.rows ?? 0,
        });
      }
    }
  }
}
