import type { LeasedSession, RunBeginning } from "./driver/session.ts";
import type { StreamState } from "./driver/stream-state.ts";
import { execute } from "./executor/execute.ts";
import type { RunResult } from "./executor/result.ts";
import { appliedEntries } from "./history/applied.ts";
import type { Position } from "./history/entry.ts";
import { languageOf } from "./migration/body-language.ts";
import { explainPlanChange, isRestOf } from "./plan/changed-plan.ts";
import { continues, rewritten } from "./plan/continuity.ts";
import { makePlan } from "./plan/make-plan.ts";
import type { Plan, Step } from "./plan/plan.ts";
import { isComplete } from "./plan/repeatable.ts";
import type { Release } from "./release/release.ts";
import { assertFresh } from "./release/freshness.ts";
import { isIdle, isLeftBehind, isRecorded, isToClear } from "./run/at-rest.ts";
import { DoneMeanwhile, HadByAnother, leaseOptions } from "./run/ask-for-lease.ts";
import { backUp } from "./run/back-up.ts";
import { assertBreakingAllowed, awaitDependencies } from "./run/dependencies.ts";
import { holdOf, RunLog } from "./run/log.ts";
import { fetchRelease, newestStill } from "./run/fetch-release.ts";
import { look, lookBegun } from "./run/look.ts";
import { assertProgress } from "./run/progress.ts";
import type { RunOptions, RunRequest } from "./run/request.ts";
import { findWayBack, isRollingBack, resumeRollBack, rollBack } from "./run/roll-back.ts";
import type { Target } from "./run/target.ts";
import {
  assertMayRunCode,
  assertTakesCode,
  assertMayStart,
  assertNotOver,
  assertNotPaused,
  assertOutcomeKnown,
  assertUsable,
} from "./run/usable.ts";

export type { Limits, Target } from "./run/target.ts";
export { newRunId, type RunOptions, type RunRequest } from "./run/request.ts";

/** milliseconds that a runner may need to stop a statement */
const overtimeMs = 15_000;

/**
 * One run, start to end: fetch, verify, lease, plan, execute, record. The network to the bucket is done, and every
 * byte verified, before the lease is taken.
 *
 * Never throws for what can go wrong in a run: that is in the result.
 */
export async function run(request: RunRequest, target: Target, options: RunOptions): Promise<RunResult> {
  const log = new RunLog(request, target, options);
  try {
    assertNotOver(request);
    assertNotPaused(target);
    const { release, state } = await prepare(request, target, log);
    if (release === undefined) return await log.noop(state.position, state.completed);
    const plan = await planFor(release, state, request, target, log);
    if (plan === "done") return await log.noop(state.position, release.digest);
    const isAtRest = isRecorded(release, state) && !isToClear(state, request) && !isLeftBehind(state);
    if (plan.steps.length === 0 && isAtRest) return await log.noop(state.position, release.digest);
    if (plan.steps.length > 0) assertFresh(release, log.startedAt);
    const { signal, emit } = log;
    const waitMs = target.dependencies === "wait" ? request.limits.waitMs : 0;
    if (!isRollingBack(state, request))
      await awaitDependencies(plan, request, target, { waitMs, signal, emit });
    const back = findWayBack(release, plan, request, target.onFailure);
    const steps = [...plan.steps, ...(back?.steps ?? [])];
    assertMayRunCode(steps, target);
    const bodies = await fetchBodies(release, steps, target, log);
    return await target.driver.withLease(
      leaseOptions(request, target, { release, state }, log),
      async (session) => {
        log.hasLease(session);
        try {
          const work = (): Promise<RunResult> =>
            runUnderLease(release, bodies, request, target, session, log);
          if (state.inStep === null) return await work();
          // Few streams are in step with another tool's record; the others need none of what reads one.
          const { inStepWith } = await import("./adopt/in-step.ts");
          return await inStepWith(state, target, request.limits.waitMs, session.signal, work);
        } catch (cause) {
          await log.stopped(session, cause);
          throw cause;
        }
      },
    );
  } catch (cause) {
    if (cause instanceof HadByAnother) return await log.elsewhere(cause);
    if (cause instanceof DoneMeanwhile) return await log.noop(cause.state.position, cause.state.completed);
    return await log.failed(cause);
  } finally {
    log.close();
  }
}

