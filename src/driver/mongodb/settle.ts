import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type { ProbeVerdict } from "../session.ts";
import { isNetworkLoss, isOutcomeUnknown } from "./command-error.ts";
import { selectOperations } from "./operations.ts";
import { isProbeName, probeOf, probes } from "./outcome.ts";
import type { Seen } from "./probe.ts";
import type { Noted, SendLimit, SentNote } from "./sent-note.ts";
import {
  checksumOf,
  recordFailure,
  stop,
  statementTimeoutOf,
  type Body,
  type Task,
} from "./statement-task.ts";

/** What the limit hangs on. */
type LimitedTask = Pick<Body, "bench" | "step" | "settings">;

/** What a note says of the command, besides what its probe has seen. */
const noted = v.object({
  command: v.string(),
  probe: v.nullable(v.string()),
  /** a second time changes nothing */
  isRepeatable: v.boolean(),
  until: v.nullable(v.string()),
  seen: v.record(v.string(), v.unknown()),
});

/** milliseconds that noting may take, at the first try */
export const firstSlackMs = 1_000;
/** milliseconds between looks for a command that may still be under way */
const lookMs = 250;
/** tries of asking how a command ended, when the server is away */
const mostTries = 10;

/**
 * The limit for what is sent now (`protocol.md` 17). Whoever takes over after a crash must know when the command has
 * ended: because the server shows what it works on, or because the user said how long it may take, or else because it
 * ends while the lease is still ours.
 *
 * @param slackMs - milliseconds until it is sent, at most
 */
export async function limitOf(task: LimitedTask, slackMs: number): Promise<SendLimit> {
  const { bench } = task;
  const wanted = statementTimeoutOf(task);
  const isShown = await bench.showsOperations();
  if (wanted === 0 && isShown) return { maxTimeMs: 0, until: null, isOurs: false, sendBy: Infinity };
  if (wanted === 0) await untilFresh(task);
  const maxTimeMs = wanted > 0 ? wanted : Math.max(1, bench.kept.trustedForMs() - slackMs);
  return {
    maxTimeMs,
    until: isShown ? null : new Date(bench.now().getTime() + maxTimeMs + slackMs),
    isOurs: wanted === 0,
    sendBy: performance.now() + slackMs,
  };
}

/** The lease is hardly older than a heartbeat: what may last as long as it is trusted has that time. */
async function untilFresh({ bench }: Pick<Body, "bench">): Promise<void> {
  const { leaseMs, marginMs, heartbeatMs } = bench.times;
  const enough = leaseMs - marginMs - heartbeatMs * 1.5;
  while (bench.kept.trustedForMs() < enough) {
    bench.kept.assertTrusted();
    await sleep(20, undefined, { signal: bench.kept.signal }).catch(() => undefined);
  }
  bench.kept.assertTrusted();
}

/** Notes what is about to be sent: whoever finds the entry after a crash needs no more than that. */
export async function noteBefore(
  task: Task,
  { until }: SendLimit,
  { isRepeatable, seen }: { readonly isRepeatable: boolean; readonly seen: Seen | undefined },
): Promise<SentNote> {
  const { bench, checkpoint, command, index, step, statement } = task;
  const probe = probeOf(command) ?? null;
  const found = seen ?? (probe === null ? {} : await probes[probe].look(bench.database.db, command));
  const note = noteOf(
    { index, sha256: checksumOf(step, statement) },
    { command: command.name, probe, isRepeatable, until: until?.toISOString() ?? null, seen: found },
  );
  await checkpoint.noted(note);
  return note;
}

/** Whether there is still the time that the note speaks of. */
export function isInTime({ until, sendBy }: SendLimit): boolean {
  return until === null || performance.now() < sendBy;
}

/** What is to be noted of a command that may be repeated, and that nothing has to be asked about before it is sent. */
export async function plainNote(
  task: LimitedTask,
  command: Command,
  { index, sha256 }: Parameters<typeof noteOf>[0],
): Promise<Noted> {
  const limit = await limitOf(task, firstSlackMs);
  const until = limit.until?.toISOString() ?? null;
  const before = { command: command.name, probe: null, isRepeatable: true, until, seen: {} };
  return { limit, note: noteOf({ index, sha256 }, before) };
}

