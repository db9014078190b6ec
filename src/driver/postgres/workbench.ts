import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { KeptLease, LeaseTimes } from "../lease-keeper.ts";
import type { Connection, ConnectionPool, StatementResult } from "./connection.ts";
import { isConnectionLoss } from "./failure.ts";
import { renewToken, type LeaseKey } from "./lease.ts";
import type { ServerFacts } from "./state.ts";
import type { TableNames } from "./tables.ts";
import { cancelRun, resetSession } from "./transaction.ts";

/** What a workbench is made of; the lease is held already. */
export interface WorkbenchParts {
  readonly t: TableNames;
  readonly shownUrl: string;
  readonly environment: string;
  readonly facts: ServerFacts;
  readonly times: LeaseTimes;
  readonly pool: ConnectionPool;
  /** connection for work outside transactions: past the pooler, where there is one */
  readonly directPool: ConnectionPool;
}

/** milliseconds that a person's cancel leaves the current statement to end by itself */
const cancelGraceMs = 3_000;
/** milliseconds after which a server that ignores the cancel is no longer waited for */
const cutAfterCancelMs = 10_000;

/**
 * The one connection that a held lease works on, and what happens to it: it may be lost and replaced, and then the
 * lease has a new token. Lives as long as the lease.
 */
export class Workbench {
  readonly t: TableNames;
  readonly shownUrl: string;
  readonly environment: string;
  readonly facts: ServerFacts;
  readonly times: LeaseTimes;
  readonly directPool: ConnectionPool;
  /** id of the newest history entry of this run that was counted */
  lastEntryId = 0;
  readonly #pool: ConnectionPool;
  #connection: Connection;
  #key: LeaseKey;
  #kept: KeptLease | undefined;
  #isRenewing = false;

  constructor(parts: WorkbenchParts, connection: Connection, key: LeaseKey) {
    this.t = parts.t;
    this.shownUrl = parts.shownUrl;
    this.environment = parts.environment;
    this.facts = parts.facts;
    this.times = parts.times;
    this.directPool = parts.directPool;
    this.#pool = parts.pool;
    this.#connection = connection;
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

  /** Sends a short message of ours. */
  send(message: string): Promise<readonly StatementResult[]> {
    return this.#connection.send(message);
  }

  /** Sends a body, which may take long: when the run is to stop, the server is told to cancel it. */
  sendBody(message: string): Promise<readonly StatementResult[]> {
    return this.sendOn(this.#connection, message);
  }

  /** As {@link sendBody}, on a connection of its own. The message starts with `runMark`. */
  async sendOn(connection: Connection, message: string): Promise<readonly StatementResult[]> {
    const { signal } = this.kept;
    const cut = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    const onAbort = (): void => {
      const isPatient = signal.reason instanceof RunnerError && signal.reason.code === "CANCELED";
      timer = setTimeout(() => void this.#cancel(cut), isPatient ? cancelGraceMs : 0);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await connection.send(message, cut.signal);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
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
    try {
      for (let delayMs = 100; ; delayMs = Math.min(delayMs * 2, 2_000)) {
        this.kept.assertTrusted();
        this.#connection.release(true);
        try {
          this.#connection = await this.#pool.connect(this.kept.signal);
          const results = await this.#connection.send(renewToken(this.t, this.#key, this.times.leaseMs), this.kept.signal);
          const token = results.flatMap((result) => result.rows)[0]?.["lockkeeper_token"];
          if (token === undefined) throw this.#lost(cause);
          this.#key = { ...this.#key, token: Number(token) };
          return;
        } catch (again) {
          const mayRetry = isConnectionLoss(again) || (again instanceof RunnerError && again.code === "DATABASE_UNAVAILABLE");
          if (!mayRetry) throw again;
          await sleep(delayMs * (0.5 + Math.random()), undefined, { signal: this.kept.signal }).catch(() => undefined);
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

  async #cancel(cut: AbortController): Promise<void> {
    const timer = setTimeout(() => cut.abort(), cutAfterCancelMs);
    timer.unref();
    try {
      const connection = await this.#pool.connect(AbortSignal.timeout(cutAfterCancelMs));
      try {
        await connection.send(cancelRun(this.#key));
      } finally {
        connection.release();
      }
    } catch {
      // The database cannot be reached: nobody there to tell, and nothing to wait for.
      cut.abort();
    }
  }

  #lost(cause: unknown): RunnerError {
    return new RunnerError("LEASE_LOST", "the connection was lost, and meanwhile another runner has taken the lease over", {
      hint: "run again to go on where it stopped",
      cause,
    });
  }
}
