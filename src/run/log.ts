import type { LeasedSession, LeaseHolder } from "../driver/driver.ts";
import { RunnerError, toRunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import type { RunResult, StepResult } from "../executor/result.ts";
import type { EntryError, Position } from "../history/entry.ts";
import type { BackupRecord, RunOutcome, RunStatus } from "../history/run.ts";
import type { Plan } from "../plan/plan.ts";
import type { Release } from "../release/release.ts";
import type { RunOptions, RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** milliseconds to record how a run ended once its own signal has fired */
const lastWordMs = 5_000;
/** milliseconds between two notices that a run waits for the same holder */
const waitingNoticeMs = 5_000;

/**
 * What is known of one run so far: says it as events, records its end in the database, and makes its result.
 * Everything a run has to say besides doing its work.
 */
export class RunLog {
  readonly startedAt: Date;
  /** the caller's signal, or the run's deadline */
  readonly signal: AbortSignal;
  readonly emit: Emit;
  readonly #request: RunRequest;
  readonly #target: Target;
  readonly #began = performance.now();
  readonly #deadline: NodeJS.Timeout | undefined;
  readonly #done: StepResult[] = [];
  #from: Position | null = null;
  #release: RunResult["release"] = null;
  #plan: Plan | undefined;
  #session: LeasedSession | undefined;
  #hasBegun = false;
  #backup: BackupRecord | null = null;
  #rollback: "none" | "begun" | "whole" = "none";
  #waitedFor: { readonly runId: string; readonly at: number } | undefined;

  constructor(request: RunRequest, target: Target, options: RunOptions) {
    this.#request = request;
    this.#target = target;
    this.startedAt = options.now();
    this.emit = (event) => {
      if (event.kind === "step.succeeded") this.#done.push(stepOf(event));
      if (event.kind === "backup.done") this.#backup = backupOf(event);
      if (event.kind === "rollback.started") this.#rollback = "begun";
      options.emit(event);
    };
    const deadline = new AbortController();
    const { deadlineMs } = request.limits;
    if (deadlineMs > 0) {
      const reason = new RunnerError(
        "DEADLINE",
        `the run's deadline of ${Math.round(deadlineMs / 1000)} s has passed`,
        {
          hint: "run again to go on where it stopped, or raise --deadline",
        },
      );
      this.#deadline = setTimeout(() => deadline.abort(reason), deadlineMs);
      this.#deadline.unref();
    }
    this.signal = AbortSignal.any([options.signal, deadline.signal]);
    this.emit({ kind: "run.started", runId: request.id, target: target.name });
  }

  from(position: Position): void {
    this.#from = position;
  }

  verified(release: Release): void {
    const version = release.rank?.version ?? null;
    this.#release = { digest: release.digest, version };
    for (const message of release.warnings) this.emit({ kind: "warning", message });
    const { digest, migrations, signers } = release;
    this.emit({ kind: "release.verified", digest, version, migrations: migrations.length, signers });
  }

  /** Plans are made twice, without the lease and under it; the same plan is said once. */
  planned(plan: Plan): void {
    const isNews = this.#plan?.digest !== plan.digest;
    this.#plan = plan;
    if (!isNews) return;
    const { digest, steps, from, to } = plan;
    this.emit({ kind: "plan.made", digest, steps: steps.length, from: from.version, to: to.version });
  }

  fetched(bodies: ReadonlyMap<string, Buffer>): void {
    let bytes = 0;
    for (const body of bodies.values()) bytes += body.length;
    this.emit({ kind: "bodies.fetched", count: bodies.size, bytes });
  }

  /** Said when the holder changes and now and then, not at every look. */
  waiting(holder: LeaseHolder): void {
    const now = performance.now();
    if (holder.runId === this.#waitedFor?.runId && now - this.#waitedFor.at < waitingNoticeMs) return;
    if (this.#waitedFor === undefined && this.#request.isAccepted)
      void this.#record("waiting_lock", null, null);
    this.#waitedFor = { runId: holder.runId, at: now };
    this.emit({
      kind: "lease.waiting",
      holder: holder.holder,
      runId: holder.runId,
      since: holder.acquiredAt,
    });
  }

  hasLease(session: LeasedSession): void {
    this.#session = session;
    this.emit({ kind: "lease.acquired", token: session.token });
  }

  /** From here on the database may have been changed by this run. */
  begun(plan: Plan): void {
    this.#from = plan.from;
    this.#hasBegun = true;
  }

  /** All that the run had applied was taken back. */
  rolledBack(): void {
    this.#rollback = "whole";
  }

  /** The database already has what was asked for; nothing was written. */
  async noop(position: Position, digest: string | null): Promise<RunResult> {
    this.#release ??= digest === null ? null : { digest, version: null };
    this.#from ??= position;
    if (this.#request.isAccepted) await this.#record("succeeded", "noop", null, position);
    return this.#end({ status: "succeeded", outcome: "noop", to: position, done: [], left: 0, error: null });
  }

  /** All steps are done, or none was needed under the lease. */
  async succeeded(
    session: LeasedSession,
    release: Release,
    to: Position,
    request: RunRequest,
  ): Promise<RunResult> {
    const isWhole = to.length === release.migrations.length;
    const isRollback = request.action === "rollback" && this.#hasBegun;
    const outcome: RunOutcome = !this.#hasBegun ? "noop" : isRollback ? "rolled_back" : "applied";
    await session.finish({
      status: "succeeded",
      outcome,
      releaseDigest: release.digest,
      releaseVersion: release.rank?.version ?? null,
      completed: isWhole ? release.digest : null,
      ...(isRollback && !isWhole
        ? { held: { runId: request.id, version: to.version, reason: "rolled back" } }
        : this.#hasBegun
          ? { held: null }
          : {}),
    });
    return this.#end({ status: "succeeded", outcome, to, done: this.#done, left: 0, error: null });
  }

  /** The run stopped; what it did before stays done and is in the result. */
  async failed(cause: unknown): Promise<RunResult> {
    const error = this.#named(cause);
    const status = error.code === "CANCELED" || error.code === "DEADLINE" ? "canceled" : "failed";
    const outcome =
      status === "canceled"
        ? null
        : this.#rollback === "whole"
          ? "rolled_back"
          : outcomeOf(error, this.#hasBegun);
    await this.#record(status, outcome, error);
    const done = this.#hasBegun ? await this.#stepsDone() : [];
    const to = this.#hasBegun ? await this.#positionNow() : this.#from;
    const left = this.#leftAt(to, done.length);
    return this.#end({ status, outcome, to, done, left, error });
  }

  close(): void {
    clearTimeout(this.#deadline);
  }

  /** An abort surfaces as whatever the interrupted call throws; the signal's reason is what happened. */
  #named(cause: unknown): RunnerError {
    if (
      cause instanceof RunnerError &&
      cause.code !== "DATABASE_UNAVAILABLE" &&
      cause.code !== "SOURCE_UNAVAILABLE"
    )
      return cause;
    const signal = this.#session?.signal.aborted === true ? this.#session.signal : this.signal;
    if (!signal.aborted) return toRunnerError(cause);
    if (signal.reason instanceof RunnerError) return signal.reason;
    return new RunnerError("CANCELED", "the run was interrupted", {
      hint: "run again to go on where it stopped",
      cause,
    });
  }

  /** Ends the run's row, if there is one and the database can be reached; the row of a lost run is ended by whoever looks next. */
  async #record(
    status: RunStatus,
    outcome: RunOutcome | null,
    error: RunnerError | null,
    at?: Position,
  ): Promise<void> {
    if (!this.#request.isAccepted && this.#session === undefined) return;
    const change = {
      status,
      outcome,
      error: error === null ? null : entryError(error),
      releaseDigest: this.#release?.digest ?? null,
      releaseVersion: this.#release?.version ?? null,
      ...(at === undefined ? {} : { fromVersion: at.version, toVersion: at.version }),
    };
    await this.#target.driver
      .updateRun(this.#request.id, change, AbortSignal.timeout(lastWordMs))
      .catch(() => undefined);
  }

  /** After a failure the history knows best: a message may have committed although its answer was lost. */
  async #stepsDone(): Promise<readonly StepResult[]> {
    const query = { runId: this.#request.id };
    const entries = await this.#target.driver
      .history(this.#target.stream, query, AbortSignal.timeout(lastWordMs))
      .catch(() => undefined);
    if (entries === undefined) return this.#done;
    return entries
      .filter((entry) => entry.status === "done" && entry.origin === "run")
      .map(({ version, path, direction, durationMs }) => ({ version, path, direction, durationMs }));
  }

  /** Steps that were taken back are left again. */
  #leftAt(to: Position | null, done: number): number {
    if (this.#plan === undefined) return 0;
    return this.#rollback === "none" || to === null
      ? this.#plan.steps.length - done
      : this.#plan.to.length - to.length;
  }

  async #positionNow(): Promise<Position | null> {
    const state = await this.#target.driver
      .state(this.#target.stream, AbortSignal.timeout(lastWordMs))
      .catch(() => undefined);
    return state?.position ?? null;
  }

  #end(end: Pick<RunResult, "status" | "outcome" | "to" | "done" | "left" | "error">): RunResult {
    const { id } = this.#request;
    this.emit({ kind: "run.done", runId: id, status: end.status, outcome: end.outcome });
    return {
      runId: id,
      target: this.#target.name,
      release: this.#release,
      from: this.#from,
      durationMs: performance.now() - this.#began,
      backup: this.#backup,
      ...end,
    };
  }
}

function stepOf({ version, path, direction, durationMs }: StepResult): StepResult {
  return { version, path, direction, durationMs };
}

function backupOf({ by, durationMs, result }: BackupRecord): BackupRecord {
  return { by, durationMs, result };
}

function outcomeOf(error: RunnerError, hasBegun: boolean): RunOutcome {
  if (error.code === "NEEDS_ATTENTION") return "needs_attention";
  return !hasBegun && (error.exit === 20 || error.exit === 2) ? "refused" : "failed";
}

function entryError(error: RunnerError): EntryError {
  return { code: error.code, message: error.message, hint: error.hint ?? null, fields: error.fields };
}
