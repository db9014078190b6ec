import type { ClientSession } from "mongodb";
import { expect, onTestFinished, test } from "vitest";
import { commandError, errorCode } from "../../../src/driver/mongodb/command-error.ts";
import { parseAddress } from "../../../src/driver/mongodb/address.ts";
import { MongoDatabase } from "../../../src/driver/mongodb/database.ts";
import {
  followFence,
  insertStream,
  passFence,
  raiseFence,
  release,
  renew,
  takeFree,
  takeSeen,
  type LeaseKey,
} from "../../../src/driver/mongodb/lease.ts";
import { setPaused } from "../../../src/driver/mongodb/pause.ts";
import { resetTrust } from "../../../src/driver/mongodb/trust-reset.ts";
import { beginRun, endDeadRuns, startRun } from "../../../src/driver/mongodb/runs.ts";
import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import { createMongoDatabase, ownMongo } from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";
import { leaseOptions, never, newRun } from "../../support/steps.ts";

needs("mongodb", "secantusdb");

/** A database with one stream, whose lease the first of two runners holds; both are clients of their own. */
async function twoRunners() {
  const { url, db } = await createMongoDatabase();
  const [first, second] = [1, 2].map(() => new MongoDatabase(parseAddress(url), "lockkeeper"));
  if (first === undefined || second === undefined) throw new TypeError("there are two");
  for (const database of [first, second]) onTestFinished(() => database.close());
  await first.open();
  await first.prepare(new AbortController().signal);
  await insertStream(first, "orders", "t");
  const effects = db.collection("effects");
  await effects.insertOne({ by: "nobody" });
  return { first, second, effects, key: await elect(first, "t.1") };
}

/** The lease alone, from whoever has it, as if it had expired; the fence is left as it is. */
async function elect(database: MongoDatabase, runId: string): Promise<LeaseKey> {
  const asker = { stream: "orders", runId, holder: "test", leaseMs: 60_000 };
  const seen = await database.collections.leases.findOne({ _id: "orders" });
  const taken = seen === null ? await takeFree(database, asker) : await takeSeen(database, asker, seen);
  if (taken === undefined) throw new Error("the lease moved");
  const key = { stream: "orders", token: taken.token, runId };
  if (seen === null) await raiseFence(database, key, 5_000);
  return key;
}

/** A transaction of a runner's, up to where it would commit. */
async function begun(database: MongoDatabase, first: (session: ClientSession) => Promise<unknown>) {
  const session = database.client.startSession();
  onTestFinished(() => session.endSession());
  session.startTransaction({ readConcern: { level: "snapshot" }, writeConcern: { w: "majority" } });
  await first(session);
  await database.db.collection("effects").insertOne({ by: "first" }, { session });
  return session;
}

test("an open transaction keeps a taker from raising the fence until it has ended, and then nothing more of its runner gets in", async () => {
  const { first, second, effects, key } = await twoRunners();
  const open = await begun(first, (session) => passFence(first, key, "a", session));
  const taken = await elect(second, "t.2");
  // The lease is free to be taken and renewed all the while: only the fence waits.
  expect(await renew(second, taken)).toBe(true);
  const blocked: unknown = await raiseFence(second, taken, 500).catch((cause: unknown) => cause);
  expect(commandError(blocked)?.code).toBe(errorCode.maxTimeMsExpired);
  await open.commitTransaction();
  expect(await raiseFence(second, taken, 5_000)).toMatchObject({ kind: "raised" });
  await expect(begun(first, (session) => passFence(first, key, "b", session))).rejects.toMatchObject({
    code: "LEASE_LOST",
  });
  expect(await renew(first, key)).toBe(false);
  await release(first, key);
  expect((await second.collections.leases.findOne({ _id: "orders" }))?.runId).toBe("t.2");
  expect(await effects.countDocuments({ by: "first" })).toBe(1);
});

test("a transaction that began before the fence was raised, and comes to it afterwards, changes nothing", async () => {
  const { first, second, effects, key } = await twoRunners();
  const session = first.client.startSession();
  onTestFinished(() => session.endSession());
  session.startTransaction({ readConcern: { level: "snapshot" }, writeConcern: { w: "majority" } });
  // Its snapshot is from before: it would find its own token.
  await first.collections.streams.findOne({ _id: "orders" }, { session });
  const taken = await elect(second, "t.2");
  await raiseFence(second, taken, 5_000);
  await expect(passFence(first, key, "a", session)).rejects.toMatchObject({ codeName: "WriteConflict" });
  await session.abortTransaction().catch(() => undefined);
  expect(await effects.countDocuments({ by: "first" })).toBe(0);
});

test("where the fence only reads the token, a runner that has lost the lease commits all the same (negative control)", async () => {
  const { first, second, effects, key } = await twoRunners();
  const open = await begun(first, async (session) => {
    const own = await first.collections.streams.findOne(
      { _id: "orders", token: key.token, runId: key.runId },
      { session },
    );
    if (own === null) throw new Error("lost");
  });
  const taken = await elect(second, "t.2");
  expect(await raiseFence(second, taken, 5_000)).toMatchObject({ kind: "raised" });
  await open.commitTransaction();
  expect(await effects.countDocuments({ by: "first" })).toBe(1);
});

