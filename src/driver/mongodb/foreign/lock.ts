import { setTimeout as sleep } from "node:timers/promises";

import { ObjectId, type Document, type Filter } from "mongodb";

import { RunnerError } from "../../../error.ts";
import { placeName, type ForeignPlace } from "../../../history/foreign.ts";
import type { ForeignLockOptions } from "../../foreign.ts";
import { commandError, errorCode } from "../command-error.ts";
import { answerMs, within, type MongoDatabase } from "../database.ts";

/** milliseconds between two tries */
const pollMs = { shortest: 50, longest: 1_000 };
/** golang-migrate's, where its URL names no other */
const golangMigrateLocks = "migrate_advisory_lock";
/** migrate-mongo's; only there where its configuration has a `lockTtl` */
const migrateMongoLocks = "changelog_lock";

/**
 * Runs `work` while the tool's lock document is held. It has no expiry and no owner to the tool: what a dead holder of
 * ours left is known by the name of its stream.
 */
export async function withForeignLock<T>(
  database: MongoDatabase,
  place: ForeignPlace,
  options: ForeignLockOptions,
  work: () => Promise<T>,
): Promise<T> {
  const locks = lockOf(place, options.stream);
  if (locks === undefined) return work();
  const id = await database.use(options.signal, () => takeLock(database, place, locks, options));
  try {
    return await work();
  } finally {
    if (id !== undefined) await giveBack(database, locks, id);
  }
}

/** How a tool locks: a document in a collection, of which there may be one. */
interface LockDocument {
  readonly collection: string;
  readonly fields: Document;
  /** any holder's */
  readonly held: Filter<Document>;
  /** one that an earlier holder of our lease left behind; undefined: nobody can tell */
  readonly left: Filter<Document> | undefined;
  /** the tool makes the collection itself, and an index by which the second document fails */
  readonly isUnique: boolean;
}

function lockOf({ tool }: ForeignPlace, stream: string | undefined): LockDocument | undefined {
  const holder = `lockkeeper/${stream ?? ""}`;
  switch (tool) {
    case "golang-migrate":
      return {
        collection: golangMigrateLocks,
        fields: { locking_key: 0, pid: process.pid, hostname: holder },
        held: { locking_key: 0 },
        left: stream === undefined ? undefined : { locking_key: 0, hostname: holder },
        isUnique: true,
      };
    case "migrate-mongo":
      return {
        collection: migrateMongoLocks,
        fields: { holder },
        held: {},
        left: stream === undefined ? undefined : { holder },
        isUnique: false,
      };
    default:
      return undefined;
  }
}

/** @returns id of our document; undefined where the tool is not set to lock */
async function takeLock(
  { db }: MongoDatabase,
  place: ForeignPlace,
  lock: LockDocument,
  { waitMs, signal }: ForeignLockOptions,
): Promise<ObjectId | undefined> {
  const isThere =
    (await db.listCollections({ name: lock.collection }, { nameOnly: true }).toArray()).length > 0;
  if (!lock.isUnique && !isThere) return undefined;
  const locks = db.collection(lock.collection);
  if (lock.isUnique)
    await locks.createIndex(
      { locking_key: -1 },
      { unique: true, name: "lock_unique_key" },
      { maxTimeMS: answerMs },
    );
  const giveUpAt = performance.now() + waitMs;
  for (let delayMs = pollMs.shortest; ; delayMs = Math.min(delayMs * 1.5, pollMs.longest)) {
    if (lock.left !== undefined) await locks.deleteMany(lock.left, { maxTimeMS: answerMs });
    const id = new ObjectId();
    const now = { [lock.isUnique ? "created_at" : "createdAt"]: new Date() };
    const isFree = lock.isUnique || (await locks.findOne(lock.held, { maxTimeMS: answerMs })) === null;
    if (isFree && (await tryInsert(() => locks.insertOne({ _id: id, ...lock.fields, ...now })))) return id;
    if (performance.now() >= giveUpAt) throw heldByTool(place, lock, waitMs);
    await sleep(delayMs * (0.5 + Math.random()), undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

async function tryInsert(insert: () => Promise<unknown>): Promise<boolean> {
  try {
    await insert();
    return true;
  } catch (cause) {
    if (commandError(cause)?.code === errorCode.duplicateKey) return false;
    throw cause;
  }
}

async function giveBack({ db }: MongoDatabase, { collection }: LockDocument, id: ObjectId): Promise<void> {
  const remove = async (): Promise<unknown> =>
    db.collection(collection).deleteOne({ _id: id }, { maxTimeMS: answerMs });
  await within(remove, AbortSignal.timeout(answerMs)).catch(() => undefined);
}

function heldByTool(place: ForeignPlace, { collection }: LockDocument, waitMs: number): RunnerError {
  const { tool } = place;
  return new RunnerError(
    "LEASE_HELD",
    `${tool} holds its lock on ${placeName(place)}, and did not finish within ${Math.round(waitMs / 1000)} s`,
    {
      hint: `wait for it (--wait); if no ${tool} runs any more, delete its document from ${collection}: it does not go by itself`,
      fields: { tool, table: placeName(place), lock: collection },
    },
  );
}
