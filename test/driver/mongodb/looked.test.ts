import { beforeEach, describe, expect, onTestFinished, test } from "vitest";

import type { Driver } from "../../../src/driver/driver.ts";
import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import type { DeclaredEntry } from "../../../src/driver/session.ts";
import { RunnerError } from "../../../src/error.ts";
import type { StreamState } from "../../../src/driver/stream-state.ts";
import { createMongoDatabase, type MongoTestDatabase } from "../../support/mongo.ts";
import { portOf, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { declaration, leaseOptions, never } from "../../support/steps.ts";
import { openWire, type Wire } from "../../support/wire.ts";

needs("mongodb");

const times = { leaseMs: 60_000, heartbeatMs: 20_000, marginMs: 1_000, cancelPollMs: 20_000 };

let database: MongoTestDatabase;
let driver: Driver;
let other: Driver;
let wire: Wire;

beforeEach(async () => {
  database = await createMongoDatabase();
  wire = await openWire(portOf(database.url), "mongodb");
  onTestFinished(() => wire[Symbol.asyncDispose]());
  driver = openMongo(throughProxy(database.url, wire), { times });
  other = openMongo(database.url, { times });
  onTestFinished(() => driver.close());
  onTestFinished(() => other.close());
  await declareBy(driver, 1);
});

/** Another entry in the history of the stream, by a run of its own. */
function declareBy(by: Driver, seq: number): Promise<void> {
  return by.withLease(leaseOptions(), async (session) => session.declare([await declared(seq)]));
}

async function declared(seq: number): Promise<DeclaredEntry> {
  const entry = await declaration({ path: `${seq}_a.up.json`, up: `[{"ping": 1}]` });
  return { ...entry, migration: { ...entry.migration, seq } };
}

/** What the state under a lease is, of a run that has looked before; and what was asked between. */
async function underLease(
  looked: StreamState,
): Promise<{ readonly state: StreamState; readonly asked: readonly string[] }> {
  wire.reset();
  return driver.withLease(leaseOptions({ looked }), async (session) => {
    const state = await session.state();
    return { state, asked: wire.asked() };
  });
}

describe("a run that has looked at its stream before it took the lease", () => {
  test("does not look again where nobody has had the lease since, and knows what may change without it", async () => {
    const looked = await driver.state("orders", never);
    await other.setPaused("orders", true, never);
    const { state, asked } = await underLease(looked);
    expect(asked).not.toContain("aggregate");
    expect(state).toMatchObject({ position: { length: 1 }, paused: true });
    expect({ ...state, now: null, lease: null }).toEqual({ ...looked, paused: true, now: null, lease: null });
    expect(state.lease).toMatchObject({ holder: leaseOptions().holder });
  });

  test("looks again where another has had the lease since", async () => {
    const looked = await driver.state("orders", never);
    await declareBy(other, 2);
    const { state } = await underLease(looked);
    expect(state.position).toMatchObject({ length: 2, version: "2" });
  });

  test("looks again where another has had it, before it takes a lease that it may not need", async () => {
    const looked = await driver.state("orders", never);
    await declareBy(other, 2);
    const before = await database.db.collection("lockkeeper.leases").findOne({});
    const done = new RunnerError("LEASE_HELD", "nothing is left to do");
    const options = leaseOptions({
      looked,
      assertStillWanted({ position }) {
        if (position.length === 2) throw done;
      },
    });
    await expect(driver.withLease(options, () => Promise.resolve())).rejects.toBe(done);
    expect(await database.db.collection("lockkeeper.leases").findOne({})).toEqual(before);
  });

  test("looks again where a transaction of an earlier holder has committed since", async () => {
    const looked = await driver.state("orders", never);
    await database.db.collection("lockkeeper.streams").updateOne({}, { $set: { transaction: "late" } });
    expect((await underLease(looked)).asked).toContain("aggregate");
  });

  test("looks again where an earlier holder has left entries that he may write to", async () => {
    await database.db
      .collection("lockkeeper.streams")
      .updateOne({}, { $set: { openEntries: { from: 1, through: 1 } } });
    const looked = await driver.state("orders", never);
    expect((await underLease(looked)).asked).toContain("aggregate");
  });

  test("asks for its state anew whenever it asks once more", async () => {
    const looked = await driver.state("orders", never);
    await driver.withLease(leaseOptions({ looked }), async (session) => {
      expect((await session.state()).position.length).toBe(1);
      await session.declare([await declared(2)]);
      expect((await session.state()).position.length).toBe(2);
    });
  });
});

test("a run that looked at a stream that nobody had asked for, and that another has brought up meanwhile, looks again", async () => {
  const looked = await driver.state("shop", never);
  await other.withLease(leaseOptions({ stream: "shop" }), async (session) =>
    session.declare([await declared(1)]),
  );
  const lengths: number[] = [];
  const options = leaseOptions({
    stream: "shop",
    looked,
    assertStillWanted: ({ position }) => lengths.push(position.length),
  });
  const { position } = await driver.withLease(options, (session) => session.state());
  expect([...lengths, position.length]).toEqual([1, 1]);
});

test("the driver's session of a run's transactions is named with its lease, and no longer when that is given back", async () => {
  const leases = database.db.collection("lockkeeper.leases");
  wire.reset();
  await driver.withLease(leaseOptions(), async (session) => {
    await session.declare([await declared(2)]);
    expect((await leases.findOne({}))?.["sessions"]).toHaveLength(1);
  });
  expect(wire.asked().filter((name) => name === "update")).toHaveLength(2);
  expect(await leases.findOne({})).not.toHaveProperty("sessions");
});
