import { RunnerError } from "../../error.ts";
import type {
  AppliedSteps,
  DeclaredEntry,
  LeasedSession,
  RunBeginning,
  RunEnd,
  SessionSettings,
  TransactionStep,
} from "../session.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import type { StreamState } from "../stream-state.ts";
import { bodyFailure } from "./body-failure.ts";
import {
  addToHistory,
  committedMeanwhile,
  readDurations,
  recordFailure,
  settle,
  surroundings,
} from "./committed.ts";
import { databaseFailure } from "./failure.ts";
import { writeBackStep } from "./foreign/write-back.ts";
import { runFunction } from "./function.ts";
import type { NewEntry } from "./history.ts";
import type { LeaseKey } from "./lease.ts";
import { mayTryAgain } from "./retry.ts";
import { raiseRootVersion, rememberRoots } from "./roots.ts";
import { beginRun, updateRun } from "./runs.ts";
import { readState, selectState } from "./state.ts";
import { runStatements } from "./statements.ts";
import { jsonLiteral, literal } from "./tables.ts";
import { transactionMessage } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** What can be done while the lease of `bench` is held; see {@link LeasedSession}. */
export function openSession(bench: Workbench): LeasedSession {
  // Named here, where it is certain that the database failed, and not the work that is done with the session.
  const named = <T>(asked: Promise<T>): Promise<T> =>
    asked.catch((cause: unknown) => {
      throw databaseFailure(cause, bench.shownUrl);
    });
  return {
    get token() {
      return bench.key().token;
    },
    attempt: bench.attempt,
    signal: bench.kept.signal,
    state: () => named(readOwnState(bench)),
    begin: (beginning) => named(tell(bench, beginStatements(bench, beginning))),
    applyInTransactions: (steps, settings) => named(applyInTransactions(bench, steps, settings)),
    applyFunction: (step, settings) => named(runFunction(bench, step, settings)),
    applyStatements: (step, settings, onProgress) => named(runStatements(bench, step, settings, onProgress)),
    declare: (entries, inStep) => named(declare(bench, entries, inStep)),
    finish: (end) => named(tell(bench, finishStatements(bench, end))),
  };
}

async function readOwnState(bench: Workbench): Promise<StreamState> {
  bench.kept.assertTrusted();
  const [result] = await bench.send(selectState(bench.t, bench.key().stream));
  const row = result?.rows[0];
  if (row === undefined) throw new RunnerError("INTERNAL", "the stream's state came back empty");
  // What an earlier executor of the same run has done must not be taken for what our own next message did.
  bench.lastEntryId = Math.max(bench.lastEntryId, Number(row["last_id"]), Number(row["repeatable_id"]));
  const state = readState(row);
  bench.inStep = state.inStep;
  return state;
}

async function tell(bench: Workbench, statements: string): Promise<void> {
  await bench.writeThrough(statements);
}

function beginStatements(bench: Workbench, beginning: RunBeginning): string {
  const { t } = bench;
  const mark = beginning.highWaterMark;
  const raised =
    mark === null
      ? ""
      : `, epoch = ${mark.epoch}, version = ${mark.version}, release = ${literal(mark.digest)}, environment = coalesce(environment, ${literal(bench.environment)})`;
  const { root } = beginning;
  const known = root === undefined ? "" : `, ${raiseRootVersion(root)}`;
  const held = beginning.held === undefined ? "" : `, held = ${jsonLiteral(beginning.held)}`;
  const { stream, runId } = bench.key();
  return [
    `UPDATE ${t.streams} SET completed = NULL${raised}${known}${held} WHERE name = ${literal(stream)}`,
    ...(root === undefined ? [] : rememberRoots(t, stream, root)),
    beginRun(t, runId, beginning),
  ].join("; ");
}

function finishStatements(bench: Workbench, end: RunEnd): string {
  const { t } = bench;
  const { stream, runId } = bench.key();
  const values: string[] = [];
  if (end.completed !== undefined) values.push(`completed = ${literal(end.completed)}`);
  if (end.held !== undefined) values.push(`held = ${jsonLiteral(end.held)}`);
  if (end.failed !== undefined) values.push(`failed = ${jsonLiteral(end.failed)}`);
  const ended = updateRun(t, runId, end);
  return values.length === 0
    ? ended
    : `UPDATE ${t.streams} SET ${values.join(", ")} WHERE name = ${literal(stream)}; ${ended}`;
}

async function declare(
  bench: Workbench,
  entries: readonly DeclaredEntry[],
  inStep: ForeignPlace | null | undefined,
): Promise<void> {
  const { stream } = bench.key();
  const remembered =
    inStep === undefined
      ? []
      : [`UPDATE ${bench.t.streams} SET in_step = ${jsonLiteral(inStep)} WHERE name = ${literal(stream)}`];
  // What was adopted is what the other tool says itself.
  const written = entries
    .filter(({ origin, status }) => origin !== "adopt" && status === "done")
    .flatMap((entry) =>
      writeBackStep({ t: bench.t, key: bench.key(), inStep: bench.inStep }, entry, {
        bytes: undefined,
        statements: entry.statements,
        durationMs: "0",
      }),
    );
  await addToHistory(
    bench,
    entries.map((entry) => declared(entry, bench.key())),
    [...remembered, ...written],
  );
  if (inStep !== undefined) bench.inStep = inStep;
}

function declared(entry: DeclaredEntry, key: LeaseKey): NewEntry {
  // By name: what a repair hands over is a whole earlier entry, with a status of its own.
  const { seq, version, path, sha256, size, chain } = entry.migration;
  return {
    ...entry,
    seq,
    version,
    path,
    sha256,
    size,
    chain,
    stream: key.stream,
    runId: key.runId,
    token: key.token,
    error: null,
  };
}

async function applyInTransactions(
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
    const { text } = transactionMessage(steps, surroundings(bench, settings));
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

/** One body in its own message, tried again where it merely met a lock. */
async function applyOne(
  bench: Workbench,
  step: TransactionStep,
  settings: SessionSettings,
  firstAttempt = 1,
): Promise<Applied> {
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
