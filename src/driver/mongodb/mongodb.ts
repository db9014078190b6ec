import { RunnerError } from "../../error.ts";
import type { HistoryEntry } from "../../history/entry.ts";
import type { RunRecord } from "../../history/run.ts";
import type { Driver, HistoryQuery, LeaseOptions } from "../driver.ts";
import type { AuditLog } from "../audit-log.ts";
import type { ForeignHistories } from "../foreign.ts";
import { leaseTimes, type LeaseTimes } from "../lease-keeper.ts";
import type {
  AcceptedRun,
  NewRun,
  PickedUpRun,
  PickUpQuery,
  RunChange,
  RunQuery,
  SpentUse,
} from "../runs.ts";
import type { LeasedSession } from "../session.ts";
import type { StreamState } from "../stream-state.ts";
import { parseAddress } from "./address.ts";
import { auditLog } from "./audit.ts";
import { MongoDatabase, within } from "./database.ts";
import { databaseFailure } from "./failure.ts";
import { foreignHistories } from "./foreign/histories.ts";
import { readHistory } from "./history.ts";
import { expiryOf, takeAway } from "./lease.ts";
import { readRoots } from "./roots.ts";
import { requestCancel, updateRun } from "./runs.ts";
import { listRuns, readRuns } from "./run-list.ts";
import { spendUse } from "./single-use.ts";
import { readStream, type SeenStream } from "./state.ts";

/** milliseconds that `unlock` waits for a transaction of the dead holder that the server has not ended yet */
const unlockMs = 15_000;

/** Settings that the URL does not hold. */
export interface MongoOptions {
  /** first part of the names of our own collections; default `lockkeeper` */
  readonly schema?: string;
  /** for tests: shorter leases */
  readonly times?: LeaseTimes;
}

/**
 * Opens a driver; connects when first asked.
 *
 * @throws RunnerError `USAGE` - the URL cannot be used; `CONFIG` - MongoDB has no collections with such a prefix
 */
export function openMongo(url: string, options: MongoOptions = {}): Driver {
  const database = new MongoDatabase(parseAddress(url), options.schema ?? "lockkeeper");
  return new MongoDriver(database, options.times ?? leaseTimes);
}

class MongoDriver implements Driver {
  readonly url: string;
  readonly audit: AuditLog;
  readonly foreign: ForeignHistories;
  readonly #database: MongoDatabase;
  readonly #times: LeaseTimes;
  /** what else was seen with a state that somebody was given */
  readonly #seen = new WeakMap<StreamState, SeenStream>();

  constructor(database: MongoDatabase, times: LeaseTimes) {
    this.url = database.shownUrl;
    this.audit = auditLog(database);
    this.foreign = foreignHistories(database);
    this.#database = database;
    this.#times = times;
  }

  async state(stream: string, signal: AbortSignal): Promise<StreamState> {
    const seen = await this.#database.use(signal, () => readStream(this.#database, stream, signal, "known"));
    this.#seen.set(seen.state, seen);
    return seen.state;
  }

  history(stream: string, query: HistoryQuery, signal: AbortSignal): Promise<readonly HistoryEntry[]> {
    return this.#database.use(signal, () => readHistory(this.#database, stream, query));
  }

