import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { HistoryEntry } from "../../history/entry.ts";
import type { AcceptedRun, Driver, LeasedSession, LeaseOptions, NewRun, StreamState } from "../driver.ts";
import { keepLease, leaseTimes, type LeaseTimes } from "../lease-keeper.ts";
import { parseAddress } from "./address.ts";
import { openPool, type Connection, type ConnectionPool, type StatementResult } from "./connection.ts";
import { databaseFailure, serverError } from "./failure.ts";
import { readEntry, selectHistory } from "./history.ts";
import { acquire, forceRelease, heartbeat, insertStream, release, selectCancel } from "./lease.ts";
import {
  acceptRun,
  endDeadRuns,
  insertRun,
  readRun,
  requestCancel,
  runConditions,
  selectEarlier,
  selectRuns,
  updateRun,
} from "./runs.ts";
import { assertFreeSlots } from "./pooler.ts";
import { openSession } from "./session.ts";
import { creationClash, sqlstate } from "./sqlstate.ts";
import { freshState, readFacts, readState, selectFacts, selectState, type ServerFacts } from "./state.ts";
import { createTables, literal, tableNames, type TableNames } from "./tables.ts";
import { Workbench } from "./workbench.ts";

/** Settings of a PostgreSQL driver; all but the URL have defaults. */
export interface PostgresOptions {
  /** schema of our own tables */
  readonly schema?: string;
  /** past the pooler, for statements outside transactions */
  readonly directUrl?: string;
  /** for tests: shorter leases */
  readonly times?: LeaseTimes;
}

/** The oldest server this driver is tested with. */
const oldestVersion = 140_000;
/** milliseconds between two looks at a lease that another holds */
const pollMs = { shortest: 50, longest: 1_000 };
/** milliseconds to give the lease back when the run's connection is lost; else it expires by itself */
const giveBackMs = 5_000;
/** transactions that a run has open at once: its work, and its heartbeats */
const slotsOfRun = 2;
/** tries of creating our tables, when other runners do the same */
const creationTries = 40;

/** Opens a driver; connects when first asked. */
export function openPostgres(url: string, options: PostgresOptions = {}): Driver {
  const address = parseAddress(url);
  const direct = options.directUrl === undefined ? undefined : openPool(parseAddress(options.directUrl));
  return new PostgresDriver(
    address.shown,
    openPool(address),
    direct,
    tableNames(options.schema ?? "lockkeeper"),
    options.times ?? leaseTimes,
  );
}

class PostgresDriver implements Driver {
  readonly url: string;
  readonly #pool: ConnectionPool;
  readonly #direct: ConnectionPool | undefined;
  readonly #t: TableNames;
  readonly #times: LeaseTimes;
  #facts: ServerFacts | undefined;

  constructor(
    url: string,
    pool: ConnectionPool,
    direct: ConnectionPool | undefined,
    t: TableNames,
    times: LeaseTimes,
  ) {
    this.url = url;
    this.#pool = pool;
    this.#direct = direct;
    this.#t = t;
    this.#times = times;
  }

  async state(stream: string, signal: AbortSignal): Promise<StreamState> {
    return this.#use(signal, (connection) => this.#readState(connection, stream, signal));
  }

  async history(
    stream: string,
    query: Parameters<Driver["history"]>[1],
    signal: AbortSignal,
  ): Promise<readonly HistoryEntry[]> {
    const rows = await this.#rows(selectHistory(this.#t, stream, query), signal);
    return rows.map((row) => readEntry(row));
  }

  async run(id: string, signal: AbortSignal): ReturnType<Driver["run"]> {
    const [row] = await this.#rows(selectRuns(this.#t, `r.id = ${literal(id)}`, 1), signal);
    return row === undefined ? undefined : readRun(row);
  }

  async runs(query: Parameters<Driver["runs"]>[0], signal: AbortSignal): ReturnType<Driver["runs"]> {
    const rows = await this.#rows(selectRuns(this.#t, runConditions(query), query.limit), signal);
    return rows.map(readRun);
  }

  async updateRun(
    id: string,
    change: Parameters<Driver["updateRun"]>[1],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#rows(updateRun(this.#t, id, change), signal);
  }

  async requestCancel(id: string, reason: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#rows(requestCancel(this.#t, id, reason), signal)).length === 1;
  }

