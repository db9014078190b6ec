import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { Connection, StatementResult } from "./connection.ts";
import { databaseFailure, isConnectionLoss, serverError } from "./failure.ts";
import { begin, fence, workerLock } from "./lease.ts";
import { readOrphan, selectOrphans } from "./orphan.ts";
import { assertFreeSlots, isThroughPooler } from "./pooler.ts";
import { sqlstate } from "./sqlstate.ts";
import { resetSession } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** transactions that a body outside transactions has open at once: fence, statement, heartbeats and checkpoints */
const slotsOfWorker = 3;
/** milliseconds after which a fence is replaced by a new one: while it is open, vacuum cannot clean up behind it */
const fenceAgeMs = 60_000;
/** milliseconds between two looks at a statement that nobody waits for any more: its first end is soon, or far away */
const orphanPollMs = { shortest: 20, longest: 1_000 };

/**
 * Two connections for a body outside transactions: one for its statements, and one whose open transaction keeps the
 * token from being taken over meanwhile (`protocol.md` 9).
 */
export class Worker {
  readonly isPooled: boolean;
  readonly #bench: Workbench;
  readonly #timer: NodeJS.Timeout;
  #connection: Connection;
  #fence: Fence | undefined;
  #beating: Promise<void> | undefined;

  private constructor(bench: Workbench, connection: Connection, isPooled: boolean) {
    this.#bench = bench;
    this.#connection = connection;
    this.isPooled = isPooled;
    this.#timer = setInterval(() => {
      this.#beating ??= this.#beat().finally(() => {
        this.#beating = undefined;
      });
    }, bench.times.heartbeatMs);
    this.#timer.unref();
  }

  /** Connects, past the pooler where that is possible, and fences. */
  static async open(bench: Workbench): Promise<Worker> {
    bench.kept.assertTrusted();
    const connection = await bench.directPool.connect(bench.kept.signal);
    let worker: Worker | undefined;
    try {
      const isPooled = await isThroughPooler(connection);
      if (isPooled) await assertFreeSlots(bench.directPool, slotsOfWorker, bench.shownUrl, bench.kept.signal);
      worker = new Worker(bench, connection, isPooled);
      await worker.#lock();
      await worker.assertFenced();
      return worker;
    } catch (cause) {
      await worker?.close();
      connection.release(true);
      throw databaseFailure(cause, bench.shownUrl);
    }
  }

  /** for the statements; another one after {@link regain} */
  get connection(): Connection {
    return this.#connection;
  }

  /**
   * Makes sure that the fence stands, and is young.
   *
   * @throws RunnerError `LEASE_LOST` - another has the lease
   */
  async assertFenced(): Promise<void> {
    this.#bench.kept.assertTrusted();
    await this.#beating;
    await this.#refence();
  }

  /** Writes our own state; on a new connection, under a new token, where the old connection was lost. */
  async write(statements: string): Promise<readonly StatementResult[]> {
    try {
      return await this.#bench.write(statements);
    } catch (cause) {
      if (!this.#bench.isLost()) throw cause;
      await this.#renewToken(cause);
      return this.#bench.write(statements);
    }
  }

  /** After the statements' connection was lost: a new one, once nothing of the old one is under way any more. */
  async regain(cause: unknown): Promise<void> {
    for (let last = cause; ;) {
      await this.#renewToken(last);
      this.#connection.release(true);
      try {
        this.#connection = await this.#bench.directPool.connect(this.#bench.kept.signal);
        await this.#lock();
        await this.#refence();
        return;
      } catch (again) {
        const isOut = again instanceof RunnerError && again.code === "DATABASE_UNAVAILABLE";
        if (!isOut && !isConnectionLoss(again)) throw again;
        last = again;
      }
    }
  }

  /** After a statement that may have given up the session's locks. */
  async lockAgain(): Promise<void> {
    await this.#lock();
  }

  /** Ends what a statement left open, and undoes its settings. */
  async rollBack(): Promise<void> {
    if (this.#connection.isLost()) return;
    await this.#connection.send("ROLLBACK").catch(() => undefined);
    await this.#connection.send(resetSession).catch(() => undefined);
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#beating;
    await this.#dropFence();
    await this.#unlock();
    // Not used again: a body may have left anything in it.
    this.#connection.release(true);
  }

  /** By word, not only by closing: the server may notice a closed connection when the next runner has already looked. */
  async #unlock(): Promise<void> {
    if (this.isPooled || this.#connection.isLost()) return;
    await this.rollBack();
    await this.#connection
      .send("SELECT pg_catalog.pg_advisory_unlock_all()", AbortSignal.timeout(this.#bench.times.leaseMs))
      .catch(() => undefined);
  }

  /** The new token is waited for until nobody holds KEY SHARE on the row, so our own fence goes first. */
  async #renewToken(cause: unknown): Promise<void> {
    await this.#beating;
    await this.#dropFence();
    await this.#bench.reconnect(cause);
  }

  /**
   * Waits until no backend works for an earlier token, or has it cancelled: only then does the database say what its
   * statement came to (`protocol.md` 10). On direct connections the lock of the session is proof, because it outlives a
   * lost fence; behind a pooler it would stay with the next client, and the mark of the statements has to do.
   */
  async #lock(): Promise<void> {
    const bench = this.#bench;
    const { stream, token, runId } = bench.key();
    const search = { stream, throughToken: String(token - 1), idleMs: 0, policy: bench.orphans.orphans };
    const attempt = this.isPooled
      ? "SELECT true AS locked"
      : `SELECT pg_catalog.pg_try_advisory_lock(${workerLock(stream)}) AS locked`;
    for (let delayMs = orphanPollMs.shortest; ; delayMs = Math.min(delayMs * 1.5, orphanPollMs.longest)) {
      bench.kept.assertTrusted();
      const [locked, orphans] = await this.#connection.send(`${attempt}; ${selectOrphans(search)}`);
      const found = orphans?.rows ?? [];
      if (locked?.rows[0]?.["locked"] === true && found.length === 0) return;
      for (const row of found) bench.orphans.onOrphan(readOrphan(row, () => runId));
      await sleep(delayMs * (0.5 + Math.random()), undefined, { signal: bench.kept.signal }).catch(() =>
        bench.kept.assertTrusted(),
      );
    }
  }

  async #beat(): Promise<void> {
    const connection = this.#fence?.connection;
    if (connection === undefined || this.#bench.kept.signal.aborted) return;
    try {
      if (this.#isOld()) await this.#refence();
      else await connection.send("SELECT 1", AbortSignal.timeout(this.#bench.times.leaseMs));
    } catch {
      // Seen by assertFenced, before the next statement.
    }
  }

  #isOld(): boolean {
    return (
      this.#fence === undefined ||
      this.#fence.connection.isLost() ||
      performance.now() - this.#fence.since > fenceAgeMs
    );
  }

  /** The new fence stands before the old one goes. */
  async #refence(): Promise<void> {
    if (!this.#isOld()) return;
    const { bench, since } = { bench: this.#bench, since: performance.now() };
    const connection = await bench.directPool.connect(bench.kept.signal);
    try {
      await connection.send(
        `${begin}; SET LOCAL idle_in_transaction_session_timeout = ${bench.times.leaseMs}; ${fence(bench.t, bench.key())}`,
        AbortSignal.timeout(bench.times.leaseMs),
      );
    } catch (cause) {
      connection.release(true);
      if (serverError(cause)?.sqlstate === sqlstate.divisionByZero) await bench.assertOurs();
      throw databaseFailure(cause, bench.shownUrl);
    }
    await this.#dropFence();
    this.#fence = { connection, since };
  }

  async #dropFence(): Promise<void> {
    const connection = this.#fence?.connection;
    this.#fence = undefined;
    if (connection === undefined) return;
    if (!connection.isLost())
      await connection
        .send("ROLLBACK", AbortSignal.timeout(this.#bench.times.leaseMs))
        .catch(() => undefined);
    connection.release();
  }
}

interface Fence {
  readonly connection: Connection;
  /** `performance.now()` */
  readonly since: number;
}
