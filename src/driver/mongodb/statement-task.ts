import type { ClientSession } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { StatementCheckpoint } from "../../history/entry.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { Statement } from "../../migration/migration.ts";
import { readCommands } from "../../migration/mongo/read-commands.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type { SessionSettings, StatementProgress, StatementStep } from "../session.ts";
import type { Bench } from "./bench.ts";

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

/** What moves the entry of a body under way. Each write is fenced, or part of the transaction that is given. */
export interface Checkpoint {
  /** Adds the entry, unless it is there already. */
  begin(): Promise<void>;
  /** the statement at `index` has taken effect; what was noted of it is no longer needed */
  reached(index: number, checksum: string, session?: ClientSession): Promise<void>;
  /** what is to be known of the statement under way after a crash; null: nothing is under way */
  noted(checkpoint: StatementCheckpoint | null, session?: ClientSession): Promise<void>;
  failed(error: RunnerError, status: "failed" | "needs_attention"): Promise<void>;
  /** as `failed`, of a run that is to stop: tried once, although its signal has fired */
  stopped(error: RunnerError): Promise<void>;
  /** all statements have taken effect */
  done(): Promise<void>;
}

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