/** What `run` would do now, without the lease and without changing anything. */
export async function planRun(
  request: Pick<RunRequest, "goal" | "release">,
  target: Target,
  options: RunOptions,
): Promise<Plan> {
  const state = await target.driver.state(target.stream, options.signal);
  const release = await fetchRelease(
    target,
    state,
    { expected: request.release ?? undefined, now: options.now() },
    options.signal,
  );
  assertUsable(release, state, target);
  await assertContinues(release, state, target, options.signal);
  return makePlan(release, state, request.goal);
}

interface Prepared {
  /** undefined: the database already has what is asked for */
  readonly release: Release | undefined;
  readonly state: StreamState;
}

/** The idle path first: the bucket's head and the database's row at once, and done when they name the same release. */
async function prepare(request: RunRequest, target: Target, log: RunLog): Promise<Prepared> {
  const { state, head } =
    log.looked === undefined
      ? await look(request, target, log.signal)
      : await lookBegun(log.looked, log.signal);
  log.seen(state, request.release === null ? head : undefined);
  if (isIdle(request, state, head)) {
    assertUsable(undefined, state, target);
    return { release: undefined, state };
  }
  const release = await fetchRelease(
    target,
    state,
    { expected: request.release ?? undefined, now: log.startedAt },
    log.signal,
  );
  log.verified(release);
  assertUsable(release, state, target);
  return { release, state };
}

async function planFor(
  release: Release,
  state: StreamState,
  request: RunRequest,
  target: Target,
  log: RunLog,
): Promise<Plan | "done"> {
  await assertContinues(release, state, target, log.signal);
  const plan = makePlan(release, state, request.goal);
  const { plan: approved, resumed, goal } = request;
  const isBack = isRollingBack(state, request);
  const isApproved =
    isBack ||
    approved === null ||
    approved === plan.digest ||
    (resumed?.hasBegun === true &&
      isRestOf(approved, { from: resumed.fromVersion, goal, repeatables: state.repeatables }, release, plan));
  if (isApproved) {
    log.planned(plan);
    if (plan.steps.length > 0 && !isBack) {
      assertMayStart(request.trigger, release, state, target);
      assertBreakingAllowed(plan, request, target);
    }
    return plan;
  }
  const change = explainPlanChange(approved, release, plan);
  if (change.kind === "done") return "done";
  throw change.error;
}

async function assertContinues(
  release: Release,
  state: StreamState,
  target: Target,
  signal: AbortSignal,
): Promise<void> {
  if (continues(release, state.position)) return;
  throw rewritten(release, appliedEntries(await target.driver.history(target.stream, {}, signal)));
}

async function fetchBodies(
  release: Release,
  steps: readonly Step[],
  target: Target,
  log: RunLog,
): Promise<ReadonlyMap<string, Buffer>> {
  const bodies = await target.releases.bodies(
    release,
    steps.map(({ body }) => body),
    log.signal,
  );
  log.fetched(bodies);
  return bodies;
}