  async acceptRun(run: NewRun, signal: AbortSignal): Promise<AcceptedRun> {
    return this.#use(signal, async (connection) => {
      const message = `${acceptRun(this.#t, run)}; ${selectState(this.#t, run.stream)}`;
      const results = await this.#withTables(connection, signal, () => connection.send(message, signal));
      const [added, state] = results;
      const stateRow = state?.rows[0];
      if (added?.rows.length === 1 && stateRow !== undefined)
        return { kind: "accepted", state: readState(stateRow) };
      return this.#earlier(connection, run, signal);
    });
  }

  async unlock(
    stream: string,
    runId: string,
    reason: string,
    signal: AbortSignal,
  ): Promise<{ readonly token: number }> {
    return this.#use(signal, async (connection) => {
      const before = await this.#readState(connection, stream, signal);
      if (before.lease?.runId !== runId) throw notTheHolder(runId, before.lease?.runId);
      const results = await connection.send(forceRelease(this.#t, stream, runId), signal);
      const token = firstValue(results, "lockkeeper_token");
      if (token !== undefined) {
        await connection.send(
          updateRun(this.#t, runId, { status: "failed", outcome: "failed", error: abandoned(reason) }),
          signal,
        );
        return { token: Number(token) };
      }
      const { lease } = await this.#readState(connection, stream, signal);
      throw lease?.runId === runId ? stillAlive(lease.expiresAt) : notTheHolder(runId, lease?.runId);
    });
  }

  async withLease<T>(options: LeaseOptions, work: (session: LeasedSession) => Promise<T>): Promise<T> {
    const connection = await this.#pool.connect(options.signal);
    let bench: Workbench | undefined;
    try {
      const { token, backendPid, acquiredAt } = await this.#takeLease(connection, options);
      bench = new Workbench(
        {
          t: this.#t,
          shownUrl: this.url,
          environment: options.environment,
          facts: await this.#knownFacts(connection),
          isPooled: connection.processId !== backendPid,
          times: this.#times,
          pool: this.#pool,
          directPool: this.#direct ?? this.#pool,
        },
        connection,
        { stream: options.stream, token, runId: options.run.id },
      );
      return await this.#workUnder(bench, acquiredAt, options.signal, work);
    } catch (cause) {
      throw databaseFailure(cause, this.url);
    } finally {
      // Without a bench the lease was not taken, and nobody knows what the connection was in the middle of.
      if (bench === undefined) connection.release(true);
      else bench.close();
    }
  }

  async close(): Promise<void> {
    await this.#pool.close();
    await this.#direct?.close();
  }

  /** Heartbeats go by a connection of their own, opened when the first is due, because the bench's may be busy. */
  async #workUnder<T>(
    bench: Workbench,
    acquiredAt: number,
    signal: AbortSignal,
    work: (session: LeasedSession) => Promise<T>,
  ): Promise<T> {
    let line: Connection | undefined;
    const ask = async (
      message: string,
      withinMs = this.#times.leaseMs,
    ): Promise<readonly StatementResult[]> => {
      const patience = AbortSignal.timeout(withinMs);
      if (line?.isLost() === true) {
        line.release(true);
        line = undefined;
      }
      line ??= await this.#pool.connect(patience);
      return line.send(message, patience);
    };
    const kept = keepLease(
      {
        renew: async () => {
          const key = bench.key();
          const [result] = await ask(heartbeat(this.#t, key, this.#times.leaseMs));
          if (result?.rows.length === 1) return true;
          if (bench.isRenewing() || bench.key().token !== key.token)
            throw new Error("the token was renewed meanwhile");
          return false;
        },
        cancelReason: async () => {
          const value = firstValue(await ask(selectCancel(this.#t, bench.key().runId)), "cancel_reason");
          return typeof value === "string" ? value : undefined;
        },
      },
      this.#times,
      acquiredAt,
      signal,
    );
    bench.guardBy(kept);
    try {
      if (bench.isPooled) await assertFreeSlots(this.#pool, slotsOfRun, this.url, kept.signal);
      return await work(openSession(bench));
    } finally {
      await kept.stop();
      const giveBack = release(this.#t, bench.key());
      await bench
        .send(giveBack)
        .catch(() => ask(giveBack, giveBackMs))
        .catch(() => undefined);
      line?.release();
    }
  }

  async #takeLease(connection: Connection, options: LeaseOptions): Promise<TakenLease> {
    const giveUpAt = performance.now() + options.waitMs;
    let isFree = true;
    for (let delayMs = pollMs.shortest; ; delayMs = Math.min(delayMs * 1.5, pollMs.longest)) {
      options.signal.throwIfAborted();
      const acquiredAt = performance.now();
      const taken = isFree
        ? await this.#withTables(connection, options.signal, () => this.#tryLease(connection, options))
        : undefined;
      if (taken !== undefined) return { ...taken, acquiredAt };
      const state = await this.#readState(connection, options.stream, options.signal);
      if (!state.exists) {
        await connection.send(insertStream(this.#t, options.stream), options.signal);
        continue;
      }
      options.assertStillWanted?.(state);
      // Who waits looks at the row, and tries only when it says that trying may succeed.
      const wasFree = isFree;
      isFree = state.lease === null || state.lease.expiresAt < state.now;
      if (isFree && !wasFree) continue;
      if (state.lease !== null) options.onWaiting(state.lease);
      await this.#assertNotCanceled(connection, options);
      if (performance.now() >= giveUpAt)
        throw heldBy(state, `and did not finish within ${Math.round(options.waitMs / 1000)} s`);
      await sleep(delayMs * (0.5 + Math.random()), undefined, { signal: options.signal }).catch(() =>
        options.signal.throwIfAborted(),
      );
    }
  }

  /** A run that waits has no heartbeat that would tell it. */
  async #assertNotCanceled(connection: Connection, { run, signal }: LeaseOptions): Promise<void> {
    const reason = firstValue(await connection.send(selectCancel(this.#t, run.id), signal), "cancel_reason");
    if (typeof reason === "string") throw new RunnerError("CANCELED", `the run was asked to stop: ${reason}`);
  }

  async #tryLease(
    connection: Connection,
    options: LeaseOptions,
  ): Promise<Omit<TakenLease, "acquiredAt"> | undefined> {
    const { stream, run, holder, targetId } = options;
    const isHolder = `EXISTS (SELECT FROM ${this.#t.streams} WHERE name = ${literal(stream)} AND run_id = ${literal(run.id)})`;
    const also = `${endDeadRuns(this.#t, stream, run.id, isHolder)}; ${insertRun(this.#t, run, "running", isHolder)}; UPDATE ${this.#t.runs} SET status = 'running', started_at = coalesce(started_at, pg_catalog.clock_timestamp()) WHERE id = ${literal(run.id)} AND status IN ('queued', 'waiting_lock') AND ${isHolder}`;
    try {
      const results = await connection.send(
        acquire(this.#t, { stream, runId: run.id, holder, targetId, leaseMs: this.#times.leaseMs }, also),
        options.signal,
      );
      const token = firstValue(results, "lockkeeper_token");
      return token === undefined
        ? undefined
        : { token: Number(token), backendPid: Number(firstValue(results, "lockkeeper_backend")) };
    } catch (cause) {
      await connection.send("ROLLBACK").catch(() => undefined);
      throw cause;
    }
  }

  async #readState(connection: Connection, stream: string, signal: AbortSignal): Promise<StreamState> {
    try {
      const [result] = await connection.send(selectState(this.#t, stream), signal);
      const row = result?.rows[0] ?? {};
      this.#learn(row);
      return readState(row);
    } catch (cause) {
      if (serverError(cause)?.sqlstate !== sqlstate.undefinedTable) throw cause;
      const [result] = await connection.send(selectFacts, signal);
      const row = result?.rows[0] ?? {};
      this.#learn(row);
      return freshState(row);
    }
  }

  /** Runs `action`, and where it finds our tables absent creates them first. */
  async #withTables<T>(connection: Connection, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      if (serverError(cause)?.sqlstate !== sqlstate.undefinedTable) throw cause;
    }
    await this.#knownFacts(connection);
    for (let attempt = 1; ; attempt += 1) {
      try {
        await connection.send(createTables(this.#t), signal);
        return await action();
      } catch (cause) {
        await connection.send("ROLLBACK").catch(() => undefined);
        const code = serverError(cause)?.sqlstate;
        const isClash = code !== undefined && (creationClash.has(code) || code === sqlstate.undefinedTable);
        if (!isClash || attempt === creationTries) throw cause;
        await sleep(20 + Math.random() * 30 * Math.min(attempt, 10), undefined, { signal });
      }
    }
  }

  async #earlier(connection: Connection, run: NewRun, signal: AbortSignal): Promise<AcceptedRun> {
    const [result] = await connection.send(selectEarlier(this.#t, run), signal);
    const rows = result?.rows ?? [];
    for (const [by, refusal] of [
      ["token", "replay"],
      ["key", "idempotency-mismatch"],
    ] as const) {
      const row = rows.find((candidate) => candidate["lockkeeper_by"] === by);
      if (row === undefined) continue;
      if (row["body_digest"] !== (run.bodyDigest ?? row["body_digest"])) return { kind: refusal };
      const earlier = await connection.send(
        selectRuns(this.#t, `r.id = ${literal(String(row["run_id"]))}`, 1),
        signal,
      );
      const [found] = earlier.flatMap((part) => part.rows);
      if (found !== undefined) return { kind: "existing", run: readRun(found) };
    }
    throw new RunnerError("INTERNAL", "a run was neither added nor found");
  }

  async #rows(message: string, signal: AbortSignal): Promise<StatementResult["rows"]> {
    return this.#use(signal, async (connection) => {
      try {
        const [result] = await connection.send(message, signal);
        return result?.rows ?? [];
      } catch (cause) {
        if (serverError(cause)?.sqlstate === sqlstate.undefinedTable) return [];
        throw cause;
      }
    });
  }

  async #use<T>(signal: AbortSignal, action: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#pool.connect(signal);
    let isBroken = true;
    try {
      const result = await action(connection);
      isBroken = false;
      return result;
    } catch (cause) {
      signal.throwIfAborted();
      throw databaseFailure(cause, this.url);
    } finally {
      // After an error it may be in the middle of a transaction.
      connection.release(isBroken);
    }
  }

  async #knownFacts(connection: Connection): Promise<ServerFacts> {
    if (this.#facts === undefined) {
      const [result] = await connection.send(selectFacts);
      this.#learn(result?.rows[0] ?? {});
    }
    if (this.#facts === undefined) throw new RunnerError("INTERNAL", "the server's facts came back empty");
    if (this.#facts.isReadOnly) {
      throw new RunnerError("DATABASE_READ_ONLY", `${this.url}: the database takes no writes`, {
        hint: "connect to the primary, or make the database writable",
      });
    }
    return this.#facts;
  }

  #learn(row: Parameters<typeof readFacts>[0]): void {
    this.#facts = readFacts(row);
    if (this.#facts.versionNumber < oldestVersion) {
      throw new RunnerError(
        "DATABASE_UNSUPPORTED",
        `${this.url}: the server is PostgreSQL ${Math.floor(this.#facts.versionNumber / 10_000)}`,
        {
          hint: "lockkeeper works with PostgreSQL 14 and later",
        },
      );
    }
  }
}

interface TakenLease {
  readonly token: number;
  readonly backendPid: number;
  /** `performance.now()` before it was asked for */
  readonly acquiredAt: number;
}

function firstValue(results: readonly StatementResult[], column: string): unknown {
  return results.flatMap((result) => result.rows).find((row) => column in row)?.[column];
}

function heldBy(state: StreamState, why: string): RunnerError {
  const { lease } = state;
  const who =
    lease === null
      ? "a statement of an earlier run"
      : `run ${lease.runId} on ${lease.holder}, since ${lease.acquiredAt.toISOString()},`;
  return new RunnerError("LEASE_HELD", `${who} holds the lease ${why}`, {
    hint: "wait for it (--wait), or see what it does with status",
    fields:
      lease === null ? {} : { run: lease.runId, holder: lease.holder, since: lease.acquiredAt.toISOString() },
  });
}

function stillAlive(expiresAt: Date): RunnerError {
  return new RunnerError("LEASE_ALIVE", `the lease of that run is alive until ${expiresAt.toISOString()}`, {
    hint: "cancel the run instead; a dead holder's lease expires by itself",
  });
}

function notTheHolder(runId: string, holder: string | undefined): RunnerError {
  const who = holder === undefined ? "nobody holds the lease" : `run ${holder} holds the lease`;
  return new RunnerError("UNKNOWN_RUN", `${who}, not run ${runId}`, { hint: "ask status who holds it" });
}

function abandoned(reason: string): NonNullable<Parameters<Driver["updateRun"]>[1]["error"]> {
  return { code: "LEASE_LOST", message: `its lease was taken away: ${reason}`, hint: null, fields: {} };
}
