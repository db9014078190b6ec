import { randomUUID } from "node:crypto";

import type { ClientSession } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { Statement } from "../../migration/migration.ts";
import { readCommands } from "../../migration/mongo/read-commands.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import type { Bench } from "./bench.ts";
import { toEntryError } from "./body-failure.ts";
import { coveredEntries } from "./covered.ts";
import { within } from "./database.ts";
import { writeBack } from "./foreign/write-back.ts";
import { changeEntry, entryOfStep, type EntryChange } from "./history.ts";
import { passFence } from "./lease.ts";

/** A body that runs command by command, and all that its running needs. */
export interface Body {
  readonly bench: Bench;
  readonly step: StatementStep;
  readonly settings: SessionSettings;
  readonly checkpoint: Checkpoint;
  onProgress(progress: StatementProgress): void;
}

/** One command of it. */
export interface Task extends Body {
  readonly command: Command;
  readonly statement: Statement;
  readonly index: number;
}

/** What moves the entry of the body under way. Each is written with the fence, or in the transaction that is given. */
export interface Checkpoint {
  /** the statement at `index` has taken effect; what was noted of it is no longer needed */
  reached(index: number, checksum: string, session?: ClientSession): Promise<void>;
  /** what is to be known of the statement under way after a crash; null: nothing is under way */
  noted(checkpoint: StatementCheckpoint | null, session?: ClientSession): Promise<void>;
  failed(error: RunnerError, status: "failed" | "needs_attention"): Promise<void>;
  /** as `failed`, of a run that is to stop: tried once, although its signal has fired */
  stopped(error: RunnerError): Promise<void>;
  done(): Promise<void>;
}

/** milliseconds for the last words of a run that is to stop */
const lastMs = 5_000;

/**
 * The commands of a body, where they are those that its release lists.
 *
 * @throws RunnerError `COMMAND_SYNTAX` - they are others: it was published by another version of this program
 */
export function commandsOf(step: StatementStep): readonly Command[] {
  const { commands } = readCommands(step.bytes, step.path);
  const isListed = (command: Command, index: number): boolean =>
    command.offset === step.statements[index]?.offset;
  if (commands.length === step.statements.length && commands.every(isListed)) return commands;
  throw new RunnerError(
    "COMMAND_SYNTAX",
    `${step.path}: the release lists other commands than the file holds`,
    {
      hint: "publish it anew",
      fields: { migration: step.path, version: step.migration.version },
    },
  );
}

/** Over a command's own text, so that a corrected file can go on after those that it has not changed. */
export function checksumOf(step: StatementStep, { offset, length }: Statement): string {
  return sha256Hex(step.bytes.subarray(offset, offset + length));
}

/** Adds the entry of a body that begins. */
export async function startEntry(
  bench: Bench,
  step: StatementStep,
  settings: SessionSettings,
): Promise<Checkpoint> {
  const began = performance.now();
  const { appliedBy } = settings;
  const checksums = step.statements.slice(0, step.resumeAt).map((each) => checksumOf(step, each));
  const entry = entryOfStep(step, bench.key(), appliedBy, {
    status: "started",
    statementsDone: step.resumeAt,
    statements: step.statements.length,
    statementChecksums: checksums,
    // Until it is settled: this run may die as the one before did.
    checkpoint: step.unfinished?.checkpoint ?? null,
    error: null,
    startedAt: bench.now(),
    durationMs: 0,
  });
  const id = await bench.write((session) => bench.addEntries(session, [entry]));
  const change = (values: EntryChange, within?: ClientSession): Promise<void> => {
    const timed = { ...values, durationMs: performance.now() - began };
    return within === undefined
      ? bench.write((session) => bench.updateEntry(session, id, timed))
      : bench.updateEntry(within, id, timed);
  };
  const done = [...checksums];
  return {
    reached: async (index, checksum, session) => {
      done[index] = checksum;
      await change({ statementsDone: index + 1, statementChecksums: done, checkpoint: null }, session);
    },
    noted: (checkpoint, session) => change({ checkpoint }, session),
    failed: (error, status) => change({ status, error: toEntryError(error) }),
    stopped: (error) =>
      writeLast(bench, id, {
        status: "failed",
        error: toEntryError(error),
        durationMs: performance.now() - began,
      }),
    done: () =>
      bench.write(async (session) => {
        const covered = coveredEntries(step, bench, appliedBy);
        if (covered.length > 0) await bench.addEntries(session, covered);
        await writeBack(bench, step, session);
        await bench.updateEntry(session, id, { status: "done", durationMs: performance.now() - began });
      }),
  };
}

/** The last words of a run that is to stop; what fails is left unsaid. */
async function writeLast(bench: Bench, id: number, change: EntryChange): Promise<void> {
  const { database } = bench;
  const key = bench.key();
  const write = async (session?: ClientSession): Promise<void> => {
    await passFence(database, key, randomUUID(), session);
    await changeEntry(database, key, id, change, session);
  };
  const inTransaction = (): Promise<void> =>
    database.client.withSession((session) =>
      session.withTransaction(() => write(session), { writeConcern: { w: "majority" } }),
    );
  const action = database.hasTransactions ? inTransaction : write;
  await within(action, AbortSignal.timeout(lastMs)).catch(() => undefined);
}

/** Before a command is sent: what stops the run here leaves nothing in doubt. */
export async function assertMayStart(body: Pick<Body, "bench" | "checkpoint">): Promise<void> {
  try {
    body.bench.kept.assertTrusted();
  } catch (reason) {
    await stop(body, reason);
  }
}

/** Records that the run stopped here and why, if the lease is still ours. */
export async function stop({ checkpoint }: Pick<Body, "checkpoint">, reason: unknown): Promise<never> {
  const error =
    reason instanceof RunnerError
      ? reason
      : new RunnerError("CANCELED", "the run was interrupted", { cause: reason });
  if (error.code !== "LEASE_LOST") await checkpoint.stopped(error);
  throw error;
}

/** Writes into the entry why its body did not go on; gives the failure back. */
export async function recordFailure(
  { checkpoint }: Pick<Body, "checkpoint">,
  failure: RunnerError,
  status: "failed" | "needs_attention",
): Promise<RunnerError> {
  await checkpoint.failed(failure, status);
  return failure;
}

/** milliseconds that the server may work on one command; 0: as long as it takes */
export function statementTimeoutOf({ step, settings }: Pick<Body, "step" | "settings">): number {
  return step.statementTimeoutMs ?? settings.statementTimeoutMs;
}
