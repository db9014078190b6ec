import { traits, type ErrorFields, type RunnerErrorCode } from "../error.ts";
import type { EntryError, HistoryEntry, Position } from "../history/entry.ts";
import {
  isEnded,
  type BackupRecord,
  type RunAction,
  type RunOutcome,
  type RunRecord,
  type RunStatus,
  type RunTrigger,
} from "../history/run.ts";
import type { Plan } from "../plan/plan.ts";
import type { Links } from "./link.ts";
import { withoutAddress } from "../report/without-address.ts";

/** A run as callers see it; described as `Run` in the OpenAPI document. */
export interface RunView {
  readonly id: string;
  readonly target: string;
  readonly stream: string;
  readonly action: RunAction;
  readonly status: RunStatus;
  readonly done: boolean;
  readonly outcome: RunOutcome | null;
  readonly release: { readonly digest: string; readonly version: number | null } | null;
  /** versions of the last applied migration, before and after; null before the first */
  readonly from: string | null;
  readonly to: string | null;
  readonly progress: {
    readonly applied: number;
    readonly total: number;
    readonly current: string | null;
    readonly message: string;
  };
  readonly trigger: {
    readonly kind: RunTrigger;
    readonly actor: string;
    readonly issuer: string;
    readonly rule: string | null;
  };
  readonly labels: Readonly<Record<string, string>>;
  readonly cancelRequested: boolean;
  readonly attempt: number;
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly backup: BackupRecord | null;
  readonly error: ErrorView | null;
  readonly links: Readonly<Record<"self" | "gate" | "events" | "cancel" | "target", string>>;
}

/** Why something failed, inside an answer that is itself no failure. */
export interface ErrorView {
  readonly code: RunnerErrorCode;
  readonly retryable: boolean;
  readonly message: string;
  readonly hint: string | null;
  readonly fields: ErrorFields;
}

/** One line of the history; described as `HistoryEntry` in the OpenAPI document. */
export interface EntryView {
  readonly id: number;
  readonly version: string;
  readonly path: string;
  readonly direction: "up" | "down";
  readonly status: HistoryEntry["status"];
  readonly origin: HistoryEntry["origin"];
  readonly sha256: string;
  readonly signed: boolean;
  readonly statements: { readonly done: number; readonly total: number };
  /** of a backfill that is not done yet: rows that it has changed so far */
  readonly rows: number | null;
  readonly startedAt: string;
  readonly durationMs: number;
  readonly appliedBy: string;
  readonly run: string;
  readonly note: string | null;
  readonly error: ErrorView | null;
}

/** A plan as callers approve it; described as `Plan` in the OpenAPI document. */
export interface PlanView {
  /** what to send as `plan` to run exactly this */
  readonly digest: string;
  readonly release: { readonly digest: string };
  readonly from: string | null;
  readonly to: string | null;
  readonly steps: readonly {
    readonly version: string;
    readonly path: string;
    readonly direction: "up" | "down";
    readonly sha256: string;
    readonly tx: "one" | "none";
    readonly locks: readonly string[];
    readonly resumeAt: number;
    readonly breaking: boolean;
    readonly dependencies: readonly { readonly service: string; readonly minVersion: string }[];
  }[];
}

/** A run's row with its links. */
export function viewRun(run: RunRecord, links: Links): RunView {
  const self = links.run(run.id);
  const done = isEnded(run.status);
  return {
    id: run.id,
    target: run.target,
    stream: run.stream,
    action: run.action,
    status: !done && run.cancelRequested ? "canceling" : run.status,
    done,
    outcome: run.outcome,
    release: run.releaseDigest === null ? null : { digest: run.releaseDigest, version: run.releaseVersion },
    from: run.fromVersion,
    to: run.toVersion,
    progress: { ...run.progress, message: messageOf(run) },
    trigger: {
      kind: run.trigger,
      actor: run.caller.subject,
      issuer: run.caller.issuer,
      rule: run.caller.rule,
    },
    labels: run.labels,
    cancelRequested: run.cancelRequested,
    attempt: run.attempt,
    createdAt: run.createdAt.toISOString(),
    startedAt: run.startedAt?.toISOString() ?? null,
    endedAt: run.endedAt?.toISOString() ?? null,
    backup: run.backup,
    error: run.error === null ? null : viewError(run.error),
    links: {
      self,
      gate: `${self}/gate`,
      events: `${self}/events`,
      cancel: `${self}/cancel`,
      target: links.target(run.target),
    },
  };
}

/** An entry of the history. */
export function viewEntry(entry: HistoryEntry): EntryView {
  return {
    id: entry.id,
    version: entry.version,
    path: entry.path,
    direction: entry.direction,
    status: entry.status,
    origin: entry.origin,
    sha256: entry.sha256,
    signed: entry.signed,
    statements: { done: entry.statementsDone, total: entry.statements },
    rows: entry.checkpoint?.kind === "backfill" ? entry.checkpoint.rows : null,
    startedAt: entry.startedAt.toISOString(),
    durationMs: entry.durationMs,
    appliedBy: entry.appliedBy,
    run: entry.runId,
    note: entry.note,
    error: entry.error === null ? null : viewError(entry.error),
  };
}

/** A plan; its steps without their bodies. */
export function viewPlan(plan: Plan): PlanView {
  return {
    digest: plan.digest,
    release: { digest: plan.releaseDigest },
    from: plan.from.version,
    to: plan.to.version,
    steps: plan.steps.map(({ direction, migration, body, resumeAt, registered }) => ({
      version: migration.version,
      path: body.path,
      direction,
      sha256: body.sha256,
      tx: body.tx,
      locks: body.locks,
      resumeAt,
      breaking: registered?.breaking ?? false,
      dependencies: registered?.dependencies ?? [],
    })),
  };
}

/** How far a database is. */
export function viewPosition(position: Position): {
  readonly version: string | null;
  readonly length: number;
  readonly chain: string | null;
} {
  return { version: position.version, length: position.length, chain: position.chain };
}

/** An error inside an answer. */
export function viewError(error: EntryError): ErrorView {
  return {
    code: error.code,
    retryable: traits[error.code].retry,
    message: withoutAddress(error.message),
    hint: error.hint === null ? null : withoutAddress(error.hint),
    fields: error.fields,
  };
}

/** One line for a person who looks at a pipeline's output. */
function messageOf(run: RunRecord): string {
  const { applied, total, current } = run.progress;
  const count = `${applied}/${total} ${run.action === "rollback" ? "rolled back" : "applied"}`;
  switch (run.status) {
    case "queued":
      return "accepted, not begun";
    case "waiting_lock":
      return "waiting for another run of this database";
    case "handing_over":
      return `${count}, another server goes on with it`;
    case "running":
    case "canceling":
      return current === null ? count : `${count}, running ${current}`;
    case "succeeded":
      return run.outcome === "noop"
        ? `nothing to do, the database is at ${run.toVersion ?? "the start"}`
        : `${count}, the database is at ${run.toVersion ?? "the start"}`;
    case "canceled":
      return `canceled, ${count}`;
    case "failed":
      return run.error === null
        ? `failed, ${count}`
        : `${failedAs(run.outcome)}: ${withoutAddress(run.error.message)}`;
  }
}

function failedAs(outcome: RunOutcome | null): string {
  switch (outcome) {
    case "refused":
      return "refused";
    case "rolled_back":
      return "failed and rolled back";
    default:
      return "failed";
  }
}
