import type { ErrorFields, RunnerErrorCode } from "../error.ts";
import type { BackfillProgress, ProbeVerdict } from "../driver/session.ts";
import type { Orphan } from "../driver/driver.ts";
import type { AuditEntry } from "../history/audit.ts";
import type { BackupRecord, RunOutcome, RunTrigger } from "../history/run.ts";
import type { Direction } from "../migration/migration.ts";
import type { RunResult } from "./result.ts";

/**
 * What a run says while it goes on: the only voice of everything below `report`, `cli` and `http`.
 * A listener must not throw and is not waited for.
 */
export type RunEvent =
  | { readonly kind: "run.started"; readonly runId: string; readonly target: string }
  | {
      readonly kind: "release.verified";
      readonly digest: string;
      readonly version: number | null;
      readonly migrations: number;
      readonly signers: readonly string[];
    }
  | {
      readonly kind: "plan.made";
      readonly digest: string;
      readonly steps: number;
      readonly from: string | null;
      readonly to: string | null;
    }
  | { readonly kind: "bodies.fetched"; readonly count: number; readonly bytes: number }
  | { readonly kind: "lease.waiting"; readonly holder: string; readonly runId: string; readonly since: Date }
  /** another service's database is not where a migration needs it */
  | {
      readonly kind: "dependency.waiting";
      /** migration that needs it */
      readonly path: string;
      readonly service: string;
      /** name of its target */
      readonly target: string;
      readonly minVersion: string;
      /** that it is at */
      readonly version: string | null;
      /** why it cannot be asked */
      readonly problem: string | null;
    }
  /** a statement of a dead run is still being worked on by the server */
  | ({ readonly kind: "orphan.waiting" } & Orphan)
  | { readonly kind: "lease.acquired"; readonly token: number }
  | {
      readonly kind: "step.started";
      readonly path: string;
      readonly version: string;
      readonly direction: Direction;
      readonly index: number;
      readonly total: number;
    }
  | {
      readonly kind: "statement.done";
      readonly path: string;
      readonly statement: number;
      readonly statements: number;
    }
  | {
      readonly kind: "statement.probed";
      readonly path: string;
      /** from 1 */
      readonly statement: number;
      readonly statements: number;
      readonly verdict: ProbeVerdict;
    }
  | ({ readonly kind: "backfill.progress"; readonly path: string } & Omit<BackfillProgress, "kind">)
  /** a line that a migration which is a program wrote */
  | { readonly kind: "step.output"; readonly path: string; readonly line: string }
  | {
      readonly kind: "step.succeeded";
      readonly path: string;
      readonly version: string;
      readonly direction: Direction;
      readonly durationMs: number;
      /** steps done so far, this one included, of `total` */
      readonly done: number;
      readonly total: number;
    }
  | {
      readonly kind: "step.failed";
      readonly path: string;
      readonly version: string;
      readonly direction: Direction;
      readonly code: RunnerErrorCode;
      readonly message: string;
      readonly fields: ErrorFields;
    }
  | {
      readonly kind: "step.retried";
      readonly path: string;
      /** the one that failed, from 1 */
      readonly attempt: number;
      readonly sqlstate: string;
      readonly delayMs: number;
      /** session that was seen to hold the lock, in words */
      readonly blocker: string | null;
    }
  /** before the first step */
  | { readonly kind: "backup.started"; readonly by: string }
  /** a line that the backup's command wrote */
  | { readonly kind: "backup.output"; readonly line: string }
  | ({ readonly kind: "backup.done" } & BackupRecord)
  /** a migration failed: the run goes back to where it began, by `steps` down files */
  | { readonly kind: "rollback.started"; readonly steps: number; readonly to: string | null }
  /** an entry of the audit log was written */
  | ({ readonly kind: "audit" } & AuditEntry)
  | { readonly kind: "warning"; readonly message: string }
  /** the last one, with all that a monitor asks: also where the run goes on elsewhere */
  | {
      readonly kind: "run.done";
      readonly runId: string;
      readonly status: RunResult["status"];
      readonly outcome: RunOutcome | null;
      readonly trigger: RunTrigger;
      /** 1 for the first executor's */
      readonly attempt: number;
      /** digest; null where it did not come to one */
      readonly release: string | null;
      /** versions; null before the first migration, and where the database could not be asked */
      readonly from: string | null;
      readonly to: string | null;
      /** steps done */
      readonly applied: number;
      readonly durationMs: number;
      readonly error: {
        readonly code: RunnerErrorCode;
        readonly sqlstate: string | null;
        readonly retryable: boolean;
      } | null;
    };

/** Takes what a run says. */
export type Emit = (event: RunEvent) => void;
