import { RunnerError } from "../../error.ts";
import type { HistoryEntry } from "../../history/entry.ts";
import type { AcceptedNoop, AcceptedRun, NewRun, NoopRun, SpentUse } from "../runs.ts";
import type { DatabaseAccess, RdsRoots } from "../access.ts";
import type { AuditLog } from "../audit-log.ts";
import type { ForeignHistories } from "../foreign.ts";
import type { Driver, LeaseOptions } from "../driver.ts";
import type { LeasedSession } from "../session.ts";
import type { StreamState } from "../stream-state.ts";
import { leaseTimes, type LeaseTimes } from "../lease-keeper.ts";
import { noopRecorder } from "./accept-noop.ts";
import { acceptRun } from "./accept-run.ts";
import { auditLog } from "./audit.ts";
import type { ConnectionPool } from "./connection.ts";
import { firstValue, PostgresDatabase } from "./database.ts";
import { foreignHistories } from "./foreign/histories.ts";
import { readEntry, selectHistory } from "./history.ts";
import { forceRelease } from "./lease.ts";
import { changePause } from "./pause.ts";
import { openPool } from "./pool.ts";
import { readRoot, selectRoots } from "./roots.ts";
import {
  newestRun,
  pickUpRuns,
  readPickedUp,
  readRun,
  requestCancel,
  runConditions,
  selectRuns,
  updateRun,
} from "./runs.ts";
import { spendUse } from "./single-use.ts";
import { literal, tableNames } from "./tables.ts";
import type { Together } from "../../together.ts";
import { resetTrust } from "./trust-reset.ts";
import { whereaboutsOf } from "./whereabouts.ts";

/** Settings of a PostgreSQL driver; all but the URL have defaults. */
export interface PostgresOptions {
  /** schema of our own tables */
  readonly schema?: string;
  /** past the pooler, for statements outside transactions */
  readonly directUrl?: string | DatabaseAccess;
  readonly rdsRoots?: RdsRoots;
  /** for tests: shorter leases */
  readonly times?: LeaseTimes;
}

/** Opens a driver; connects when first asked. */
export function openPostgres(url: string | DatabaseAccess, options: PostgresOptions = {}): Driver {
  const open = (access: string | DatabaseAccess): ConnectionPool =>
    openPool(whereaboutsOf(access, options.rdsRoots));
  const t = tableNames(options.schema ?? "lockkeeper");
  const direct = options.directUrl === undefined ? undefined : open(options.directUrl);
  const database = new PostgresDatabase(open(url), t);
  return new PostgresDriver(database, direct, options.times ?? leaseTimes);
}

class PostgresDriver implements Driver {
  readonly audit: AuditLog;
  readonly foreign: ForeignHistories;
  readonly #database: PostgresDatabase;
  readonly #direct: ConnectionPool | undefined;
  readonly #times: LeaseTimes;
  readonly #noops: Together<NoopRun, AcceptedNoop>;

  constructor(database: PostgresDatabase, direct: ConnectionPool | undefined, times: LeaseTimes) {
    this.audit = auditLog(database);
    this.foreign = foreignHistories(database, direct ?? database.pool);
    this.#database = database;
    this.#direct = direct;
    this.#times = times;
    this.#noops = noopRecorder(database);
  }

  get url(): string {
    return this.#database.shownUrl;
  }

  async state(stream: string, signal: AbortSignal): Promise<StreamState> {
    return this.#database.use(signal, (connection) => this.#database.readState(connection, stream, signal));
  }

  async history(
    stream: string,
    query: Parameters<Driver["history"]>[1],
    signal: AbortSignal,
  ): Promise<readonly HistoryEntry[]> {
    const rows = await this.#database.rows(selectHistory(this.#database.t, stream, query), signal);
    return rows.map((row) => readEntry(row));
  }

  async run(id: string, signal: AbortSignal): ReturnType<Driver["run"]> {
    const [row] = await this.#database.rows(selectRuns(this.#database.t, `r.id = ${literal(id)}`, 1), signal);
    return row === undefined ? undefined : readRun(row);
  }

