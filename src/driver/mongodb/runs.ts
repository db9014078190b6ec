import type { ClientSession, Filter, UpdateFilter } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { EntryError } from "../../history/entry.ts";
import { isEnded, type RunAttempt, type RunStatus } from "../../history/run.ts";
import type { NewRun, RunChange } from "../runs.ts";
import type { RunBeginning } from "../session.ts";
import { commandError, errorCode } from "./command-error.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import type { RunDocument } from "./documents.ts";
import { withSession } from "./history.ts";
import { leaseLost, type LeaseKey } from "./lease.ts";
import { updateInOrder, type PlainUpdate } from "./plain-update.ts";

const limit = { maxTimeMS: answerMs } as const;
const endedStatuses: readonly RunStatus[] = ["succeeded", "failed", "canceled"];
const hasNotEnded = { status: { $nin: [...endedStatuses] } };

/** What no two runs may have: each of them belongs to the run that had it first. */
function claimsOf({ id, idempotencyKey, singleUse }: NewRun): readonly string[] {
  return [
    `run ${id}`,
    ...(idempotencyKey === null ? [] : [keyClaim(idempotencyKey)]),
    ...(singleUse === null ? [] : [tokenClaim(singleUse)]),
  ];
}

/** The claim of an idempotency key. */
export function keyClaim(key: string): string {
  return `key ${key}`;
}

/** The claim of a token's single-use id; each issuer has its own. */
export function tokenClaim({ issuer, jti }: NonNullable<NewRun["singleUse"]>): string {
  return `token ${JSON.stringify([issuer, jti])}`;
}

/** A run's document as it begins, but for what the server's clock says. */
function firstFields(
  run: NewRun,
): Omit<RunDocument, "_id" | "status" | "attempt" | "createdAt" | "claimedAt"> {
  return {
    claims: claimsOf(run),
    target: run.target,
    stream: run.stream,
    action: run.action,
    trigger: run.trigger,
    caller: run.caller,
    labels: JSON.stringify(run.labels),
    order: run.order === undefined ? null : JSON.stringify(run.order),
    bodyDigest: run.bodyDigest,
    releaseDigest: run.releaseDigest,
    cancelRequested: false,
    total: 0,
    stalls: 0,
  };
}

/** Adds a run that waits to be executed, in one write; false where something of it belongs to another run. */
export async function insertRun({ collections }: MongoDatabase, run: NewRun): Promise<boolean> {
  try {
    const { upsertedCount } = await collections.runs.updateOne(
      { _id: run.id, createdAt: { $exists: false } },
      {
        $set: {
          ...firstFields(run),
          status: "queued",
          attempt: 0,
          ...(run.isUnclaimed === true ? { claimedAt: null } : {}),
        },
        $currentDate: { createdAt: true, ...(run.isUnclaimed === true ? {} : { claimedAt: true }) },
      },
      { upsert: true, ...limit },
    );
    return upsertedCount === 1;
  } catch (cause) {
    if (commandError(cause)?.code === errorCode.duplicateKey) return false;
    throw cause;
  }
}

/** A run with the claim, or the id. */
export async function findByClaim(
  { collections }: MongoDatabase,
  claim: string,
): Promise<RunDocument | undefined> {
  return (await collections.runs.findOne({ claims: claim }, limit)) ?? undefined;
}

/** A token that asked for a run again belongs to it from now on; false where it belongs to another by now. */
export async function addClaim({ collections }: MongoDatabase, id: string, claim: string): Promise<boolean> {
  try {
    await collections.runs.updateOne({ _id: id }, { $addToSet: { claims: claim } }, limit);
    return true;
  } catch (cause) {
    if (commandError(cause)?.code === errorCode.duplicateKey) return false;
    throw cause;
  }
}

/**
 * What is left of the runs of earlier holders: nobody works on them any more once the lease is another's. Those that
 * somebody else can go on with wait for that, the others end. By the tokens they had: who comes too late ends none of a
 * later holder.
 */
function endOfDeadRuns({ stream, runId, token }: LeaseKey): readonly PlainUpdate<RunDocument>[] {
  const error: EntryError = {
    code: "LEASE_LOST",
    message: "its runner died or was cut off, and another run has taken its lease",
    hint: "look at the history for what it did; the next run goes on where it stopped",
    fields: { by: runId },
  };
  const dead: Filter<RunDocument> = {
    stream,
    _id: { $ne: runId },
    status: { $in: ["running", "canceling"] },
    token: { $not: { $gte: token } },
  };
  return [
    {
      q: { ...dead, order: { $ne: null } },
      u: { $set: { status: "handing_over", claimedAt: null } },
      multi: true,
    },
    {
      q: { ...dead, order: null },
      u: { $set: { status: "failed", outcome: "failed", error }, $currentDate: { endedAt: true } },
      multi: true,
    },
  ];
}

/** Ends what is left of the runs of earlier holders. */
export async function endDeadRuns(
  { db, collections }: MongoDatabase,
  key: LeaseKey,
  session: ClientSession | undefined,
): Promise<void> {
  await updateInOrder(db, collections.runs, endOfDeadRuns(key), session);
}

/**
 * The run has the lease: what is left of earlier holders' runs ends, and its next attempt begins. Its document is added where
 * it is not there yet.
 *
 * @throws RunnerError `RUN_ENDED`; `LEASE_LOST` - it has had an attempt under a later lease
 */
