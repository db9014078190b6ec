import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { Connection, StatementResult } from "./connection.ts";
import { databaseFailure, serverError } from "./failure.ts";
import { begin, fence, workerLock } from "./lease.ts";
import { assertFreeSlots, isThroughPooler } from "./pooler.ts";
import { sqlstate } from "./sqlstate.ts";
import { resetSession } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** transactions that a body outside transactions has open at once: fence, statement, heartbeats and checkpoints */
const slotsOfWorker = 3;
/** milliseconds after which a fence is replaced by a new one: while it is open, vacuum cannot clean up behind it */
const fenceAgeMs = 60_000;
/** milliseconds to wait for the worker's lock, which others hold for a moment when they try for the lease */
const workerLockMs = 10_000;

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

  /** After the statements' connection was lost: a new one, once the old one's transaction has ended. */
  async regain(cause: unknown): Promise<void> {
    await this.#renewToken(cause);
    this.#connection.release(true);
    this.#connection = await this.#bench.directPool.connect(this.#bench.kept.signal);
    await this.#lock();
    await this.#refence();
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

  /** On direct connections a lock of the session outlives a lost fence; behind a pooler it would stay with the next client. */
  async #lock(): Promise<void> {
    if (this.isPooled) return;
    const giveUpAt = performance.now() + workerLockMs;
    for (;;) {
      const [result] = await this.#connection.send(
        `SELECT pg_catalog.pg_try_advisory_lock(${workerLock(this.#bench.key().stream)}) AS locked`,
      );
      if (result?.rows[0]?.["locked"] === true) return;
      this.#bench.kept.assertTrusted();
      if (performance.now() > giveUpAt) {
        throw new RunnerError("LEASE_HELD", "a statement of an earlier run is still under way", {
          hint: "run again when it has ended",
        });
      }
      await sleep(20 + Math.random() * 30);
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
