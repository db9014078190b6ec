import type { ClientSession } from "mongodb";

import type { DeclaredEntry, LeasedSession, RunBeginning, RunEnd } from "../session.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import type { Bench } from "./bench.ts";
import { answerMs } from "./database.ts";
import type { StreamDocument } from "./documents.ts";
import { databaseFailure } from "./failure.ts";
import { writeBack } from "./foreign/write-back.ts";
import { applyFunction } from "./function.ts";
import { withSession, type NewEntry } from "./history.ts";
import { isOurs, leaseLost } from "./lease.ts";
import { rememberRoots } from "./roots.ts";
import { beginRun, endDeadRuns, updateRun } from "./runs.ts";
import { readStream, type SeenStream } from "./state.ts";
import { applyStatements } from "./statements.ts";
import { applyInTransactions } from "./transactions.ts";

/** What can be done while the lease of `bench` is held; see {@link LeasedSession}. */
export function openSession(bench: Bench): LeasedSession {
  // Named here, where it is certain that the database failed, and not the work that is done with the session.
  const named = <T>(asked: Promise<T>): Promise<T> =>
    asked.catch((cause: unknown) => {
      throw databaseFailure(cause, bench.database.shownUrl);
    });
  // Once: whoever asks again wants to know what has changed.
  let seen = bench.stream;
  return {
    token: bench.key().token,
    attempt: bench.attempt,
    signal: bench.kept.signal,
    async state() {
      const { state } = seen ?? (await named(readOwnState(bench)));
      seen = undefined;
      return state;
    },
    begin: (beginning) => named(begin(bench, beginning)),
    applyInTransactions: (steps, settings) => named(applyInTransactions(bench, steps, settings)),
    ...(bench.database.hasTransactions && {
      applyFunction: (step, settings) => named(applyFunction(bench, step, settings)),
    }),
    applyStatements: (step, settings, onProgress, next) =>
      named(applyStatements(bench, step, settings, onProgress, next)),
    declare: (entries, inStep) => named(declare(bench, entries, inStep)),
    finish: (end) => named(finish(bench, end)),
  };
}

async function readOwnState(bench: Bench): Promise<SeenStream> {
  const seen = await bench.again(() =>
    readStream(bench.database, bench.key().stream, bench.kept.signal, "known"),
  );
  bench.saw(seen);
  return seen;
}

/**
 * The stream first: what is raised or held before a death stands; a run that has not begun begins again. But before it the
 * roots: where more of them are known than the version says, nothing is missing.
 */
async function begin(bench: Bench, beginning: RunBeginning): Promise<void> {
  const { highWaterMark, held, root, statementSteps = 0 } = beginning;
  // Of what is needed here nobody else changes anything while the lease is held.
  const { state, document } = bench.stream ?? (await readOwnState(bench));
  const { environment, targetId, rootVersion } = state;
  const places = bench.entries.placesFor(statementSteps, document?.lastEntryId ?? 0);
  const change = {
    completed: null,
    // A pause may have made the stream's document.
    ...(targetId === null ? { targetId: bench.targetId } : {}),
    ...(highWaterMark === null ? {} : { highWaterMark, environment: environment ?? bench.environment }),
    ...(root === undefined ? {} : { rootVersion: Math.max(root.version, rootVersion ?? 0) }),
    ...(held === undefined ? {} : { held }),
    ...places?.change,
  };
  const beginWith = async (session: ClientSession | undefined): Promise<void> => {
    await places?.add(session);
    await bench.own(session, () => beginRun(bench.database, bench.key(), beginning, session));
  };
  if (root === undefined) {
    await bench.write(beginWith, change);
    places?.added();
    return;
  }
  // Before the transaction: some servers create no collection in one. Where roots are remembered, it is there.
  if (rootVersion === null) await bench.again(() => bench.database.prepareRoots());
  await bench.write(async (session) => {
    await bench.own(session, () => rememberRoots(bench.database, bench.key().stream, root.files, session));
    await changeStream(bench, session, change);
    await beginWith(session);
  });
  places?.added();
}

/**
 * The stream first: a death after it leaves a run that is told as cut off, although it came to its end, and nothing for the
 * next one to do. The other way round a run that failed, or was taken back, would be over before anything keeps what
 * starts by itself from undoing that.
 */
async function finish(bench: Bench, end: RunEnd): Promise<void> {
  const { completed, held, failed, ...change } = end;
  const { entries } = bench;
  await bench.again(() => entries.withdraw());
  await bench.write(
    async (session) => {
      await entries.end(session);
      await bench.own(session, () => updateRun(bench.database, bench.key().runId, change, session));
      // Word of a dead holder's beginning may have come after ours, where no transaction has kept it out.
      if (session === undefined) await bench.again(() => endDeadRuns(bench.database, bench.key(), undefined));
    },
    {
      ...(completed === undefined ? {} : { completed }),
      ...(held === undefined ? {} : { held }),
      ...(failed === undefined ? {} : { failed }),
      ...entries.ending,
    },
  );
  entries.ended();
}

async function declare(
  bench: Bench,
  entries: readonly DeclaredEntry[],
  inStep: ForeignPlace | null | undefined,
): Promise<void> {
  await bench.write(async (session) => {
    if (entries.length > 0)
      await bench.addEntries(
        session,
        entries.map((entry) => declared(entry, bench)),
      );
    // What was adopted is what the other tool says itself.
    for (const entry of entries)
      if (entry.origin !== "adopt" && entry.status === "done") await writeBack(bench, entry, session);
    await changeStream(bench, session, inStep === undefined ? {} : { inStep });
  });
  if (inStep !== undefined) bench.inStep = inStep;
}

function declared(entry: DeclaredEntry, bench: Bench): NewEntry {
  // By name: what a repair hands over is a whole earlier entry, with a status of its own.
  const { seq, version, path, sha256, size, chain } = entry.migration;
  const { runId, token } = bench.key();
  return {
    direction: entry.direction,
    origin: entry.origin,
    status: entry.status,
    statementsDone: entry.statementsDone,
    statements: entry.statements,
    statementChecksums: entry.statementChecksums,
    signed: entry.signed,
    note: entry.note,
    appliedBy: entry.appliedBy,
    seq,
    version,
    path,
    sha256,
    size,
    chain,
    runId,
    token,
    startedAt: bench.now(),
    durationMs: 0,
    checkpoint: null,
    error: null,
  };
}

async function changeStream(
  bench: Bench,
  session: ClientSession | undefined,
  change: Partial<StreamDocument>,
): Promise<void> {
  if (Object.keys(change).length === 0) return;
  const { matchedCount } = await bench.own(session, () =>
    bench.database.collections.streams.updateOne(
      isOurs(bench.key()),
      { $set: change },
      { maxTimeMS: answerMs, ...withSession(session) },
    ),
  );
  if (matchedCount !== 1) throw leaseLost();
}
