import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import type { RunAttempt } from "../../history/run.ts";
import type { LeaseOptions } from "../driver.ts";
import type { SessionSettings } from "../session.ts";
import type { KeptLease, LeaseTimes } from "../lease-keeper.ts";
import type { Blocker } from "./blocker.ts";
import { answerMs, type Connection, type ConnectionPool, type StatementResult } from "./connection.ts";
import { databaseFailure, isConnectionLoss, serverError } from "./failure.ts";
import type { KnownEntries } from "./history.ts";
import { fenced, renewToken, selectOurs, type LeaseKey } from "./lease.ts";
import { awaitAnswer, sendLong, type Sender } from "./send-long.ts";
import { sqlstate } from "./sqlstate.ts";
import type { ServerFacts } from "./state.ts";
import type { TableNames } from "./tables.ts";
import { resetSession } from "./transaction.ts";

/** What a workbench is made of; the lease is held already. */
export interface WorkbenchParts {
  readonly t: TableNames;
  readonly shownUrl: string;
  readonly environment: string;
  readonly facts: ServerFacts;
  /** a pooler lies between us and the server */
  readonly isPooled: boolean;
  readonly times: LeaseTimes;
  readonly pool: ConnectionPool;
  /** connection for work outside transactions: past the pooler, where there is one */
  readonly directPool: ConnectionPool;
  readonly orphans: OrphanRules;
}

/** What to do about statements that nobody waits for any more, and whom to tell. */
export type OrphanRules = Pick<LeaseOptions, "orphans" | "onOrphan">;

/**
 * The one connection that a held lease works on, and what happens to it: it may be lost and replaced, and then the
 * lease has a new token. Lives as long as the lease.
 */
export class Workbench {
  readonly t: TableNames;
  readonly shownUrl: string;
  readonly environment: string;
  readonly facts: ServerFacts;
  readonly isPooled: boolean;
  readonly times: LeaseTimes;
  readonly directPool: ConnectionPool;
  readonly orphans: OrphanRules;
  readonly attempt: RunAttempt;
  /** id of the newest history entry of this run that was counted */
  lastEntryId = 0;
  /** who was seen to keep the body that failed last waiting for a lock, in this try or an earlier one */
  blocker: Blocker | undefined;
  /** another tool's record that is kept true; as the stream's row said when it was read under the lease */
  inStep: ForeignPlace | null = null;
  /** whose frame the connection has prepared, under the key as it is; see `prepareFrame` */
  preparedFor: SessionSettings | undefined;
  readonly #pool: ConnectionPool;
  #connection: Connection;
  readonly #firstToken: number;
  #key: LeaseKey;
  #kept: KeptLease | undefined;
  #isRenewing = false;

  constructor(parts: WorkbenchParts, connection: Connection, key: LeaseKey, attempt: RunAttempt) {
    this.attempt = attempt;
    this.t = parts.t;
    this.shownUrl = parts.shownUrl;
    this.environment = parts.environment;
    this.facts = parts.facts;
    this.isPooled = parts.isPooled;
    this.times = parts.times;
    this.directPool = parts.directPool;
    this.orphans = parts.orphans;
    this.#pool = parts.pool;
    this.#connection = connection;
    connection.forget();
    this.#firstToken = key.token;
    this.#key = key;
  }

  /** Starts to be guarded by the heartbeats of `kept`. */
  guardBy(kept: KeptLease): void {
    this.#kept = kept;
  }

