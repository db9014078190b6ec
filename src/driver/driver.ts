import type { HistoryEntry } from "../history/entry.ts";
import type { RunRecord } from "../history/run.ts";
import type { RootFile } from "../release/trust/anchor.ts";
import type { HighWaterMark } from "../release/release.ts";
import type { AuditLog } from "./audit-log.ts";
import type { ForeignHistories } from "./foreign.ts";
import type {
  AcceptedNoop,
  AcceptedRun,
  NewRun,
  NoopRun,
  PickUpQuery,
  PickedUpRun,
  RunChange,
  RunQuery,
  SpentUse,
} from "./runs.ts";
import type { LeasedSession } from "./session.ts";
import type { LeaseHolder, StreamState } from "./stream-state.ts";

/**
 * Everything known of one database. The executor speaks to this interface only;
 * implementations pass `driverSuite` of `test/conformance/driver.ts`.
 *
 * All methods throw `DATABASE_UNAVAILABLE`, `DATABASE_DENIED`, `DATABASE_TLS`, `DATABASE_READ_ONLY` or `DATABASE_FULL`
 * where the database cannot be used, and never put a password into a message.
 */
export interface Driver {
  /** `postgres://user@host:port/database`, without password, for people */
  readonly url: string;

  /** What the database says of a stream, in one round trip; works before any of our tables exist. */
  state(stream: string, signal: AbortSignal): Promise<StreamState>;

  /** Entries of a stream, oldest first; empty before our tables exist. */
  history(stream: string, query: HistoryQuery, signal: AbortSignal): Promise<readonly HistoryEntry[]>;

  /**
   * Takes the lease of a stream, or waits for it, and runs `work` while it is held; creates our tables first where they are absent.
   *
   * The session's signal aborts as soon as the lease may no longer be trusted. Released also when `work` throws.
   *
   * @throws RunnerError `LEASE_HELD` when another holder still has it after `options.waitMs`
   * @throws RunnerError `LEASE_LOST` when the database says another has it now
   * @throws RunnerError `RUN_ENDED` when the run of `options.run` has ended already
   */
  withLease<T>(options: LeaseOptions, work: (session: LeasedSession) => Promise<T>): Promise<T>;

  /**
   * Records that a run was asked for, with its single-use id, in one round trip; creates our tables where absent.
   * A repeated call with the same single-use id or idempotency key and the same body gives the run of the first call.
   */
  acceptRun(run: NewRun, signal: AbortSignal): Promise<AcceptedRun>;

  /**
   * Records a run that was over before it began, because there was nothing to do: as {@link acceptRun}, with its end and its
   * records of the audit log, all in one transaction or not at all.
   *
   * @returns undefined where the database has no such transaction: nothing was recorded
   * @throws RunnerError `AUDIT_UNAVAILABLE` — other writers were quicker all the time; `DATABASE_…`
   */
  acceptNoop(noop: NoopRun, signal: AbortSignal): Promise<AcceptedNoop | undefined>;

  /**
   * Uses up a single-use id for an act on a run that is there, such as canceling it; for another, `acceptRun` takes it no more.
   * False when it was used for something else; true again for the same body. Does nothing where our tables, or the run, are absent.
   */
  spendUse(use: SpentUse, signal: AbortSignal): Promise<boolean>;

  run(id: string, signal: AbortSignal): Promise<RunRecord | undefined>;

  /** Newest first. */
  runs(query: RunQuery, signal: AbortSignal): Promise<readonly RunRecord[]>;

  /**
   * Runs of a target that nobody works on although they have not ended and could be continued: handed over, or their
   * process is gone. In one round trip. Whoever picks a run up, or accepted it, has it to himself for 45 s, and renews that
   * by naming it in `query.own`; what decides in the end is the lease.
   */
  pickUpRuns(query: PickUpQuery, signal: AbortSignal): Promise<readonly PickedUpRun[]>;

  /** what was decided and done, by whom */
  readonly audit: AuditLog;

  /** Roots that were remembered with `session.begin`, oldest first; empty before our tables exist. */
  roots(stream: string, signal: AbortSignal): Promise<readonly RootFile[]>;

  /**
   * Sets or ends a stream's pause, which stops every run of it that has not begun; creates its row where there is none.
   *
   * @returns whether that changed anything
   * @throws RunnerError `LEASE_HELD` — on MongoDB, where a transaction of a run that is under way does not end
   */
  setPaused(stream: string, paused: boolean, signal: AbortSignal): Promise<boolean>;

  /**
   * Forgets what keeps a stream from taking older or other trust, after the trust itself was replaced: its roots, and with
   * `releases` also its high-water mark. History and chain stay.
   *
   * @throws RunnerError `LEASE_HELD` — a run is on its way
   */
  resetTrust(stream: string, what: { readonly releases: boolean }, signal: AbortSignal): Promise<TrustReset>;

  /** Changes a run's row outside the lease: how a run that never got that far ends. Does nothing to one that has ended, or that has had another attempt than `change.attempt` since. */
  updateRun(id: string, change: RunChange, signal: AbortSignal): Promise<void>;

  /** Asks whoever executes the run to stop, and ends it where it is between two executors; false when it has already ended. */
  requestCancel(id: string, reason: string, signal: AbortSignal): Promise<boolean>;

  /**
   * Takes the lease from a holder that died, by name of its run; the token grows, so the old holder can write nothing more.
   *
   * @throws RunnerError `LEASE_ALIVE` while the lease has not expired; `UNKNOWN_RUN` when another run, or none, holds it
   */
  unlock(
    stream: string,
    runId: string,
    reason: string,
    signal: AbortSignal,
  ): Promise<{ readonly token: number }>;

  /** What other tools left in this database. */
  readonly foreign: ForeignHistories;

  close(): Promise<void>;
}

/** Which entries of a stream are wanted. */
export interface HistoryQuery {
  /** only entries with a greater id */
  readonly afterId?: number;
  readonly runId?: string;
  /** the newest `last` entries (still oldest first) */
  readonly last?: number;
}

/** Who asks for the lease of which stream, and how long to wait for it. */
export interface LeaseOptions {
  readonly stream: string;
  readonly environment: string;
  readonly targetId: string;
  /** the run's row is added when it is not there yet */
  readonly run: NewRun;
  /** host and process, for people */
  readonly holder: string;
  /** milliseconds to wait for another holder; 0 tries once */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** what to do with a statement of a dead holder that its server still works on */
  readonly orphans: OrphanPolicy;
  /** what `state` gave a moment ago: what still holds of it need not be asked for again */
  readonly looked?: StreamState;
  /** called while another holds it, at every try */
  onWaiting(holder: LeaseHolder): void;
  /** called while a statement of a dead holder is in the way, at every try */
  onOrphan(orphan: Orphan): void;
  /** called with what the database says between two tries; a RunnerError that it throws ends the wait, and is what `withLease` throws */
  assertStillWanted?(state: StreamState): void;
}

/** `wait` until it has ended by itself, within `waitMs`; `cancel` it on the server, and go on when it is gone. */
export type OrphanPolicy = "wait" | "cancel";

/** A statement that outlived its runner: the lease has expired, and the server still works on it. */
export interface Orphan {
  /** run that it belonged to, where that is known */
  readonly runId: string | null;
  /** process id of its backend */
  readonly pid: number;
  /** by the database's clock */
  readonly since: Date;
  readonly isCanceled: boolean;
}

/** What a stream remembered before it was made to forget it. */
export interface TrustReset {
  readonly rootVersion: number | null;
  /** null where there was none, or it was left */
  readonly highWaterMark: HighWaterMark | null;
}