  async run(id: string, signal: AbortSignal): Promise<RunRecord | undefined> {
    return this.#database.use(signal, async () => {
      const found = await this.#database.collections.runs.findOne({ _id: id });
      const [run] = found === null ? [] : await readRuns(this.#database, [found]);
      return run;
    });
  }

  runs(query: RunQuery, signal: AbortSignal): Promise<readonly RunRecord[]> {
    return this.#database.use(signal, () => listRuns(this.#database, query));
  }

  async pickUpRuns(query: PickUpQuery, signal: AbortSignal): Promise<readonly PickedUpRun[]> {
    const { pickUpRuns } = await import("./accept-run.ts");
    return this.#database.use(signal, () => pickUpRuns(this.#database, query, signal));
  }

  updateRun(id: string, change: RunChange, signal: AbortSignal): Promise<void> {
    return this.#database.use(signal, () => updateRun(this.#database, id, change));
  }

  requestCancel(id: string, reason: string, signal: AbortSignal): Promise<boolean> {
    return this.#database.use(signal, () => requestCancel(this.#database, id, reason));
  }

  spendUse(use: SpentUse, signal: AbortSignal): Promise<boolean> {
    return this.#database.use(signal, () => spendUse(this.#database, use));
  }

  async acceptNoop(): Promise<undefined> {}

  async acceptRun(run: NewRun, signal: AbortSignal): Promise<AcceptedRun> {
    const { acceptRun } = await import("./accept-run.ts");
    return this.#database.use(signal, () => acceptRun(this.#database, run, signal));
  }

  roots(stream: string, signal: AbortSignal): ReturnType<Driver["roots"]> {
    return this.#database.use(signal, () => readRoots(this.#database, stream));
  }

  async setPaused(stream: string, paused: boolean, signal: AbortSignal): Promise<boolean> {
    const { setPaused } = await import("./pause.ts");
    return setPaused(this.#database, stream, paused, signal);
  }

  async resetTrust(
    stream: string,
    what: Parameters<Driver["resetTrust"]>[1],
    signal: AbortSignal,
  ): ReturnType<Driver["resetTrust"]> {
    const { resetTrust } = await import("./trust-reset.ts");
    return this.#database.use(signal, () => resetTrust(this.#database, stream, what, signal));
  }

  async unlock(
    stream: string,
    runId: string,
    reason: string,
    signal: AbortSignal,
  ): Promise<{ readonly token: number }> {
    const { passOn } = await import("./pass-on.ts");
    return this.#database.use(signal, async () => {
      const { lease, state } = await readStream(this.#database, stream, signal);
      if (lease === undefined || lease.runId !== runId) throw notTheHolder(runId, lease?.runId);
      const token = expiryOf(lease) < state.now ? await takeAway(this.#database, lease) : undefined;
      if (token === undefined) {
        const now = await readStream(this.#database, stream, signal);
        const isSame = now.lease !== undefined && now.lease.runId === runId;
        throw isSame ? stillAlive(expiryOf(now.lease)) : notTheHolder(runId, now.lease?.runId);
      }
      // Nobody: whoever has a smaller token can change nothing any more, and this one is no run's.
      await passOn(this.#database, { stream, token, runId: "" }, lease.sessions, {
        waitMs: unlockMs,
        signal,
        targetId: "",
      });
      await updateRun(this.#database, runId, {
        status: "failed",
        outcome: "failed",
        error: abandoned(reason),
      });
      return { token };
    });
  }

  async withLease<T>(options: LeaseOptions, work: (session: LeasedSession) => Promise<T>): Promise<T> {
    const database = this.#database;
    // Most runs find nothing to do, and need none of what works under a lease.
    const [{ takeLease }, { holdLease }] = await Promise.all([
      import("./take-lease.ts"),
      import("./hold-lease.ts"),
    ]);
    let isWorking = false;
    try {
      await within(() => database.assertWritable(options.signal), options.signal);
      const looked = options.looked === undefined ? undefined : this.#seen.get(options.looked);
      const taken = await takeLease(database, options, this.#times.leaseMs, looked);
      return await holdLease(database, taken, options, this.#times, (session) => {
        isWorking = true;
        return work(session);
      });
    } catch (cause) {
      // What the work throws is its own.
      if (isWorking) throw cause;
      options.signal.throwIfAborted();
      throw databaseFailure(cause, this.url);
    }
  }

  close(): Promise<void> {
    return this.#database.close();
  }
}

function stillAlive(expiresAt: Date): RunnerError {
  return new RunnerError("LEASE_ALIVE", `the lease of that run is alive until ${expiresAt.toISOString()}`, {
    hint: "cancel the run instead; a dead holder's lease expires by itself",
  });
}

function notTheHolder(runId: string, holder: string | null | undefined): RunnerError {
  const who =
    holder === undefined || holder === null ? "nobody holds the lease" : `run ${holder} holds the lease`;
  return new RunnerError("UNKNOWN_RUN", `${who}, not run ${runId}`, { hint: "ask status who holds it" });
}

function abandoned(reason: string): NonNullable<RunChange["error"]> {
  return { code: "LEASE_LOST", message: `its lease was taken away: ${reason}`, hint: null, fields: {} };
}