function noteOf(
  { index, sha256 }: { readonly index: number; readonly sha256: string },
  before: v.InferOutput<typeof noted>,
): SentNote {
  return { kind: "sent", statement: index, sha256, before };
}

/** The same of a command that the server has answered: it works on it no longer. */
export function ended(note: SentNote): SentNote {
  return { ...note, before: { ...note.before, until: new Date(0).toISOString() } };
}

/** What the probe of a noted command has seen before it was sent. */
export function seenIn({ before }: SentNote): Seen {
  return v.parse(noted, before).seen;
}

/**
 * Finds out what became of a command that was sent, once the server works on it no longer.
 *
 * @throws RunnerError `NEEDS_ATTENTION` - nobody can tell, as the entry then says too
 */
export async function settle(body: Body, note: SentNote): Promise<ProbeVerdict> {
  const { bench, onProgress } = body;
  for (let attempt = 1; ; attempt += 1) {
    try {
      bench.kept.assertTrusted();
      await untilEnded(body, note);
      const verdict = await verdictOf(body, note);
      if (verdict === undefined) throw await recordFailure(body, undecided(body, note), "needs_attention");
      onProgress({ kind: "probed", statement: note.statement + 1, verdict });
      return verdict;
    } catch (cause) {
      if (cause instanceof RunnerError && cause.code === "NEEDS_ATTENTION") throw cause;
      if (bench.kept.signal.aborted) await stop(body, bench.kept.signal.reason);
      const mayAskAgain = isNetworkLoss(cause) || isOutcomeUnknown(cause);
      if (!mayAskAgain || attempt >= mostTries) throw cause;
      await sleep(lookMs * attempt, undefined, { signal: bench.kept.signal }).catch(() => undefined);
    }
  }
}

async function verdictOf({ bench }: Body, { before }: SentNote): Promise<ProbeVerdict | undefined> {
  const { probe, isRepeatable, seen } = v.parse(noted, before);
  const verdict = isProbeName(probe) ? await probes[probe].settle(bench.database.db, seen) : undefined;
  return verdict ?? (isRepeatable ? "not-done" : undefined);
}

/** Waits until nobody works on it any more: by what the server shows, or by the time that it had. */
async function untilEnded({ bench }: Body, { before }: SentNote): Promise<void> {
  const { db } = bench.database;
  const { stream, token } = bench.key();
  const { until } = v.parse(noted, before);
  const isWanted = (other: number): boolean => other <= token;
  for (;;) {
    bench.kept.assertTrusted();
    const { signal } = bench.kept;
    const isOver =
      until === null
        ? (await selectOperations(db, { stream, isWanted }, signal)).length === 0
        : bench.now() >= new Date(until);
    if (isOver) return;
    await sleep(lookMs, undefined, { signal: bench.kept.signal }).catch(() => undefined);
  }
}

function undecided({ step }: Body, note: SentNote): RunnerError {
  const { command } = v.parse(noted, note.before);
  const index = note.statement;
  const statement = step.statements[index];
  const isSame = statement !== undefined && checksumOf(step, statement) === note.sha256;
  const line = isSame ? lineOf(step.bytes, statement.offset) : undefined;
  return new RunnerError(
    "NEEDS_ATTENTION",
    `"${step.path}" (${step.direction}): the connection was lost, or the runner died, while command ${index + 1} of ${step.statements.length} (${command}${line === undefined ? "" : ` in line ${line}`}) was under way, and nothing in the database tells whether it took effect`,
    {
      hint: 'look whether what it was to change is changed, then say so: lockkeeper repair --as applied|not-applied --reason "…"',
      fields: {
        migration: step.path,
        version: step.migration.version,
        direction: step.direction,
        statement: index + 1,
        statements: step.statements.length,
        ...(line === undefined ? {} : { line }),
      },
    },
  );
}

function lineOf(bytes: Buffer, offset: number): number {
  return (
    (bytes
      .subarray(0, offset)
      .toString("utf8")
      .match(/\r\n|\r|\n/g)?.length ?? 0) + 1
  );
}