  get kept(): KeptLease {
    if (this.#kept === undefined) throw new TypeError("the workbench is not guarded yet");
    return this.#kept;
  }

  /** What of the run's history was counted so far. */
  knownEntries(): KnownEntries {
    return { runId: this.#key.runId, firstToken: this.#firstToken, lastId: this.lastEntryId };
  }

  key(): LeaseKey {
    return this.#key;
  }

  /** true while a new token is being taken: an answer about the old one then says nothing */
  isRenewing(): boolean {
    return this.#isRenewing;
  }

  isLost(): boolean {
    return this.#connection.isLost();
  }

  /** statements of the last message that the server completed */
  completed(): number {
    return this.#connection.completed();
  }

  /** Sends a short message of ours, which waits for nobody: a connection that does not answer in time is given up. */
  send(message: string): Promise<readonly StatementResult[]> {
    return this.#connection.send(message, AbortSignal.timeout(Math.max(this.times.leaseMs, answerMs)));
  }

  /** Sends a body, which may take long: when the run is to stop, the server is told to cancel it. */
  sendBody(
    message: string,
    lockTimeoutMs: number,
    values: readonly unknown[] = [],
  ): Promise<readonly StatementResult[]> {
    return this.sendOn(this.#connection, message, lockTimeoutMs, values);
  }

  /**
   * As {@link sendBody}, on a connection of its own. The message starts with `runMark`.
   *
   * @param lockTimeoutMs - that of its statements; 0 or none: it is not looked who blocks them
   */
  async sendOn(
    connection: Connection,
    message: string,
    lockTimeoutMs = 0,
    values: readonly unknown[] = [],
  ): Promise<readonly StatementResult[]> {
    const sent = { message, values, lockTimeoutMs };
    const results = await sendLong(this.#sender(), connection, sent, (blocker) => {
      this.blocker = blocker;
    });
    this.blocker = undefined;
    return results;
  }

  /**
   * Writes our own state under the fence.
   *
   * @throws RunnerError `LEASE_LOST` - another has the lease; nothing was written
   */
  async write(statements: string): Promise<readonly StatementResult[]> {
    this.kept.assertTrusted();
    try {
      return await this.send(fenced(this.t, this.#key, statements));
    } catch (cause) {
      if (this.isLost()) throw cause;
      await this.rollBack();
      await this.assertOurs();
      throw databaseFailure(cause, this.shownUrl);
    }
  }

  /**
   * As {@link write}, once more on a new connection, under a new token, where the old one was lost: for what says how
   * things are, so that a second time changes nothing.
   */
  async writeThrough(statements: string): Promise<readonly StatementResult[]> {
    try {
      return await this.write(statements);
    } catch (cause) {
      if (!this.isLost()) throw cause;
      await this.reconnect(cause);
      return this.write(statements);
    }
  }

  /** The last words of a run that is to stop: written under the fence although its signal has fired; what fails is left unsaid. */
  async lastWrite(statements: string): Promise<void> {
    await this.send(fenced(this.t, this.#key, statements)).catch(() => this.rollBack());
  }

  /**
   * After a message failed on a connection that is still there: whether the failure was that the run is to stop, or
   * that the lease is lost.
   */
  async assertMayGoOn(cause: unknown): Promise<void> {
    if (this.kept.signal.aborted && serverError(cause)?.sqlstate === sqlstate.queryCanceled)
      this.kept.assertTrusted();
    await this.assertOurs();
  }

  /** @throws RunnerError `LEASE_LOST` - token and run are no longer ours */
  async assertOurs(): Promise<void> {
    const [result] = await this.send(selectOurs(this.t, this.#key));
    if (result?.rows.length === 1) return;
    throw new RunnerError("LEASE_LOST", "the lease of this run is lost: another runner has taken it over", {
      hint: "nothing was written after that; run again to go on where it stopped",
    });
  }

  /** Ends whatever transaction a failed message left, and undoes its settings. */
  async rollBack(): Promise<void> {
    if (this.isLost()) return;
    await this.#connection.send("ROLLBACK").catch(() => undefined);
    await this.#connection.send(resetSession).catch(() => undefined);
  }

  /**
   * After the connection was lost: a new one, and with it a new token, which waits for the transaction that the old
   * connection may still be in.
   *
   * @throws RunnerError `LEASE_LOST` when another has taken over; the run's own reason when it is to stop
   */
  async reconnect(cause: unknown): Promise<void> {
    this.#isRenewing = true;
    this.preparedFor = undefined;
    try {
      for (let delayMs = 100; ; delayMs = Math.min(delayMs * 2, 2_000)) {
        this.kept.assertTrusted();
        this.#connection.release(true);
        try {
          this.#connection = await this.#pool.connect(this.kept.signal);
          this.#connection.forget();
          const message = renewToken(this.t, this.#key, this.times.leaseMs);
          const results = await awaitAnswer(this.#sender(), this.#connection, message, this.kept.signal);
          const token = results.flatMap((result) => result.rows)[0]?.["lockkeeper_token"];
          if (token === undefined) throw this.#lost(cause);
          this.#key = { ...this.#key, token: Number(token) };
          return;
        } catch (again) {
          const mayRetry =
            isConnectionLoss(again) ||
            (again instanceof RunnerError && again.code === "DATABASE_UNAVAILABLE");
          if (!mayRetry) throw again;
          await sleep(delayMs * (0.5 + Math.random()), undefined, { signal: this.kept.signal }).catch(
            () => undefined,
          );
        }
      }
    } finally {
      this.#isRenewing = false;
    }
  }

  /** Gives the connection back. */
  close(): void {
    this.#connection.release();
  }

  #sender(): Sender {
    return {
      pool: this.#pool,
      signal: this.kept.signal,
      isPooled: this.isPooled,
      key: () => this.#key,
    };
  }

  #lost(cause: unknown): RunnerError {
    return new RunnerError(
      "LEASE_LOST",
      "the connection was lost, and meanwhile another runner has taken the lease over",
      {
        hint: "run again to go on where it stopped",
        cause,
      },
    );
  }
}
