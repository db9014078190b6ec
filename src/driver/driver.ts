import type { RunnerError } from "../error.ts";
import type { EntryError, EntryOrigin, HistoryEntry, Position } from "../history/entry.ts";
import type {
  BackupRecord,
  Caller,
  RunAction,
  RunAttempt,
  RunOutcome,
  RunRecord,
  RunStatus,
  RunTrigger,
} from "../history/run.ts";
import type { Backfill } from "../migration/backfill.ts";
import type { Direction, Migration, Statement } from "../migration/migration.ts";
import type { HighWaterMark } from "../release/release.ts";

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

  run(id: string, signal: AbortSignal): Promise<RunRecord | undefined>;

  /** Newest first. */
  runs(query: RunQuery, signal: AbortSignal): Promise<readonly RunRecord[]>;

  /**
   * Runs of a target that nobody works on although they have not ended and could be continued: handed over, or their
   * process is gone. In one round trip. Whoever picks a run up, or accepted it, has it to himself for 45 s, and renews that
   * by naming it in `query.own`; what decides in the end is the lease.
   */
  pickUpRuns(query: PickUpQuery, signal: AbortSignal): Promise<readonly PickedUpRun[]>;

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

  close(): Promise<void>;
}

/** One stream's row, and where its history stands. */
export interface StreamState {
  /** false: our tables or the stream's row are not there, all else is as for a fresh stream */
  readonly exists: boolean;
  readonly environment: string | null;
  readonly targetId: string | null;
  readonly highWaterMark: HighWaterMark | null;
  /** digest of the release last applied whole; null after anything that moved the database otherwise */
  readonly completed: string | null;
  /** an entry that is not done, if it is the newest that had an effect: what a next run has to deal with first */
  readonly unfinished: HistoryEntry | null;
  readonly position: Position;
  /** set by a rollback: automatic triggers change nothing until a newer release, or a person, comes */
  readonly held: Hold | null;
  /** the release that failed last: automatic triggers do not try it again */
  readonly failed: FailedRelease | null;
  readonly paused: boolean;
  readonly lease: LeaseHolder | null;
  /** the database's clock */
  readonly now: Date;
}

/** Why a stream waits for a person, or for a newer release. */
export interface Hold {
  readonly runId: string;
  readonly version: string | null;
  readonly reason: string;
  /** the newest release that the database knew then: one above it ends the hold; null where none was signed */
  readonly highWaterMark: HighWaterMark | null;
}

/** A release that failed on this database, and why: sticky until another release, or a person, comes. */
export interface FailedRelease {
  readonly digest: string;
  readonly runId: string;
  readonly error: EntryError;
}

/** Who has the lease, for people who wait. */
export interface LeaseHolder {
  readonly holder: string;
  readonly runId: string;
  readonly token: number;
  readonly acquiredAt: Date;
  readonly expiresAt: Date;
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

/** A held lease. Every write is fenced by its token and run: once another has taken over, all of them throw `LEASE_LOST` and change nothing. */
export interface LeasedSession {
  readonly token: number;
  readonly attempt: RunAttempt;
  /** aborts when the lease may no longer be trusted, a cancel was asked for, or the run's own signal aborts; its reason is a RunnerError */
  readonly signal: AbortSignal;

  /** As `Driver.state`, read again under the lease; asked for before anything is applied. */
  state(): Promise<StreamState>;

  /** Remembers, before the first statement, what is about to be applied; clears `completed`. */
  begin(beginning: RunBeginning): Promise<void>;

  /**
   * Runs bodies, each in a transaction of its own with its history entry, in as few messages as possible.
   * The result says what committed, by the history: a prefix of `steps`, and the failure that ended it, if any.
   */
  applyInTransactions(steps: readonly TransactionStep[], settings: SessionSettings): Promise<AppliedSteps>;

  /**
   * Runs one body statement by statement with checkpoints, beside a fence. Where the outcome of a statement is not
   * known, after a lost connection or from an earlier run (`step.unfinished`), the database is asked before going on.
   *
   * @throws RunnerError `MIGRATION_FAILED` with the entry recorded as failed; `NEEDS_ATTENTION` when no probe can tell the outcome of one statement
   */
  applyStatements(
    step: StatementStep,
    settings: SessionSettings,
    onProgress: (progress: StatementProgress) => void,
  ): Promise<{ readonly durationMs: number }>;

  /** Adds entries that a person declared instead of running them (baseline, repair). */
  declare(entries: readonly DeclaredEntry[]): Promise<void>;