export async function startRun(
  { db, collections }: MongoDatabase,
  run: NewRun,
  key: LeaseKey,
  now: Date,
  session: ClientSession | undefined,
): Promise<RunAttempt> {
  const { token } = key;
  const start: PlainUpdate<RunDocument> = {
    q: { _id: run.id, ...hasNotEnded, token: { $not: { $gte: token } } },
    u: {
      $set: { status: "running", token },
      $inc: { attempt: 1 },
      $min: { startedAt: now },
      $setOnInsert: { ...firstFields(run), createdAt: now, claimedAt: now },
    },
    upsert: true,
  };
  try {
    const { added } = await updateInOrder(db, collections.runs, [...endOfDeadRuns(key), start], session);
    if (added === 1) return { number: 1, mark: null, stalls: 0 };
    const found = await collections.runs.findOne({ _id: run.id }, { ...limit, ...withSession(session) });
    if (found === null) throw new RunnerError("INTERNAL", "a run was neither added nor found");
    return attemptOf(found);
  } catch (cause) {
    if (commandError(cause)?.code !== errorCode.duplicateKey) throw cause;
    const found = await collections.runs.findOne({ _id: run.id }, limit);
    // The very write of an earlier try, whose answer was lost.
    if (found?.token === token && !isEnded(found.status)) return attemptOf(found);
    if (found !== null && !isEnded(found.status)) throw leaseLost();
    throw new RunnerError("RUN_ENDED", `run ${run.id} has ended already`, {
      hint: "ask for a new run",
      fields: { run: run.id },
      cause,
    });
  }
}

function attemptOf({ attempt, mark = null, stalls }: RunDocument): RunAttempt {
  return { number: attempt, mark, stalls };
}

/**
 * The run has a plan and starts to carry it out; where it began, and how much it was, stays as its first attempt said.
 * Where the server has no transactions, this may arrive after another has taken the lease and ended the run.
 */
export async function beginRun(
  { db, collections }: MongoDatabase,
  { runId, token }: LeaseKey,
  { highWaterMark, releaseDigest, fromVersion, toVersion, steps, progress }: RunBeginning,
  session: ClientSession | undefined,
): Promise<void> {
  const ours: Filter<RunDocument> = { _id: runId, token, status: { $in: ["running", "canceling"] } };
  const marked = progress === undefined ? {} : { mark: progress.mark, stalls: progress.stalls };
  const planned = {
    status: "running",
    releaseDigest,
    releaseVersion: highWaterMark?.version ?? null,
    toVersion,
    ...marked,
  } as const;
  await updateInOrder(
    db,
    collections.runs,
    [
      { q: { ...ours, total: 0 }, u: { $set: { total: steps, fromVersion } } },
      { q: ours, u: { $set: planned } },
    ],
    session,
  );
}

/** Changes a run that has not ended. */
export async function updateRun(
  { collections }: MongoDatabase,
  id: string,
  change: RunChange,
  session?: ClientSession,
): Promise<void> {
  const { status, attempt, outcome, releaseDigest, releaseVersion, fromVersion, toVersion, backup, error } =
    change;
  const isFree = status === "handing_over";
  const update: UpdateFilter<RunDocument> = {
    $set: {
      status,
      ...defined({ outcome, releaseDigest, releaseVersion, fromVersion, toVersion, backup, error }),
      ...(isFree ? { claimedAt: null } : {}),
    },
    $currentDate: {
      ...(isFree ? {} : { claimedAt: true as const }),
      ...(isEnded(status) ? { endedAt: true as const } : {}),
    },
  };
  const filter: Filter<RunDocument> = {
    _id: id,
    // Said without being waited for: that it waits may come after the lease did.
    status: {
      $nin: status === "waiting_lock" ? [...endedStatuses, "running", "canceling"] : [...endedStatuses],
    },
    ...(attempt === undefined ? {} : { attempt }),
  };
  const options = { ...limit, ...withSession(session) };
  if (isFree) delete update.$currentDate;
  await collections.runs.updateOne(filter, update, options);
  if (status === "running")
    await collections.runs.updateOne(
      { _id: id, status, startedAt: { $exists: false } },
      { $currentDate: { startedAt: true } },
      options,
    );
}

/** Asks a run to stop; whoever executes it, or waits with it, ends it. Between two executors nobody would. True when it had not ended. */
export async function requestCancel(
  { collections }: MongoDatabase,
  id: string,
  reason: string,
): Promise<boolean> {
  const error: EntryError = {
    code: "CANCELED",
    message: `the run was asked to stop: ${reason}`,
    hint: "run again to go on where it stopped",
    fields: {},
  };
  for (;;) {
    const run = await collections.runs.findOne({ _id: id }, { projection: { status: 1 }, ...limit });
    if (run === null || isEnded(run.status)) return false;
    const asked = { cancelRequested: true, cancelReason: reason };
    const { matchedCount } = await collections.runs.updateOne(
      { _id: id, status: run.status },
      run.status === "handing_over"
        ? { $set: { ...asked, status: "canceled", error }, $currentDate: { endedAt: true } }
        : { $set: { ...asked, ...(run.status === "running" ? { status: "canceling" } : {}) } },
      limit,
    );
    if (matchedCount === 1) return true;
  }
}

/** Whether somebody asked the run to stop, and why. */
export async function readCancel({ collections }: MongoDatabase, id: string): Promise<string | undefined> {
  const found = await collections.runs.findOne(
    { _id: id, cancelRequested: true },
    { projection: { cancelReason: 1 }, ...limit },
  );
  return found?.cancelReason;
}

/** What has a value; what has none stays as it is. */
function defined<T extends object>(values: T): Partial<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Partial<T>;
}
