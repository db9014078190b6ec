import type { Binary, ClientSession, Filter } from "mongodb";

import { RunnerError } from "../../error.ts";
import { closeEntries } from "./blank-entries.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import type { LeaseDocument, StreamDocument } from "./documents.ts";
import { errorCode, commandError } from "./command-error.ts";

/**
 * The lease of `protocol.md` 15: one document is who has it, and what heartbeats write to; the other, the stream's, is the
 * fence. Times are written by the server (`$currentDate`), and compared with its own clock by whoever wants to take over; the
 * take-over then names the heartbeat that it judged, so one that came meanwhile makes it miss. No `$$NOW` in a filter: not
 * every server knows it.
 */

/** Who holds, as every fenced write names it: token and run, never one alone. */
export interface LeaseKey {
  readonly stream: string;
  readonly token: number;
  readonly runId: string;
}

/** Who asks for a lease. */
export interface Asker {
  readonly stream: string;
  readonly runId: string;
  readonly holder: string;
  readonly leaseMs: number;
  /** of the driver's session that his first transaction will have, where it is known */
  readonly session?: Binary | undefined;
}

const limit = { maxTimeMS: answerMs } as const;

/** Filter of every fenced write. */
export function isOurs({ stream, token, runId }: LeaseKey): Pick<LeaseDocument, "_id" | "token" | "runId"> {
  return { _id: stream, token, runId };
}

/**
 * Takes a lease that was given back or never taken, without having looked at it.
 *
 * @returns undefined where somebody has it, or did not give it back himself
 */
export async function takeFree(database: MongoDatabase, asker: Asker): Promise<LeaseDocument | undefined> {
  try {
    return await take(database, asker, { runId: null, wasTaken: { $ne: true } }, true);
  } catch (cause) {
    // The document is there with a holder, or another asker made it in the same moment.
    if (commandError(cause)?.code === errorCode.duplicateKey) return undefined;
    throw cause;
  }
}

/** Takes a lease that was seen never to have been taken; undefined where it has been since. */
export async function takeNew(database: MongoDatabase, asker: Asker): Promise<LeaseDocument | undefined> {
  try {
    return await take(database, asker, { token: { $exists: false } }, true);
  } catch (cause) {
    if (commandError(cause)?.code === errorCode.duplicateKey) return undefined;
    throw cause;
  }
}

/** Takes a lease that was seen to be free, or to have expired; undefined where it has moved since. */
export function takeSeen(
  database: MongoDatabase,
  asker: Asker,
  { token, runId, renewedAt }: LeaseDocument,
): Promise<LeaseDocument | undefined> {
  return take(database, asker, { token, runId, renewedAt }, false);
}

async function take(
  { collections }: MongoDatabase,
  { stream, runId, holder, leaseMs, session }: Asker,
  condition: Filter<LeaseDocument>,
  upsert: boolean,
): Promise<LeaseDocument | undefined> {
  const taken = await collections.leases.findOneAndUpdate(
    { _id: stream, ...condition },
    {
      $inc: { token: 1 },
      $set: { runId, holder, leaseMs },
      $unset: { wasTaken: true },
      $currentDate: { acquiredAt: true, renewedAt: true },
      // Beside those of whoever had it last, which are still to be ended.
      ...(session === undefined ? {} : { $push: { sessions: session } }),
    },
    { upsert, returnDocument: "after", ...limit },
  );
  return taken ?? undefined;
}

/** When a lease runs out by itself, by the server's clock. */
export function expiryOf({ renewedAt, leaseMs }: Pick<LeaseDocument, "renewedAt" | "leaseMs">): Date {
  return new Date(renewedAt.getTime() + leaseMs);
}

/** Prolongs the lease, if it is still ours; waits for no transaction. */
export async function renew({ collections }: MongoDatabase, key: LeaseKey): Promise<boolean> {
  const { matchedCount } = await collections.leases.updateOne(
    isOurs(key),
    { $currentDate: { renewedAt: true } },
    limit,
  );
  return matchedCount === 1;
}

/** Gives the lease back, if it is still ours; not `isClean` where something of an earlier holder may still be under way. */
export async function release({ collections }: MongoDatabase, key: LeaseKey, isClean = true): Promise<void> {
  const given = isClean
    ? { $set: { runId: null }, $unset: { sessions: true as const } }
    : { $set: { runId: null, wasTaken: true } };
  await collections.leases.updateOne(isOurs(key), given, limit);
}

/**
 * Takes an expired lease from a dead holder, for `unlock`: nobody has it then, with a new token.
 *
 * @returns the token; undefined where it has moved since it was judged
 */
