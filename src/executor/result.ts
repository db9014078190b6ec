import type { RunnerError } from "../error.ts";
import type { AuditLink } from "../history/audit.ts";
import type { Position } from "../history/entry.ts";
import type { BackupRecord, RunOutcome } from "../history/run.ts";
import type { Direction } from "../migration/migration.ts";

/** How a run ended: a value also where it failed, because what got done matters as much as what did not. */
export interface RunResult {
  readonly runId: string;
  readonly target: string;
  /** `handing_over`: it has not ended, and another executor goes on with it */
  readonly status: "succeeded" | "failed" | "canceled" | "handing_over";
  readonly outcome: RunOutcome | null;
  readonly release: { readonly digest: string; readonly version: number | null } | null;
  /** false: the release has expired, or nobody vouches that it is the newest; null where it was not looked at, for nothing was to do */
  readonly fresh: boolean | null;
  /** null where the database could not be asked */
  readonly from: Position | null;
  readonly to: Position | null;
  /** steps done, in order */
  readonly done: readonly StepResult[];
  /** steps of the plan that were not done */
  readonly left: number;
  readonly durationMs: number;
  /** null where none was made */
  readonly backup: BackupRecord | null;
  /** its last entry in the audit log; null where it has none */
  readonly audit: AuditLink | null;
  readonly error: RunnerError | null;
}

/** One step that was done. */
export interface StepResult {
  readonly version: string;
  readonly path: string;
  readonly direction: Direction;
  readonly durationMs: number;
}