test("a run that a taker has ended stays so, although word of its beginning arrives afterwards", async () => {
  const { first, second, key } = await twoRunners();
  const run = newRun({ id: key.runId, stream: key.stream });
  await startRun(first, run, key, new Date(), undefined);
  const taken = await elect(second, "t.2");
  await endDeadRuns(second, taken, undefined);
  const beginning = {
    highWaterMark: null,
    releaseDigest: "plain:x",
    fromVersion: null,
    toVersion: "1",
    steps: 1,
  };
  await beginRun(first, key, beginning, undefined);
  const found = await first.collections.runs.findOne({ _id: run.id });
  expect(found).toMatchObject({ status: "failed", total: 0, error: { code: "LEASE_LOST" } });
});

test("word of a run's beginning that comes after its taker has begun is ended with that one, without transactions", async () => {
  const database = await createMongoDatabase({ server: await ownMongo({ standalone: true }) });
  const driver = openMongo(database.url);
  onTestFinished(() => driver.close());
  const late = new MongoDatabase(parseAddress(database.url), "lockkeeper");
  onTestFinished(() => late.close());
  const run = newRun();
  await driver.withLease(leaseOptions(), async (session) => {
    const key = { stream: "orders", token: session.token - 1, runId: run.id };
    await startRun(late, run, key, new Date(), undefined);
    expect(await driver.run(run.id, never)).toMatchObject({ status: "running" });
    await session.finish({ status: "succeeded", outcome: "applied" });
  });
  expect(await driver.run(run.id, never)).toMatchObject({ status: "failed", error: { code: "LEASE_LOST" } });
});

test("of many who ask for a lease at once one has it, and of many who take it over one", async () => {
  const { first, second } = await twoRunners();
  await first.collections.leases.deleteMany({});
  const asker = (n: number) => ({ stream: "orders", runId: `t.${n}`, holder: "test", leaseMs: 60_000 });
  const at = (n: number) => (n % 2 === 0 ? first : second);
  const numbers = Array.from({ length: 12 }, (_, n) => n);
  const free = await Promise.all(numbers.map((n) => takeFree(at(n), asker(n))));
  expect(free.filter((lease) => lease !== undefined)).toHaveLength(1);
  const seen = await first.collections.leases.findOne({ _id: "orders" });
  if (seen === null) throw new Error("there is a lease");
  const over = await Promise.all(numbers.map((n) => takeSeen(at(n), asker(n), seen)));
  expect(over.filter((lease) => lease !== undefined)).toHaveLength(1);
});

test("a lease that its holder renewed after it was judged is not taken over", async () => {
  const { first, second, key } = await twoRunners();
  const judged = await second.collections.leases.findOne({ _id: "orders" });
  if (judged === null) throw new Error("there is a lease");
  while ((await first.collections.leases.findOne({ renewedAt: judged.renewedAt })) !== null)
    expect(await renew(first, key)).toBe(true);
  const asker = { stream: "orders", runId: "t.2", holder: "test", leaseMs: 60_000 };
  expect(await takeSeen(second, asker, judged)).toBeUndefined();
});

test("collections that were restored from different moments are brought in order: the lease follows the fence", async () => {
  const { first, second } = await twoRunners();
  await first.collections.streams.updateOne({ _id: "orders" }, { $set: { token: 7, runId: "t.old" } });
  const taken = await elect(second, "t.2");
  expect(await raiseFence(second, taken, 5_000)).toEqual({ kind: "ahead", token: 7 });
  const key = await followFence(second, taken, 7);
  expect(key).toMatchObject({ token: 8, runId: "t.2" });
  if (key !== undefined) expect(await raiseFence(second, key, 5_000)).toMatchObject({ kind: "raised" });
});

test("a pause waits for a transaction that is open, disturbs it in nothing, and is set when it has ended", async () => {
  const { first, second, effects, key } = await twoRunners();
  const open = await begun(first, (session) => passFence(first, key, "a", session));
  const never = new AbortController().signal;
  const paused = setPaused(second, "orders", true, never);
  // Both are under way at the server: the pause can only come second.
  await first.db.collection("effects").insertOne({ by: "still first" }, { session: open });
  await open.commitTransaction();
  expect(await paused).toBe(true);
  expect(await first.collections.streams.findOne({ _id: "orders" })).toMatchObject({
    paused: true,
    transaction: "a",
  });
  expect(await effects.countDocuments()).toBe(3);
});

test("a reset of trust ends what a dead holder has in an open transaction, and leaves its lease as one that was taken away", async () => {
  const { first, second, key } = await twoRunners();
  const never = new AbortController().signal;
  const { streams, leases } = first.collections;
  await streams.updateOne({ _id: "orders" }, { $set: { rootVersion: 4 } });
  const open = await begun(first, (session) => passFence(first, key, "a", session));
  await leases.updateOne(
    { _id: "orders" },
    { $set: { renewedAt: new Date(0), ...(open.id === undefined ? {} : { sessions: [open.id.id] }) } },
  );
  expect(await resetTrust(second, "orders", { releases: false }, never)).toEqual({
    rootVersion: 4,
    highWaterMark: null,
  });
  await expect(open.commitTransaction()).rejects.toBeInstanceOf(Error);
  expect(await leases.findOne({ _id: "orders" })).toMatchObject({ runId: null, wasTaken: true });
});
