import { randomUUID } from "node:crypto";

import type { ClientSession } from "mongodb";

import type { StatementCheckpoint } from "../../history/entry.ts";
import type { SessionSettings, StatementStep } from "../session.ts";
import type { Bench } from "./bench.ts";
import { toEntryError } from "./body-failure.ts";
import { coveredEntries } from "./covered.ts";
import { within } from "./database.ts";
import { writeBack } from "./foreign/write-back.ts";
import { entryOfStep, type EntryChange, type NewEntry } from "./history.ts";
import { passFence } from "./lease.ts";
import type { OpenEntry } from "./own-entries.ts";
import type { Noted } from "./sent-note.ts";
import { checksumOf, type Checkpoint } from "./statement-task.ts";

/** What comes after a body: its entry, with the note of its first command, is begun with the end of this one's. */
export interface NextBody {
  readonly step: StatementStep;
  note(): Promise<Noted>;
}

/** milliseconds for the last words of a run that is to stop */
const lastMs = 5_000;

/**
 * The checkpoint of a body that is about to run.
 *
 * @param begun - its entry, where that was begun with the end of the body before it
 */
export function openCheckpoint(
  {
    bench,
    step,
    settings,
  }: { readonly bench: Bench; readonly step: StatementStep; readonly settings: SessionSettings },
  begun: OpenEntry | undefined,
  next: NextBody | undefined,
): Checkpoint {
  const began = performance.now();
  const done = step.statements.slice(0, step.resumeAt).map((each) => checksumOf(step, each));
  // What is kept besides the entry is kept in one transaction with its end.
  const isAlone = step.covers.length === 0 && (bench.inStep === null || step.migration.seq === 0);
  let entry = begun;
  let isDone = false;

  // Until it is settled, what an earlier run noted: this one may die as that one did.
  const begin = async (checkpoint = step.unfinished?.checkpoint ?? null): Promise<OpenEntry> =>
    (entry ??= await bench.entries.begin(startedEntry(bench, step, settings, checkpoint)));
  const change = async (values: EntryChange, session?: ClientSession): Promise<void> => {
    const of = await begin();
    const timed = { of, change: { ...values, durationMs: performance.now() - began } };
    await (session === undefined ? bench.entries.change(timed) : bench.entries.changeWithin(session, timed));
  };
  return {
    begin: async () => void (await begin()),
    async reached(index, checksum, session) {
      done[index] = checksum;
      const reached = { statementsDone: index + 1, statementChecksums: done, checkpoint: null };
      if (!isAlone || index + 1 < step.statements.length) return change(reached, session);
      const whole = { ...reached, status: "done" } as const;
      if (next === undefined || session !== undefined) await change(whole, session);
      else {
        const of = await begin();
        const timed = { ...whole, durationMs: performance.now() - began };
        const noted = await next.note();
        await bench.entries.beginAhead(
          { step: next.step, noted },
          startedEntry(bench, next.step, settings, noted.note),
          { of, change: timed },
        );
      }
      isDone = true;
    },
    async noted(checkpoint, session) {
      if (entry === undefined && session === undefined) await begin(checkpoint);
      else await change({ checkpoint }, session);
    },
    failed: (error, status) => change({ status, error: toEntryError(error) }),
    async stopped(error) {
      // Of a body that has not begun there is nothing to say.
      if (entry === undefined) return;
      const last = {
        status: "failed",
        error: toEntryError(error),
        durationMs: performance.now() - began,
      } as const;
      await writeLast(bench, { of: entry, change: last });
    },
    async done() {
      if (isDone) return;
      const of = await begin();
      await bench.write(async (session) => {
        const covered = coveredEntries(step, bench, settings.appliedBy);
        if (covered.length > 0) await bench.addEntries(session, covered);
        await writeBack(bench, step, session);
        const ended = { status: "done", durationMs: performance.now() - began } as const;
        await bench.entries.changeWithin(session, { of, change: ended });
      });
    },
  };
}

function startedEntry(
  bench: Bench,
  step: StatementStep,
  { appliedBy }: SessionSettings,
  checkpoint: StatementCheckpoint | null,
): NewEntry {
  const checksums = step.statements.slice(0, step.resumeAt).map((each) => checksumOf(step, each));
  return entryOfStep(step, bench.key(), appliedBy, {
    status: "started",
    statementsDone: step.resumeAt,
    statements: step.statements.length,
    statementChecksums: checksums,
    checkpoint,
    error: null,
    startedAt: bench.now(),
    durationMs: 0,
  });
}

/** The last words of a run that is to stop; what fails is left unsaid. */
async function writeLast(bench: Bench, change: Parameters<Bench["entries"]["change"]>[0]): Promise<void> {
  const { database } = bench;
  const write = async (session?: ClientSession): Promise<void> => {
    await passFence(database, bench.key(), randomUUID(), session);
    await bench.entries.changeWithin(session, change);
  };
  const inTransaction = (): Promise<void> =>
    database.client.withSession((session) =>
      session.withTransaction(() => write(session), { writeConcern: { w: "majority" } }),
    );
  const action = database.hasTransactions ? inTransaction : write;
  await within(action, AbortSignal.timeout(lastMs)).catch(() => undefined);
}
