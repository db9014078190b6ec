import type { AcceptedRun, NewRun } from "../driver/runs.ts";
import { RunnerError } from "../error.ts";
import type { AuditEntry } from "../history/audit.ts";
import type { RunRecord } from "../history/run.ts";
import type { RunRequest } from "../runner.ts";

/** A request and how it may be recognised again. */
export interface RunOrder {
  readonly request: RunRequest;
  readonly record: NewRun;
  /** equal for requests that want the very same thing; null: never the same as another */
  readonly sameAs: string | null;
  /**
   * Records that it was allowed, and which run came of it.
   *
   * @throws RunnerError `AUDIT_UNAVAILABLE` - then nothing may come of it
   */
  recordAllowed(runId: string, isNew: boolean): Promise<void>;
  /** The same record of this very run, to be added with it where it has nothing to do; absent: it begins in any case. */
  pendingAllowed?(): PendingDecision;
}

/** That a request was allowed, before it was recorded: a `PendingRecord` of the audit log. */
export interface PendingDecision {
  readonly text: string;
  /** @throws RunnerError `AUDIT_BROKEN` */
  added(stored: AuditEntry): AuditEntry;
  /** Tells that the record was not added. */
  dropped(): void;
}

/** What came of a request to run: begun by it, or the run that an equal request began. */
export type Begun =
  /** in this process, or in the execution that was started for it */
  | { readonly kind: "here" | "elsewhere"; readonly runId: string }
  /** there was nothing to do */
  | { readonly kind: "ended"; readonly run: RunRecord }
  /** an honest retry of a request that this or another process took */
  | { readonly kind: "existing"; readonly run: RunRecord };

/** The run that a request came to. */
export function runOf(begun: Begun): string {
  return "run" in begun ? begun.run.id : begun.runId;
}

/**
 * What the database had already.
 *
 * @throws RunnerError `REPLAY`, `IDEMPOTENCY_MISMATCH`
 */
export function existingOf(accepted: Exclude<AcceptedRun, { kind: "accepted" }>): Begun {
  switch (accepted.kind) {
    case "existing":
      return { kind: "existing", run: accepted.run };
    case "replay":
      throw replayed();
    case "idempotency-mismatch":
      throw new RunnerError("IDEMPOTENCY_MISMATCH", "this Idempotency-Key was used with another body", {
        hint: "use a new key for a new request; the same key only to repeat the very same one",
      });
  }
}

/** A token that was used before, for something else. */
export function replayed(): RunnerError {
  return new RunnerError("REPLAY", "this token was used for another request", {
    hint: "ask your issuer for a fresh token for each request that changes something",
  });
}