export async function takeAway(
  { collections }: MongoDatabase,
  { _id, token, renewedAt, runId }: Pick<LeaseDocument, "_id" | "token" | "renewedAt" | "runId">,
): Promise<number | undefined> {
  const taken = await collections.leases.findOneAndUpdate(
    { _id, token, renewedAt, runId },
    { $inc: { token: 1 }, $set: { runId: null, wasTaken: true } },
    { returnDocument: "after", ...limit },
  );
  return taken?.token;
}

/** Adds the stream's document; harmless when it is there. */
export async function insertStream(
  { collections }: MongoDatabase,
  stream: string,
  targetId: string | null,
): Promise<void> {
  try {
    await collections.streams.updateOne(
      { _id: stream },
      { $setOnInsert: { token: 0, runId: null, lastEntryId: 0, targetId } },
      { upsert: true, ...limit },
    );
  } catch (cause) {
    if (commandError(cause)?.code !== errorCode.duplicateKey) throw cause;
  }
}

/** What came of raising a fence. */
export type Raised =
  /** it is; how the stream's document was before */
  | { readonly kind: "raised"; readonly before: StreamDocument }
  /** a greater token, or another's, is there already */
  | { readonly kind: "ahead"; readonly token: number }
  | { readonly kind: "absent" };

/**
 * Raises the fence to a token, so that whoever had a smaller one can commit nothing any more, and closes the entries that he
 * could write to without it. A transaction of his that is still open keeps us waiting, for `maxTimeMS` at most.
 *
 * @param first - of a stream that has no document: what it is added with; our collections have to be there
 */
export async function raiseFence(
  database: MongoDatabase,
  { stream, token, runId }: LeaseKey,
  maxTimeMS: number,
  first?: Pick<StreamDocument, "targetId">,
): Promise<Raised> {
  const { streams } = database.collections;
  const added = first === undefined ? undefined : { lastEntryId: 0, ...first };
  const before = await streams
    .findOneAndUpdate(
      { _id: stream, token: { $lt: token } },
      { $set: { token, runId }, ...(added === undefined ? {} : { $setOnInsert: added }) },
      { returnDocument: "before", maxTimeMS, upsert: added !== undefined },
    )
    .catch(notAdded);
  if (before === null && added !== undefined)
    return { kind: "raised", before: { _id: stream, token: 0, runId: null, ...added } };
  const found = before ?? (await streams.findOne({ _id: stream }, limit));
  if (found === null) return { kind: "absent" };
  // The second: of an earlier try, whose answer was lost.
  if (!before && (found.token !== token || found.runId !== runId))
    return { kind: "ahead", token: found.token };
  if (found.openEntries) await closeEntries(database, stream, found.openEntries);
  return { kind: "raised", before: found };
}

/** The document is there after all, and does not match. */
function notAdded(cause: unknown): undefined {
  if (commandError(cause)?.code !== errorCode.duplicateKey) throw cause;
}

/**
 * The collections were restored from different moments, and the fence is ahead of the lease: the lease follows.
 *
 * @returns the key from now on; undefined where the lease is no longer ours
 */
export async function followFence(
  { collections }: MongoDatabase,
  key: LeaseKey,
  fence: number,
): Promise<LeaseKey | undefined> {
  const token = fence + 1;
  const { matchedCount } = await collections.leases.updateOne(isOurs(key), { $set: { token } }, limit);
  return matchedCount === 1 ? { ...key, token } : undefined;
}

/**
 * The fence: the first act of every transaction that changes anything. A write, because a read of the token would let a
 * taker raise it beside us; without a match the lease is lost.
 *
 * @param change - of the stream itself, with the same write
 * @returns the stream's document as it was before
 * @throws RunnerError `LEASE_LOST`
 */
export async function passFence(
  { collections }: MongoDatabase,
  key: LeaseKey,
  transaction: string,
  session: ClientSession | undefined,
  change: Partial<StreamDocument> = {},
): Promise<StreamDocument> {
  const before = await collections.streams.findOneAndUpdate(
    isOurs(key),
    { $set: { ...change, transaction } },
    { returnDocument: "before", ...limit, ...(session === undefined ? {} : { session }) },
  );
  if (before === null) throw leaseLost();
  return before;
}

/** Names the sessions in which the holder has transactions, or is about to. Those of earlier holders are over. */
export async function nameSessions(
  { collections }: MongoDatabase,
  key: LeaseKey,
  sessions: readonly Binary[],
): Promise<void> {
  const { matchedCount } = await collections.leases.updateOne(isOurs(key), { $set: { sessions } }, limit);
  if (matchedCount !== 1) throw leaseLost();
}

/** Another runner has the lease. */
export function leaseLost(): RunnerError {
  return new RunnerError("LEASE_LOST", "the lease of this run is lost: another runner has taken it over", {
    hint: "nothing was written after that; run again to go on where it stopped",
  });
}
