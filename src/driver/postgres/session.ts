import { RunnerError } from "../../error.ts";
import type { DeclaredEntry, LeasedSession, RunBeginning, RunEnd } from "../session.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import type { StreamState } from "../stream-state.ts";
import { addToHistory } from "./committed.ts";
import { databaseFailure } from "./failure.ts";
import { writeBackStep } from "./foreign/write-back.ts";
import { runFunction } from "./function.ts";
import type { NewEntry } from "./history.ts";
import type { LeaseKey } from "./lease.ts";
import { raiseRootVersion, rememberRoots } from "./roots.ts";
import { beginRun, updateRun } from "./runs.ts";
import { readState, selectState } from "./state.ts";
import { runStatements } from "./statements.ts";
import { jsonLiteral, literal } from "./tables.ts";
import { applyInTransactions } from "./transactions.ts";
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