  /**
   * Ends the run's row; `completed` is the release digest now applied whole, `held` the hold that a rollback sets (null
   * clears it). With the status `running` the run goes on: so a hold stands before what it is about begins.
   */
  finish(end: RunEnd): Promise<void>;
}

/** A body in one transaction, ready to send. */
export interface TransactionStep {
  readonly migration: Migration;
  readonly direction: Direction;
  readonly sha256: string;
  readonly path: string;
  /** SQL to send, as text: what `unwrapSql` left of the body */
  readonly sql: string;
  /** characters (code points) of the body before `sql`, to map error positions back */
  readonly sqlOffset: number;
  /** the whole body as text, for line and column */
  readonly text: string;
  /** may share a message with others */
  readonly alone: boolean;
  readonly signed: boolean;
  readonly lockTimeoutMs: number | undefined;
  readonly statementTimeoutMs: number | undefined;
}

/** A body that runs statement by statement. */
export interface StatementStep extends Omit<TransactionStep, "sql" | "sqlOffset" | "alone"> {
  readonly bytes: Buffer;
  readonly statements: readonly Statement[];
  /** index of the first statement to run */
  readonly resumeAt: number;
  /** the entry of an earlier attempt at this very body, whose statement at `resumeAt` may have begun */
  readonly unfinished: HistoryEntry | null;
  /** of the header; the one statement that it is about has the kind `backfill` */
  readonly backfill: Backfill | undefined;
}

/** What is said while a body runs statement by statement. */
export type StatementProgress =
  /** the first `done` statements have taken effect */
  | { readonly kind: "statement"; readonly done: number }
  /** nobody knew whether statement `statement` (from 1) had taken effect; the database told */
  | { readonly kind: "probed"; readonly statement: number; readonly verdict: ProbeVerdict }
  | BackfillProgress;

/** What a probe found: it had taken effect; it had not, or is repeated harmlessly; what it left was cleared away first. */
export type ProbeVerdict = "done" | "not-done" | "cleared";

/** How far a backfill is, after one of its ranges. */
export interface BackfillProgress {
  readonly kind: "backfill";
  /** rows that the statement has changed so far, in earlier runs too */
  readonly rows: number;
  /** of the keys that there were at the start, 0 to 1; null where the key cannot be measured */
  readonly fraction: number | null;
  readonly rowsPerSecond: number;
  /** seconds; null where they cannot be told */
  readonly secondsLeft: number | null;
  /** the throttle's query says that the database is too busy */
  readonly isThrottled: boolean;
}

/** Limits of one run's statements; a migration's header wins over them. 0 = none. */
export interface SessionSettings {
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly appliedBy: string;
  /** told when a body is tried again after a lock timeout, deadlock or serialization failure; `blocker` is who was seen to hold the lock */
  onRetry(path: string, attempt: number, sqlstate: string, delayMs: number, blocker: string | null): void;
}

/** What became of steps in transactions. */
export interface AppliedSteps {
  /** one for each step that committed, in order */
  readonly done: readonly { readonly durationMs: number }[];
  /** why the next one did not; its entry is recorded as failed, the database is as before it */
  readonly failure: RunnerError | null;
}

/** What a person says of one migration, in place of running it. */
export interface DeclaredEntry {
  readonly migration: Pick<Migration, "seq" | "version" | "path" | "sha256" | "size" | "chain">;
  readonly direction: Direction;
  readonly origin: EntryOrigin;
  readonly status: "done" | "failed";
  readonly statementsDone: number;
  readonly statements: number;
  readonly statementChecksums: readonly string[];
  readonly signed: boolean;
  readonly note: string;
  readonly appliedBy: string;
}

/** What is known of a run once it is planned. */
export interface RunBeginning {
  /** null for a plain folder */
  readonly highWaterMark: HighWaterMark | null;
  readonly releaseDigest: string;
  /** of the first attempt where there were several */
  readonly fromVersion: string | null;
  readonly toVersion: string | null;
  readonly steps: number;
  /** where the database stands, and how many attempts before it did not move it: what the next attempt compares with */
  readonly progress?: Pick<RunAttempt, "mark" | "stalls">;
  /** set at once, so that a rollback that stops half way is not undone either */
  readonly held?: Hold;
}

/** How a run ended, and what that makes of its stream. */
export interface RunEnd extends RunChange {
  /** undefined leaves it, null clears it */
  readonly completed?: string | null;
  readonly held?: Hold | null;
  readonly failed?: FailedRelease | null;
}

/** A run that is asked for. */
export interface NewRun {
  readonly id: string;
  readonly target: string;
  readonly stream: string;
  readonly action: RunAction;
  readonly trigger: RunTrigger;
  readonly caller: Caller;
  readonly releaseDigest: string | null;
  readonly labels: Readonly<Record<string, string>>;
  /** what another process needs to go on with it, as JSON that the driver only keeps; absent: nobody else may */
  readonly order?: unknown;
  readonly idempotencyKey: string | null;
  /** sha256 of the request's body; tells an honest retry from another request under the same key or token */
  readonly bodyDigest: string | null;
  /** `(issuer, jti)` of the caller's token, usable for one body only */
  readonly singleUse: { readonly issuer: string; readonly jti: string; readonly expiresAt: Date } | null;
}

/** What a request for a run came to. */
export type AcceptedRun =
  | { readonly kind: "accepted"; readonly state: StreamState }
  /** an honest retry: the run of the first call */
  | { readonly kind: "existing"; readonly run: RunRecord }
  /** the token was used with another body */
  | { readonly kind: "replay" }
  /** the idempotency key was used with another body */
  | { readonly kind: "idempotency-mismatch" };

/** What is to change in a run's row; what is undefined stays as it is. */
export interface RunChange {
  readonly status: RunStatus;
  /** only while the run has had no other attempt than this: a late word of an executor that was replaced changes nothing */
  readonly attempt?: number;
  readonly outcome?: RunOutcome | null;
  readonly releaseDigest?: string | null;
  readonly releaseVersion?: number | null;
  readonly fromVersion?: string | null;
  readonly toVersion?: string | null;
  readonly backup?: BackupRecord;
  readonly error?: EntryError | null;
}

/** Which runs a process would go on with. */
export interface PickUpQuery {
  readonly target: string;
  /** ids of runs that this process has: they stay its own */
  readonly own: readonly string[];
  readonly limit: number;
}

/** A run to go on with. */
export interface PickedUpRun {
  readonly run: RunRecord;
  /** as it was accepted */
  readonly order: unknown;
  /** milliseconds since it was accepted, by the database's clock */
  readonly ageMs: number;
  /** it has begun: `run.fromVersion` and `run.toVersion` are those of its plan */
  readonly hasBegun: boolean;
}

/** Which runs of a target are wanted. */
export interface RunQuery {
  readonly target: string;
  readonly status?: RunStatus;
  readonly since?: Date;
  /** only runs created before the one with this id */
  readonly beforeId?: string;
  readonly limit: number;
}
