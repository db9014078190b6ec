import type { EntryError } from "./entry.ts";

/** One row of `runs`: one request to change a database and what became of it. */
export interface RunRecord {
  /** `<target>.<ULID>` */
  readonly id: string;
  readonly target: string;
  readonly stream: string;
  readonly action: RunAction;
  readonly status: RunStatus;
  /** set once the run has ended */
  readonly outcome: RunOutcome | null;
  readonly trigger: RunTrigger;
  readonly caller: Caller;
  readonly releaseDigest: string | null;
  readonly releaseVersion: number | null;
  /** versions, as text; null before the first migration */
  readonly fromVersion: string | null;
  readonly toVersion: string | null;
  readonly progress: RunProgress;
  readonly labels: Readonly<Record<string, string>>;
  readonly cancelRequested: boolean;
  /** executors that have had it so far, each under a lease of its own */
  readonly attempt: number;
  readonly createdAt: Date;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
  /** null where none was asked for, or it has not ended yet */
  readonly backup: BackupRecord | null;
  readonly error: EntryError | null;
}

/** What became of the backup before a run's first step. */
export interface BackupRecord {
  /** `command pg_dump`, `webhook https://backup.example`: without arguments, path and query, which may hold a secret */
  readonly by: string;
  readonly durationMs: number;
  /** `stopped`: the run was canceled, passed its deadline or lost its lease meanwhile */
  readonly result: "done" | "failed" | "stopped";
}

/** What a run was asked to do. */
export type RunAction = "apply" | "rollback";
/** How far a run is. */
export type RunStatus =
  | "queued"
  | "waiting_lock"
  | "running"
  /** its executor's time was over, or it was lost: the next one goes on with it */
  | "handing_over"
  | "canceling"
  | "succeeded"
  | "failed"
  | "canceled";
/** What a run came to. */
export type RunOutcome = "applied" | "noop" | "refused" | "rolled_back" | "needs_attention" | "failed";
/** What woke a run. */
export type RunTrigger = "http" | "cli" | "library" | "event" | "init" | "converge";

/** What starts by itself, again and again: it neither undoes a rollback nor tries a broken release once more. `http` and `cli` are a person or a pipeline that asks. */
export const automaticTriggers: ReadonlySet<RunTrigger> = new Set(["event", "library", "init", "converge"]);

/** Whether nothing more will happen in a run. */
export function isEnded(status: RunStatus): boolean {
  return status === "succeeded" || status === "failed" || status === "canceled";
}

/** An executor's turn at a run. */
export interface RunAttempt {
  /** 1 for the first */
  readonly number: number;
  /** where the database stood when the attempt before began; null for the first */
  readonly mark: string | null;
  /** attempts in succession, up to the one before, that left the database as they found it */
  readonly stalls: number;
}

/** Who asked: from a verified token, or the operating system's user for the CLI. */
export interface Caller {
  readonly issuer: string;
  readonly subject: string;
  /** id of the policy rule that allowed it; null outside HTTP */
  readonly rule: string | null;
}

/** How much of a run is done. */
export interface RunProgress {
  readonly applied: number;
  readonly total: number;
  /** label of the migration under way */
  readonly current: string | null;
}