  async runs(query: Parameters<Driver["runs"]>[0], signal: AbortSignal): ReturnType<Driver["runs"]> {
    const { t } = this.#database;
    const { target, limit, ...more } = query;
    const isNewest = limit === 1 && Object.keys(more).length === 0;
    const rows = await (isNewest
      ? this.#database.rowsOf(newestRun(t), { target: literal(target) }, signal)
      : this.#database.rows(selectRuns(t, runConditions(t, query), limit), signal));
    return rows.map(readRun);
  }

  async pickUpRuns(
    query: Parameters<Driver["pickUpRuns"]>[0],
    signal: AbortSignal,
  ): ReturnType<Driver["pickUpRuns"]> {
    const rows = await this.#database.rows(pickUpRuns(this.#database.t, query), signal);
    return rows.map(readPickedUp);
  }

  async updateRun(
    id: string,
    change: Parameters<Driver["updateRun"]>[1],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#database.rows(updateRun(this.#database.t, id, change), signal);
  }

  async requestCancel(id: string, reason: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#database.rows(requestCancel(this.#database.t, id, reason), signal)).length === 1;
  }

  async spendUse(use: SpentUse, signal: AbortSignal): Promise<boolean> {
    const [row] = await this.#database.rows(spendUse(this.#database.t, use), signal);
    return row === undefined || row["lockkeeper_ours"] === true;
  }

  acceptRun(run: NewRun, signal: AbortSignal): Promise<AcceptedRun> {
    const database = this.#database;
    return database.use(signal, (connection) => acceptRun(database, connection, run, signal));
  }

  acceptNoop(noop: NoopRun, signal: AbortSignal): Promise<AcceptedNoop> {
    return this.#noops.add(noop, signal);
  }

  async unlock(
    stream: string,
    runId: string,
    reason: string,
    signal: AbortSignal,
  ): Promise<{ readonly token: number }> {
    return this.#database.use(signal, async (connection) => {
      const before = await this.#database.readState(connection, stream, signal);
      if (before.lease?.runId !== runId) throw notTheHolder(runId, before.lease?.runId);
      const results = await connection.send(forceRelease(this.#database.t, stream, runId), signal);
      const token = firstValue(results, "lockkeeper_token");
      if (token !== undefined) {
        await connection.send(
          updateRun(this.#database.t, runId, {
            status: "failed",
            outcome: "failed",
            error: abandoned(reason),
          }),
          signal,
        );
        return { token: Number(token) };
      }
      const { lease } = await this.#database.readState(connection, stream, signal);
      throw lease?.runId === runId ? stillAlive(lease.expiresAt) : notTheHolder(runId, lease?.runId);
    });
  }

  async roots(stream: string, signal: AbortSignal): ReturnType<Driver["roots"]> {
    return (await this.#database.rows(selectRoots(this.#database.t, stream), signal)).map(readRoot);
  }

  async setPaused(stream: string, paused: boolean, signal: AbortSignal): Promise<boolean> {
    const database = this.#database;
    const message = changePause(database.t, stream, paused);
    return database.use(signal, async (connection) => {
      const results = await database.withTables(connection, signal, () => connection.send(message, signal));
      return firstValue(results, "lockkeeper_paused") !== undefined;
    });
  }

  async resetTrust(
    stream: string,
    what: Parameters<Driver["resetTrust"]>[1],
    signal: AbortSignal,
  ): ReturnType<Driver["resetTrust"]> {
    return resetTrust(this.#database, stream, what, signal);
  }

  async withLease<T>(options: LeaseOptions, work: (session: LeasedSession) => Promise<T>): Promise<T> {
    const { underLease } = await import("./under-lease.ts");
    const parts = { database: this.#database, direct: this.#direct, times: this.#times };
    return underLease(parts, options, work);
  }

  async close(): Promise<void> {
    await this.#database.pool.close();
    await this.#direct?.close();
  }
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