/** Everything was judged without the lease; under it the database may have moved on, so all that depends on it is judged again. */
async function runUnderLease(
  offered: Release,
  fetched: ReadonlyMap<string, Buffer>,
  request: RunRequest,
  target: Target,
  session: LeasedSession,
  log: RunLog,
): Promise<RunResult> {
  const state = await session.state();
  const asked = { expected: request.release, now: log.startedAt };
  const release = await newestStill(offered, target, state, asked, session.signal);
  if (release !== offered) log.verified(release);
  assertUsable(release, state, target);
  const progress = assertProgress(state, session.attempt);
  const plan = await planFor(release, state, request, target, log);
  if (plan === "done" || plan.steps.length === 0) {
    await log.begins(state, { steps: [], to: state.position }, session);
    // A release without news still counts: whoever is asked next must not take an older one, or an unsigned folder.
    if (release.rank !== undefined)
      await session.begin(beginning(release, state.position, state.position, []));
    const isWhole = isComplete(release, state.position, state.repeatables);
    return await log.succeeded(session, release, { to: state.position, isWhole }, request);
  }
  assertFresh(release, log.startedAt);
  assertOutcomeKnown(state);
  const isBack = isRollingBack(state, request);
  if (!isBack)
    await awaitDependencies(plan, request, target, { waitMs: 0, signal: session.signal, emit: log.emit });
  const going = isBack ? ({ ...request, onFailure: "rollback" } as const) : request;
  const back = findWayBack(release, plan, going, target.onFailure);
  const steps = [...plan.steps, ...(back?.steps ?? [])];
  assertMayRunCode(steps, target);
  assertTakesCode(steps, session);
  const bodies = steps.every(({ body }) => fetched.has(body.sha256))
    ? fetched
    : await fetchBodies(release, steps, target, log);
  const options = {
    runId: request.id,
    language: await languageOf(release.engine),
    bodies,
    signed: release.kind === "signed",
    unfinished: state.unfinished,
    lockTimeoutMs: request.limits.lockTimeoutMs,
    statementTimeoutMs: statementTimeout(request.limits.statementTimeoutMs, log.msLeft()),
    appliedBy: request.caller.subject,
    emit: log.emit,
  };
  await log.begins(state, { steps, to: isBack && back !== undefined ? back.start : plan.to }, session);
  if (isBack && back !== undefined) {
    const entries = await target.driver.history(target.stream, { runId: request.id }, session.signal);
    throw log.rolledBack(await resumeRollBack(plan, back, entries, state, session, options));
  }
  // A run has one backup, of where it began.
  if (target.backup !== undefined && request.resumed?.hasBegun !== true)
    await backUp(target.backup, { request, target, plan }, session, log.emit);
  await session.begin({
    ...beginning(release, plan.from, plan.to, plan.steps),
    progress,
    ...(request.action === "rollback"
      ? { held: holdOf(request.id, plan.to, release, "a rollback began and did not end") }
      : {}),
  });
  log.begun(plan);
  const failure = await execute(plan, session, options);
  if (failure !== null && back !== undefined) {
    const rolledBack = await rollBack(plan, back, failure, session, options);
    throw rolledBack === undefined ? failure : log.rolledBack(rolledBack);
  }
  if (failure !== null) throw failure;
  const isWhole = isComplete(release, plan.to, state.repeatables, plan.steps);
  return await log.succeeded(session, release, { to: plan.to, isWhole }, request);
}

/**
 * The server ends a statement by itself soon after the run's time is over: it is stopped at that time by its runner, and
 * this is for the case that the runner is no longer there.
 */
function statementTimeout(asked: number, msLeft: number | undefined): number {
  if (msLeft === undefined) return asked;
  const latest = Math.ceil(msLeft) + overtimeMs;
  return asked === 0 ? latest : Math.min(asked, latest);
}

function beginning(release: Release, from: Position, to: Position, steps: readonly Step[]): RunBeginning {
  const otherwise = steps.findIndex(({ body }) => body.tx !== "none" || body.code === true);
  return {
    highWaterMark: release.rank === undefined ? null : { ...release.rank, digest: release.digest },
    ...(release.root === undefined ? {} : { root: release.root }),
    releaseDigest: release.digest,
    fromVersion: from.version,
    toVersion: to.version,
    steps: steps.length,
    statementSteps: otherwise === -1 ? steps.length : otherwise,
  };
}
