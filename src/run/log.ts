import type { Hold, LeaseHolder, StreamState } from "../driver/stream-state.ts";
import type { LeasedSession } from "../driver/session.ts";
import type { Orphan } from "../driver/driver.ts";
import type { RunChange } from "../driver/runs.ts";
import type { RunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import type { Position } from "../history/entry.ts";
import { automaticTriggers, type BackupRecord, type RunOutcome, type RunStatus } from "../history/run.ts";
import type { Plan, Step } from "../plan/plan.ts";
import { whyNotFresh } from "../release/freshness.ts";
import type { Release } from "../release/release.ts";
import { AuditTrail } from "./audit-trail.ts";
import { auditedStep, type DoneStep, KnownSteps, resultOf } from "./done-step.ts";
import { positionNow, recordEnd, stepsInHistory } from "./last-word.ts";
import { observedRun } from "./observed-run.ts";
import { entryError, isStop, outcomeOf, shortError, whatStopped } from "./outcome.ts";
import { watchAll, type RunWatch } from "./observer.ts";
import type { RunOptions, RunRequest } from "./request.ts";
import type { RolledBack } from "./roll-back.ts";
import type { Target } from "./target.ts";
import { TimeLimit } from "./time-limit.ts";
import { stickyFailures } from "./usable.ts";
import { WaitNotice } from "./wait-notice.ts";

/**
 * What is known of one run so far: says it as events, records its end in the database, and makes its result.
 * Everything a run has to say besides doing its work.
 */
export class RunLog {
  readonly startedAt: Date;
  readonly emit: Emit;
  /** what was found before the run began, where somebody has looked */
  readonly looked: RunOptions["looked"];
  readonly #request: RunRequest;
  readonly #target: Target;
  readonly #began = performance.now();
  readonly #limit: TimeLimit;
  readonly #notice: WaitNotice;
  readonly #trail: AuditTrail;
  readonly #watch: RunWatch;
  readonly #done: DoneStep[] = [];
  readonly #steps = new KnownSteps();
  #from: Position | null = null;
  #release: RunResult["release"] = null;
  /** why the release is not fresh; undefined before one was looked at */
  #stale: RunnerError | null | undefined;
  #plan: Plan | undefined;
  #session: LeasedSession | undefined;
  #hasBegun = false;
  /** it did not answer when it was told how the run ended */
  #isAway = false;
  #backup: BackupRecord | null = null;
  #rollback: "none" | "begun" | "whole" = "none";

  constructor(request: RunRequest, target: Target, options: RunOptions) {
    this.#request = request;
    this.#target = target;
    this.looked = options.looked;
    this.startedAt = options.now();
    this.#watch = watchAll(target.observers ?? [], observedRun(request, target, this.startedAt));
    this.emit = (event) => {
      if (event.kind === "step.succeeded") this.#done.push(this.#steps.done(event));
      if (event.kind === "backup.done") this.#backup = backupOf(event);
      if (event.kind === "rollback.started") this.#rollback = "begun";
      this.#limit.seen(event);
      options.emit(event);
      this.#watch.event(event);
    };
    this.#trail = new AuditTrail(request, target, { now: options.now, emit: this.emit });
    this.#hasBegun = request.resumed?.hasBegun ?? false;
    this.#limit = new TimeLimit(request, options);
    this.#notice = new WaitNotice(this.emit);
    this.emit({ kind: "run.started", runId: request.id, target: target.name });
  }

  /** Of the caller, and of the run's own limits. */
  get signal(): AbortSignal {
    return this.#limit.signal;
  }

  /** Milliseconds until the run has to stop at the latest; undefined where it may go on for ever. */
  msLeft(): number | undefined {
    return this.#limit.msLeft();
  }

  /** @param offered - what the bucket calls its newest release */
  seen(state: StreamState, offered: string | undefined): void {
    this.#from = state.position;
    this.#trail.seen(state, offered);
  }

  verified(release: Release): void {
    this.#trail.verified(release);
    const version = release.rank?.version ?? null;
    this.#release = { digest: release.digest, version };
    this.#stale = whyNotFresh(release, this.startedAt);
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
    const isFirst = this.#notice.holder(holder);
    if (isFirst && this.#request.isAccepted) void this.#record("waiting_lock", null, null);
  }

  /** A statement of a dead run is in the way; said as {@link waiting} is. */
  orphan(orphan: Orphan): void {
    this.#notice.orphan(orphan);
  }

  hasLease(session: LeasedSession): void {
    this.#session = session;
    this.emit({ kind: "lease.acquired", token: session.token });
  }

  /**
   * Records that the run is about to change something, by some of `steps`.
   *
   * @throws RunnerError `AUDIT_UNAVAILABLE` - then it must not
   */
  async begins(
    state: StreamState,
    { steps, to }: { readonly steps: readonly Step[]; readonly to: Position },
    session: LeasedSession,
  ): Promise<void> {
    this.#steps.add(steps);
    await this.#trail.begin(state, to, session);
  }

  /** From here on the database may have been changed by this run. */
  begun(plan: Plan): void {
    this.#from = plan.from;
    this.#hasBegun = true;
  }

  /** What came of a rollback; gives what the run ends with. */
  rolledBack({ isWhole, error }: RolledBack): RunnerError {
    if (isWhole) this.#rollback = "whole";
    return error;
  }

  /** The database already has what was asked for; nothing was written. */
  async noop(position: Position, digest: string | null): Promise<RunResult> {
    this.#release ??= digest === null ? null : { digest, version: null };
    this.#from ??= position;
    const outcome = this.#outcomeOfSuccess();
    if (this.#request.isAccepted) await this.#record("succeeded", outcome, null, position);
    const done = this.#hasBegun ? await this.#stepsDone() : [];
    return this.#end({ status: "succeeded", outcome, to: position, done, left: 0, error: null });
  }

  /** All steps are done, or none was needed under the lease. */
  async succeeded(
    session: LeasedSession,
    release: Release,
    { to, isWhole }: { readonly to: Position; readonly isWhole: boolean },
    request: RunRequest,
  ): Promise<RunResult> {
    const isRollback = request.action === "rollback" && this.#hasBegun;
    const outcome = this.#outcomeOfSuccess();
    const isInPerson = !automaticTriggers.has(request.trigger);
    await session.finish({
      status: "succeeded",
      outcome,
      releaseDigest: release.digest,
      releaseVersion: release.rank?.version ?? null,
      completed: isWhole ? release.digest : null,
      ...(isRollback && !isWhole
        ? { held: holdOf(request.id, to, release, "rolled back") }
        : this.#hasBegun || (request.action === "apply" && isInPerson)
          ? { held: null }
          : {}),
      ...(request.action === "apply" ? { failed: null } : {}),
    });
    const done = request.resumed === undefined ? this.#done : await this.#stepsDone();
    return this.#end({ status: "succeeded", outcome, to, done, left: 0, error: null });
  }

  /**
   * Ends the run's row while its lease is still held, and remembers a release that failed by its own fault. Where the
   * run is to stop at once, or the lease is lost, `failed` says what there is to say.
   */
  async stopped(session: LeasedSession, cause: unknown): Promise<void> {
    const error = this.#named(cause);
    if (session.signal.aborted || error.code === "LEASE_LOST") return;
    const digest = this.#release?.digest;
    const isSticky = this.#request.action === "apply" && stickyFailures.has(error.code);
    await session
      .finish({
        ...this.#change("failed", this.#outcomeOfFailure(error), error),
        ...(isSticky && digest !== undefined
          ? { failed: { digest, runId: this.#request.id, error: entryError(error) } }
          : {}),
      })
      .catch(() => undefined);
  }

  /** The run stopped; what it did before stays done and is in the result. */
  async failed(cause: unknown): Promise<RunResult> {
    const error = this.#limit.judged(this.#named(cause));
    if (this.#isForAnother(error)) {
      await this.#record("handing_over", null, null);
      return this.#unfinished("handing_over", null, error);
    }
    const status = isStop(error) ? "canceled" : "failed";
    const outcome = status === "canceled" ? null : this.#outcomeOfFailure(error);
    await this.#record(status, outcome, error);
    return this.#unfinished(status, outcome, error);
  }

  /** Another executor has this very run: there is nothing to record. */
  async elsewhere(error: RunnerError): Promise<RunResult> {
    return this.#unfinished("handing_over", null, error);
  }

  async #unfinished(
    status: "failed" | "canceled" | "handing_over",
    outcome: RunOutcome | null,
    error: RunnerError,
  ): Promise<RunResult> {
    // At once: a database that does not answer is waited for only once.
    const [done, to] = this.#hasBegun
      ? await Promise.all([this.#stepsDone(), positionNow(this.#target)])
      : [[], this.#from];
    if (this.#hasBegun && to === null) this.#isAway = true;
    const left = this.#leftAt(to, done.length);
    return this.#end({ status, outcome, to, done, left, error });
  }

  close(): void {
    this.#limit.close();
  }

  /** Whoever loses the lease of a run that others can go on with has no say in its end any more. */
  #isForAnother(error: RunnerError): boolean {
    return this.#request.isAccepted && (error.code === "HANDED_OVER" || error.code === "LEASE_LOST");
  }

  #outcomeOfSuccess(): RunOutcome {
    if (!this.#hasBegun) return "noop";
    return this.#request.action === "rollback" ? "rolled_back" : "applied";
  }

  #outcomeOfFailure(error: RunnerError): RunOutcome {
    return this.#rollback === "whole" ? "rolled_back" : outcomeOf(error, this.#hasBegun);
  }

  #named(cause: unknown): RunnerError {
    return whatStopped(cause, this.#session?.signal.aborted === true ? this.#session.signal : this.signal);
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
      ...this.#change(status, outcome, error),
      attempt: this.#session?.attempt.number ?? this.#request.resumed?.attempt ?? 0,
      ...(at === undefined || this.#hasBegun ? {} : { fromVersion: at.version, toVersion: at.version }),
    };
    if (!(await recordEnd(this.#target, this.#request.id, change))) this.#isAway = true;
  }

  #change(status: RunStatus, outcome: RunOutcome | null, error: RunnerError | null): RunChange {
    return {
      status,
      outcome,
      error: error === null ? null : entryError(error),
      ...(this.#release === null
        ? {}
        : { releaseDigest: this.#release.digest, releaseVersion: this.#release.version }),
    };
  }

  /** After a failure the history knows best: a message may have committed although its answer was lost. */
  async #stepsDone(): Promise<readonly DoneStep[]> {
    return (await stepsInHistory(this.#target, this.#request.id)) ?? this.#done;
  }

  /** Steps that were taken back are left again. */
  #leftAt(to: Position | null, done: number): number {
    if (this.#plan === undefined) return 0;
    if (to !== null && (this.#rollback !== "none" || this.#request.resumed !== undefined))
      return Math.abs(this.#plan.to.length - to.length);
    return this.#plan.steps.length - done;
  }

  async #end({
    done,
    ...end
  }: Pick<RunResult, "status" | "outcome" | "to" | "left" | "error"> & {
    readonly done: readonly DoneStep[];
  }): Promise<RunResult> {
    const { id } = this.#request;
    const audit = await this.#trail.end({
      ...end,
      migrations: done.map(auditedStep),
      isAway: this.#isAway,
    });
    const stale = this.#stale;
    // Where something was pending, this was the run's error.
    if (stale && end.status === "succeeded") {
      const message = `${stale.message} (${stale.code}): nothing more of it would be applied`;
      this.emit({ kind: "warning", message });
    }
    const { trigger, resumed } = this.#request;
    const durationMs = Math.round(performance.now() - this.#began);
    this.emit({
      kind: "run.done",
      runId: id,
      status: end.status,
      outcome: end.outcome,
      trigger,
      attempt: (resumed?.attempt ?? 0) + 1,
      release: this.#release?.digest ?? null,
      from: this.#from?.version ?? null,
      to: end.to?.version ?? null,
      applied: done.length,
      durationMs,
      error: end.error === null ? null : shortError(end.error),
    });
    const result: RunResult = {
      runId: id,
      target: this.#target.name,
      release: this.#release,
      fresh: stale === undefined ? null : stale === null,
      from: this.#from,
      durationMs,
      backup: this.#backup,
      audit,
      done: done.map(resultOf),
      ...end,
    };
    this.#watch.ended(result);
    return result;
  }
}

/** The hold that a rollback to `to` sets. */
export function holdOf(runId: string, to: Position, release: Release, reason: string): Hold {
  const highWaterMark = release.rank === undefined ? null : { ...release.rank, digest: release.digest };
  return { runId, version: to.version, reason, highWaterMark };
}

function backupOf({ by, durationMs, result }: BackupRecord): BackupRecord {
  return { by, durationMs, result };
}
