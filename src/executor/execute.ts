import type { LeasedSession, SessionSettings, StatementProgress, StatementStep } from "../driver/session.ts";
import { RunnerError } from "../error.ts";
import type { Plan, Step } from "../plan/plan.ts";
import type { Emit, RunEvent } from "./event.ts";
import {
  assertNothingDone,
  functionStep,
  statementStep,
  transactionStep,
  type StepInput,
} from "./prepare-step.ts";

/** What the steps need besides the plan. */
export interface ExecuteOptions extends StepInput {
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly appliedBy: string;
  readonly emit: Emit;
}

/** Bodies in one message: few enough that a cancel is quick, many enough that a far database costs little. */
const messageSteps = { first: 16, most: 256 };
const messageBytes = 512 * 1024;
/** milliseconds that one message should take; the next is larger or smaller by it */
const messageTargetMs = 300;
/** how many times as large as the one before a message is when that was quick */
const messageGrowth = 4;

/**
 * Carries a plan out under a held lease, step after step, and stops at the first that fails.
 *
 * Between two messages it looks whether the run is to stop: the safe points.
 *
 * @returns why the first step that was not done failed; null when all are done
 * @throws RunnerError `LEASE_LOST`, `CANCELED`, `DEADLINE` - the run must stop here; what was done is in the history
 */
export async function execute(
  plan: Plan,
  session: LeasedSession,
  options: ExecuteOptions,
): Promise<RunnerError | null> {
  const settings = sessionSettings(options);
  const progress = { done: 0, total: plan.steps.length };
  let size = messageSteps.first;
  for (let index = 0; index < plan.steps.length;) {
    session.signal.throwIfAborted();
    const group = nextGroup(plan.steps, index, size);
    const [only] = group;
    if (only === undefined) break;
    const startedAt = performance.now();
    const failure =
      only.body.code === true
        ? await executeCode(only, session, settings, options, progress)
        : only.body.tx === "none"
          ? await executeStatements([only, plan.steps[index + 1]], session, settings, options, progress)
          : await executeTogether(group, session, settings, options, progress);
    if (failure !== null) return failure;
    index += group.length;
    size = nextSize(size, performance.now() - startedAt);
  }
  return null;
}

interface Progress {
  done: number;
  readonly total: number;
}

/** The next steps for one call: one outside transactions alone, or neighbours in transactions of their own up to the ceilings. */
function nextGroup(steps: readonly Step[], from: number, most: number): readonly Step[] {
  const first = steps[from];
  if (first === undefined || isAlone(first)) return steps.slice(from, from + 1);
  let end = from;
  for (let bytes = 0; end < steps.length && end - from < most; end += 1) {
    const step = steps[end];
    if (step === undefined || isAlone(step)) break;
    bytes += step.body.size;
    if (bytes > messageBytes && end > from) break;
  }
  return steps.slice(from, end);
}

function isAlone({ body }: Step): boolean {
  return body.tx === "none" || body.code === true;
}

function nextSize(size: number, tookMs: number): number {
  if (tookMs < messageTargetMs) {
    const growth = tookMs < messageTargetMs / messageGrowth ? messageGrowth : 2;
    return Math.min(size * growth, messageSteps.most);
  }
  if (tookMs > messageTargetMs * 3) return Math.max(Math.floor(size / 2), 1);
  return size;
}

async function executeTogether(
  group: readonly Step[],
  session: LeasedSession,
  settings: SessionSettings,
  options: ExecuteOptions,
  progress: Progress,
): Promise<RunnerError | null> {
  for (const [index, step] of group.entries())
    announce(step, progress.done + index, progress.total, options.emit);
  assertNothingDone(group[0], options.unfinished);
  const { done, failure } = await session.applyInTransactions(
    group.map((step) => transactionStep(step, options)),
    settings,
  );
  for (const [index, { durationMs }] of done.entries()) {
    const step = group[index];
    if (step !== undefined) succeed(step, durationMs, progress, options.emit);
  }
  const failed = group[done.length];
  if (failure !== null && failed !== undefined) fail(failed, failure, options.emit);
  return failure;
}

