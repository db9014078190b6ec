import type { RunnerError } from "../../error.ts";
import type { AppliedSteps, SessionSettings, TransactionStep } from "../session.ts";
import { bodyFailure } from "./body-failure.ts";
import { committedMeanwhile, readDurations, recordFailure, settle, surroundings } from "./committed.ts";
import { frameOf, prepareFrame, type Frame } from "./frame.ts";
import { byName, whole } from "./prepared.ts";
import { mayTryAgain } from "./retry.ts";
import { transactionMessage } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** Bodies of a message from which on it is worth another message to have what surrounds them planned once. */
const worthPreparing = 32;

/** Applies bodies, each in a transaction of its own, many in one message; see `LeasedSession.applyInTransactions`. */
export async function applyInTransactions(
  bench: Workbench,
  steps: readonly TransactionStep[],
  settings: SessionSettings,
): Promise<AppliedSteps> {
  const done: { durationMs: number }[] = [];
  for (const group of messages(steps, bench.facts.standardStrings)) {
    const { durations, failure } =
      group.length === 1
        ? await applyOne(bench, group[0], settings)
        : await applyMany(bench, group, settings);
    done.push(...durations.map((durationMs) => ({ durationMs })));
    if (failure !== null) return { done, failure };
  }
  return { done, failure: null };
}

type Group = readonly [TransactionStep, ...TransactionStep[]];

/** Neighbours that may share a message share one; every other step has its own. */
function messages(steps: readonly TransactionStep[], mayShare: boolean): Group[] {
  const groups: [TransactionStep, ...TransactionStep[]][] = [];
  let open: [TransactionStep, ...TransactionStep[]] | undefined;
  for (const step of steps) {
    // Limits of its own make a step wait or fail on its own.
    const isPlain =
      mayShare && step.alone && step.lockTimeoutMs === undefined && step.statementTimeoutMs === undefined;
    if (isPlain && open !== undefined) {
      open.push(step);
      continue;
    }
    groups.push([step]);
    open = isPlain ? groups.at(-1) : undefined;
  }
  return groups;
}

interface Applied {
  readonly durations: readonly number[];
  readonly failure: RunnerError | null;
}

/**
 * Several bodies in one message. If any of it fails, the history tells how many committed, and the rest run one by
 * one: so those before the wrong one still apply, and the wrong one is blamed with its own line.
 */
async function applyMany(bench: Workbench, steps: Group, settings: SessionSettings): Promise<Applied> {
  bench.kept.assertTrusted();
  try {
    const frame = await frameFor(bench, steps, settings);
    const { text } = transactionMessage(steps, surroundings(bench, settings), frame);
    const results = await bench.sendBody(text, settings.lockTimeoutMs);
    return { durations: readDurations(bench, results, steps.length), failure: null };
  } catch (cause) {
    await settle(bench, cause);
    const committed = await committedMeanwhile(bench);
    const [failed, ...rest] = steps.slice(committed.length);
    if (failed === undefined) return { durations: committed, failure: null };
    // What met a lock has had its first try, and leaves the lock to others for a while.
    const attempt = (await mayTryAgain(bench, failed, settings, cause, 1)) ? 2 : 1;
    const durations = [...committed];
    for (const step of [failed, ...rest]) {
      const one = await applyOne(bench, step, settings, step === failed ? attempt : 1);
      durations.push(...one.durations);
      if (one.failure !== null) return { durations, failure: one.failure };
    }
    return { durations, failure: null };
  }
}

/** What surrounds the bodies of a message: prepared for them all, where they are many and the session is ours alone. */
async function frameFor(bench: Workbench, steps: Group, settings: SessionSettings): Promise<Frame> {
  const around = surroundings(bench, settings);
  if (bench.isPooled || steps.length < worthPreparing) return frameOf(around, whole);
  if (bench.preparedFor !== settings) {
    await bench.send(prepareFrame(steps[0], around));
    bench.preparedFor = settings;
  }
  return frameOf(around, byName);
}

/** One body in its own message, tried again where it merely met a lock. */
async function applyOne(
  bench: Workbench,
  step: TransactionStep,
  settings: SessionSettings,
  firstAttempt = 1,
): Promise<Applied> {
  // It may leave nothing prepared, or is what is tried after a message failed, for whatever reason.
  bench.preparedFor = undefined;
  for (let attempt = firstAttempt; ; attempt += 1) {
    bench.kept.assertTrusted();
    const message = transactionMessage([step], surroundings(bench, settings));
    try {
      const results = await bench.sendBody(message.text, step.lockTimeoutMs ?? settings.lockTimeoutMs);
      return { durations: readDurations(bench, results, 1), failure: null };
    } catch (cause) {
      const completed = bench.completed();
      await settle(bench, cause);
      const committed = await committedMeanwhile(bench);
      if (committed.length > 0) return { durations: committed, failure: null };
      if (!(await mayTryAgain(bench, step, settings, cause, attempt))) {
        const failure = bodyFailure(step, cause, {
          sqlOffset: step.sqlOffset,
          messageOffset: message.bodyOffset,
          completed,
          blocker: bench.blocker,
        });
        await recordFailure(bench, step, settings, failure);
        return { durations: [], failure };
      }
    }
  }
}
