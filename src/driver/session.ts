import type { RunnerError } from "../error.ts";
import type { EntryOrigin, HistoryEntry } from "../history/entry.ts";
import type { ForeignPlace } from "../history/foreign.ts";
import type { RunAttempt } from "../history/run.ts";
import type { Backfill } from "../migration/backfill.ts";
import type { MigrationFunction, SourcePlace } from "../migration/code.ts";
import type { Direction, Engine, Migration, Statement } from "../migration/migration.ts";
import type { RootState } from "../release/trust/anchor.ts";
import type { HighWaterMark } from "../release/release.ts";
import type { RunChange } from "./runs.ts";
import type { FailedRelease, Hold, StreamState } from "./stream-state.ts";

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
   * Runs one body that is a program inside one fenced transaction, together with its history entry.
   *
   * The program may be called again from its beginning where the transaction met a lock or lost its connection. When the
   * run is to stop, or the lease is lost, nobody waits for it any more, and nothing of its transaction stays.
   * Absent where the server has no transactions.
   */
  applyFunction?(step: FunctionStep, settings: SessionSettings): Promise<AppliedSteps>;

  /**
   * Runs one body statement by statement with checkpoints, beside a fence. Where the outcome of a statement is not
   * known, after a lost connection or from an earlier run (`step.unfinished`), the database is asked before going on.
   *
   * @param next - the body that this method is asked to run after this one, where there is one: its beginning may be recorded
   * together with this one's end. It need not be asked for all the same; nothing of it is done
   * @throws RunnerError `MIGRATION_FAILED` with the entry recorded as failed; `NEEDS_ATTENTION` when no probe can tell the outcome of one statement
   */
  applyStatements(
    step: StatementStep,
    settings: SessionSettings,
    onProgress: (progress: StatementProgress) => void,
    next?: StatementStep,
  ): Promise<{ readonly durationMs: number }>;

  /**
   * Adds entries that a person declared instead of running them (baseline, repair, adopt). `inStep` is the other tool's
   * record that every later entry keeps true, in its own transaction; null ends that, undefined leaves it.
   */
  declare(entries: readonly DeclaredEntry[], inStep?: ForeignPlace | null): Promise<void>;

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
  /** what to send, as text: what `unwrapSql` left of the body, or the whole array of MongoDB's commands */
  readonly sql: string;
  /** characters (code points) of the body before `sql`, to map error positions back */
  readonly sqlOffset: number;
  /** the whole body as text, for line and column */
  readonly text: string;
  /** may share a message with others */
  readonly alone: boolean;
  readonly signed: boolean;
  /** of a checkpoint: the migrations before its own that it stands for; their entries are added with its own, in one transaction */
  readonly covers: readonly Migration[];
  readonly lockTimeoutMs: number | undefined;
  readonly statementTimeoutMs: number | undefined;
}

/** A body that is a program: it is called with a connection instead of being sent. */
export interface FunctionStep extends Omit<TransactionStep, "sql" | "sqlOffset" | "alone"> {
  /** called with the context of the session's own engine */
  readonly run: MigrationFunction<Engine>;
  onOutput(line: string): void;
  /** where in the sources the stack of an error leads to; undefined where it does not touch the program */
  locate(stack: string): SourcePlace | undefined;
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
  /** to be remembered with it, and never lowered; absent where the runner pins its keys itself */
  readonly root?: RootState;
  readonly releaseDigest: string;
  /** of the first attempt where there were several */
  readonly fromVersion: string | null;
  readonly toVersion: string | null;
  readonly steps: number;
  /** those at its beginning that {@link LeasedSession.applyStatements} is about to be asked for; absent: none */
  readonly statementSteps?: number;
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
