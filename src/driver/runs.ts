import type { EntryError } from "../history/entry.ts";
import type {
  BackupRecord,
  Caller,
  RunAction,
  RunOutcome,
  RunRecord,
  RunStatus,
  RunTrigger,
} from "../history/run.ts";
import type { AuditEntry } from "../history/audit.ts";
import type { StreamState } from "./stream-state.ts";

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
  /** the process that accepts it does not execute it: whoever comes first picks it up; default false */
  readonly isUnclaimed?: boolean;
  readonly idempotencyKey: string | null;
  /** sha256 of the request's body; tells an honest retry from another request under the same key or token */
  readonly bodyDigest: string | null;
  /** `(issuer, jti)` of the caller's token, usable for one body only */
  readonly singleUse: { readonly issuer: string; readonly jti: string; readonly expiresAt: Date } | null;
}

/** A caller's single-use id, used up for something that is done to a run. */
export interface SpentUse {
  readonly issuer: string;
  readonly jti: string;
  readonly expiresAt: Date;
  /** tells an honest retry from another request with the same token */
  readonly bodyDigest: string;
  readonly runId: string;
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

/** A run for which there was nothing to do, before anybody recorded it. */
export interface NoopRun {
  readonly run: NewRun;
  /** the release that the database has, where that is known */
  readonly releaseDigest: string | null;
  /** where the database is */
  readonly version: string | null;
  /** its records of the audit log, in their order */
  readonly records: readonly string[];
}

/** What a request for a run without anything to do came to; of what was not accepted nothing is recorded. */
export type AcceptedNoop =
  | { readonly kind: "accepted"; readonly run: RunRecord; readonly entries: readonly AuditEntry[] }
  | Exclude<AcceptedRun, { readonly kind: "accepted" }>;

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
  /** only runs that have not ended */
  readonly isOpen?: true;
  readonly since?: Date;
  /** only runs created before the one with this id */
  readonly beforeId?: string;
  readonly limit: number;
}