async function executeCode(
  step: Step,
  session: LeasedSession,
  settings: SessionSettings,
  options: ExecuteOptions,
  progress: Progress,
): Promise<RunnerError | null> {
  announce(step, progress.done, progress.total, options.emit);
  assertNothingDone(step, options.unfinished);
  const { path } = step.body;
  if (session.applyFunction === undefined)
    throw new RunnerError("INTERNAL", `"${path}" is a program, which was to be refused before the run began`);
  const onOutput = (line: string): void => options.emit({ kind: "step.output", path, line });
  const prepared = { ...functionStep(step, options), onOutput };
  const { done, failure } = await session.applyFunction(prepared, settings);
  for (const { durationMs } of done) succeed(step, durationMs, progress, options.emit);
  if (failure !== null) fail(step, failure, options.emit);
  return failure;
}

async function executeStatements(
  [step, next]: readonly [Step, Step | undefined],
  session: LeasedSession,
  settings: SessionSettings,
  options: ExecuteOptions,
  progress: Progress,
): Promise<RunnerError | null> {
  announce(step, progress.done, progress.total, options.emit);
  const prepared = statementStep(step, options);
  try {
    const { durationMs } = await session.applyStatements(
      prepared,
      settings,
      (progress) => options.emit(statementEvent(prepared, progress)),
      followingStep(next, options),
    );
    succeed(step, durationMs, progress, options.emit);
    return null;
  } catch (cause) {
    if (!(cause instanceof RunnerError) || session.signal.aborted) throw cause;
    if (cause.code === "LEASE_LOST" || cause.code === "INTERNAL") throw cause;
    fail(step, cause, options.emit);
    return cause;
  }
}

/** The step after one, where it runs statement by statement from its beginning. */
function followingStep(next: Step | undefined, options: ExecuteOptions): StatementStep | undefined {
  if (next?.body.tx !== "none" || next.body.code === true || next.resumeAt > 0) return undefined;
  try {
    return statementStep(next, options);
  } catch {
    // What is wrong with it is said when its own turn comes.
    return undefined;
  }
}

function statementEvent({ path, statements }: StatementStep, progress: StatementProgress): RunEvent {
  const of = { path, statements: statements.length };
  switch (progress.kind) {
    case "statement":
      return { kind: "statement.done", ...of, statement: progress.done };
    case "probed":
      return { kind: "statement.probed", ...of, statement: progress.statement, verdict: progress.verdict };
    case "backfill":
      return { ...progress, kind: "backfill.progress", path };
  }
}

function announce(step: Step, index: number, total: number, emit: Emit): void {
  emit({
    kind: "step.started",
    path: step.body.path,
    version: step.migration.version,
    direction: step.direction,
    index,
    total,
  });
}

function succeed(step: Step, durationMs: number, progress: Progress, emit: Emit): void {
  progress.done += 1;
  const { version } = step.migration;
  emit({
    kind: "step.succeeded",
    path: step.body.path,
    version,
    direction: step.direction,
    durationMs,
    done: progress.done,
    total: progress.total,
  });
}

function fail(step: Step, failure: RunnerError, emit: Emit): void {
  const { code, message, fields } = failure;
  emit({
    kind: "step.failed",
    path: step.body.path,
    version: step.migration.version,
    direction: step.direction,
    code,
    message,
    fields,
  });
}

function sessionSettings(options: ExecuteOptions): SessionSettings {
  return {
    lockTimeoutMs: options.lockTimeoutMs,
    statementTimeoutMs: options.statementTimeoutMs,
    appliedBy: options.appliedBy,
    onRetry: (path, attempt, sqlstate, delayMs, blocker) =>
      options.emit({ kind: "step.retried", path, attempt, sqlstate, delayMs, blocker }),
  };
}
