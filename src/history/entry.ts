import type { ErrorFields, RunnerErrorCode } from "../error.ts";
import type { Direction } from "../migration/migration.ts";

/**
 * One row of the history: what happened to one migration, once. Rows are only added;
 * the row of a migration outside a transaction is updated while it is under way (its checkpoints).
 */
export interface HistoryEntry {
  /** grows with every entry; also the id of the event that a watcher of the run sees */
  readonly id: number;
  /** place in the sequence, from 1; 0 for a repeatable migration, which has none and moves no position */
  readonly seq: number;
  readonly version: string;
  readonly path: string;
  readonly direction: Direction;
  readonly sha256: string;
  /** bytes of the up body */
  readonly size: number;
  readonly chain: string;
  readonly origin: EntryOrigin;
  readonly status: EntryStatus;
  /** statements that took effect, of `statements` in all; 1 of 1 for a body in one transaction */
  readonly statementsDone: number;
  readonly statements: number;
  /** sha256 of each statement done, so that a corrected file can go on after them; empty for a body in one transaction */
  readonly statementChecksums: readonly string[];
  readonly signed: boolean;
  readonly runId: string;
  /** fencing token of the lease it was written under */
  readonly token: number;
  /** by the database's clock */
  readonly startedAt: Date;
  readonly durationMs: number;
  readonly appliedBy: string;
  /** where the statement after those done stands; null where it has not begun, and wherever a statement is whole or nothing */
  readonly checkpoint: StatementCheckpoint | null;
  /** reason given by a person for a baseline or a repair */
  readonly note: string | null;
  readonly error: EntryError | null;
}

/** `started`: under way, or its runner died; `needs_attention`: nobody can tell whether one statement took effect. */
export type EntryStatus = "started" | "done" | "failed" | "needs_attention";

/**
 * What made the entry: a run; a run by a checkpoint, which stands for all migrations before it as well, and those are
 * `covered`; or a person's declaration.
 */
export type EntryOrigin = "run" | "checkpoint" | "covered" | "baseline" | "repair" | "adopt";

/** What was noted of a statement that a transaction cannot make whole, so that it can be gone on with after a crash. */
export type StatementCheckpoint =
  /** it was about to be sent; `before` is what the probe of its kind saw then, and compares with afterwards */
  | {
      readonly kind: "sent";
      /** index of the statement, and sha256 of its text */
      readonly statement: number;
      readonly sha256: string;
      readonly before: Readonly<Record<string, unknown>>;
    }
  /** a backfill: everything up to and including the key `cursor` is done (each column as text; null: nothing yet) */
  | {
      readonly kind: "backfill";
      readonly statement: number;
      readonly sha256: string;
      readonly cursor: readonly string[] | null;
      /** rows that its statement has changed so far */
      readonly rows: number;
    };

/** Why a migration failed, for people and programs; free of SQL text and row data. */
export interface EntryError {
  readonly code: RunnerErrorCode;
  readonly message: string;
  readonly hint: string | null;
  readonly fields: ErrorFields;
}

/** How far a database is: the first `length` migrations of its sequence are applied. */
export interface Position {
  readonly length: number;
  /** chain digest at `length`; null when none is applied */
  readonly chain: string | null;
  /** version of the last applied migration, null when none is */
  readonly version: string | null;
}

/**
 * Where a database stands after `last`, its newest entry that had an effect and a place in the sequence, the covered ones
 * left out: a migration counts only once it is done.
 *
 * @param wasApplied - whether the migration of a down entry had been done before; a rollback also takes back halves
 */
export function appliedLength(
  last: Pick<HistoryEntry, "seq" | "direction" | "status" | "origin"> | undefined,
  wasApplied: boolean,
): number {
  if (last === undefined) return 0;
  // It begins with nothing, and has all or nothing.
  if (last.origin === "checkpoint" && last.direction === "up" && last.status !== "done") return 0;
  const isApplied = last.direction === "up" ? last.status === "done" : last.status !== "done" && wasApplied;
  return isApplied ? last.seq : last.seq - 1;
}
