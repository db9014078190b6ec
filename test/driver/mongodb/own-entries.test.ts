import { expect, test } from "vitest";

import { RunnerError } from "../../../src/error.ts";
import { applyStatements } from "../../../src/driver/mongodb/statements.ts";
import type { Bench } from "../../../src/driver/mongodb/bench.ts";
import { openCheckpoint } from "../../../src/driver/mongodb/checkpoint.ts";
import { closeEntries } from "../../../src/driver/mongodb/blank-entries.ts";
import type { StatementStep } from "../../../src/driver/session.ts";
import { createMongoDatabase, mongoServer } from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";
import { settings } from "../../support/steps.ts";
import { openWire } from "../../support/wire.ts";
import { portOf, throughProxy } from "../../support/mongo-proxy.ts";
import { holdBench, statementStep } from "./hold-bench.ts";

needs("mongodb");

const none = (): void => undefined;
const patient = { leaseMs: 60_000, heartbeatMs: 20_000, marginMs: 1_000, cancelPollMs: 20_000 };

/** A body of one command that may be repeated. */
const indexStep = (seq: number): StatementStep =>
  statementStep([{ createIndexes: "orders", indexes: [{ key: { [`n${seq}`]: 1 }, name: `n_${seq}` }] }], {
    seq,
  });

/** One after the other, each told of the next, as a run does it. */
async function applyAll(bench: Bench, steps: readonly StatementStep[]): Promise<void> {
  for (const [index, step] of steps.entries())
    await applyStatements(bench, step, settings, none, steps[index + 1]);
}

const steps = (count: number, from = 1): readonly StatementStep[] =>
  Array.from({ length: count }, (_, index) => indexStep(from + index));

test("a migration of one repeatable command costs two round trips, and every ninth or sixty-fifth four more", async () => {
  const database = await createMongoDatabase();
  await using wire = await openWire(portOf((await mongoServer()).url), "mongodb");
  await using held = await holdBench(throughProxy(database.url, wire), { times: patient });
  await applyAll(held.bench, steps(9));
  wire.reset();
  await applyAll(held.bench, steps(64, 10));
  expect(wire.traffic().exchanges).toBeLessThanOrEqual(2 * 64 + 6);
  const history = await held.history();
  expect(history.map(({ seq, status, checkpoint }) => [seq, status, checkpoint])).toEqual(
    steps(73).map(({ migration }) => [migration.seq, "done", null]),
  );
  expect(await database.db.collection("orders").indexes()).toHaveLength(74);
});

/** As a run's beginning does it, in its own transaction. */
async function makePlaces(bench: Bench, count: number): Promise<void> {
  const places = bench.entries.placesFor(count, 0);
  await bench.write(async (session) => places?.add(session), places?.change);
  places?.added();
}

test("bodies that are known to come have their places from the run's beginning: from the first on two round trips each", async () => {
  const database = await createMongoDatabase();
  await using wire = await openWire(portOf((await mongoServer()).url), "mongodb");
  await using held = await holdBench(throughProxy(database.url, wire), { times: patient });
  await held.bench.showsOperations();
  await makePlaces(held.bench, 10);
  expect(await held.history()).toEqual([]);
  wire.reset();
  await applyAll(held.bench, steps(10));
  expect(wire.traffic().exchanges).toBeLessThanOrEqual(2 * 10 + 1);
  expect((await held.history()).map(({ id, seq, status }) => [id, seq, status])).toEqual(
    steps(10).map(({ migration: { seq } }) => [seq, seq, "done"]),
  );
});

test("of places from a run's beginning none is left when it ends, nor when it dies and another takes over", async () => {
  const database = await createMongoDatabase();
  const history = database.db.collection("lockkeeper.history");
  {
    await using held = await holdBench(database.url, { times: patient });
    await makePlaces(held.bench, 5);
    await applyAll(held.bench, steps(2));
    expect(await history.countDocuments()).toBe(5);
    await held.bench.write((session) => held.bench.entries.end(session), held.bench.entries.ending);
    held.bench.entries.ended();
    expect(await history.countDocuments()).toBe(2);
    expect(await database.db.collection("lockkeeper.streams").findOne({})).toMatchObject({
      openEntries: null,
    });
  }
  await using dead = await holdBench(database.url, { times: patient });
  const places = dead.bench.entries.placesFor(4, 5);
  await dead.bench.write(async (session) => places?.add(session), places?.change);
  places?.added();
  expect(await history.countDocuments()).toBe(6);
  await using taker = await holdBench(database.url, { times: patient });
  expect(await history.countDocuments()).toBe(2);
  await expect(applyStatements(dead.bench, indexStep(3), settings, none)).rejects.toMatchObject({
    code: "LEASE_LOST",
  });
  expect(await taker.history()).toHaveLength(2);
});

test("the history is whole and in order where transactions lie between, and no place is left over", async () => {
  const database = await createMongoDatabase();
  await using held = await holdBench(database.url, { times: patient });
  const { bench } = held;
  const all: StatementStep[] = [];
  for (let round = 0; round < 4; round += 1) {
    const bodies = steps(3, all.length + 1);
    await applyAll(bench, bodies);
    const { migration, ...rest } = indexStep(all.length + 4);
    const covering = { ...rest, migration, covers: [{ ...migration, seq: 900 + round }] };
    await applyStatements(bench, covering, settings, none);
    all.push(...bodies, covering);
  }
  await bench.write(async (session) => {
    await bench.entries.end(session);
  });
  const history = await held.history();
  expect(history.filter(({ seq }) => seq < 900).map(({ seq, status }) => [seq, status])).toEqual(
    all.map(({ migration }) => [migration.seq, "done"]),
  );
  expect(history.filter(({ seq }) => seq >= 900)).toHaveLength(4);
  expect(await database.db.collection("lockkeeper.history").countDocuments()).toBe(history.length);
});

test("whoever has lost the lease can write to no entry of his, and can begin none", async () => {
  const database = await createMongoDatabase();
  await using stale = await holdBench(database.url, { times: patient });
  await applyAll(stale.bench, steps(3));
  const open = openCheckpoint({ bench: stale.bench, step: indexStep(4), settings }, undefined, undefined);
  await open.begin();
  await using taker = await holdBench(database.url, { times: patient });
  const before = await taker.history();
  await expect(open.reached(0, "x")).rejects.toMatchObject({ code: "LEASE_LOST" });
  await expect(open.failed(new RunnerError("MIGRATION_FAILED", "late"), "failed")).rejects.toMatchObject({
    code: "LEASE_LOST",
  });
  await expect(applyStatements(stale.bench, indexStep(5), settings, none)).rejects.toMatchObject({
    code: "LEASE_LOST",
  });
  expect(await taker.history()).toEqual(before);
  expect(before.at(-1)).toMatchObject({ seq: 4, status: "started" });
  // Nor are the places left that he had.
  expect(await database.db.collection("lockkeeper.history").countDocuments()).toBe(before.length);
  expect((await database.db.collection("orders").indexes()).map(({ name }) => name)).not.toContain("n_5");
});

test("where a taker does not strike the writers out, a late write takes effect (negative control)", async () => {
  const database = await createMongoDatabase();
  await using stale = await holdBench(database.url, { times: patient });
  const open = openCheckpoint({ bench: stale.bench, step: indexStep(1), settings }, undefined, undefined);
  await open.begin();
  const streams = database.db.collection<{ _id: string; openEntries?: { from: number; through: number } }>(
    "lockkeeper.streams",
  );
  const range = (await streams.findOneAndUpdate({}, { $unset: { openEntries: true } }))?.openEntries;
  await using taker = await holdBench(database.url, { times: patient });
  await open.reached(0, "x");
  expect(await taker.history()).toMatchObject([{ status: "done" }]);
  if (range === undefined) throw new Error("the stream names what is open");
  await closeEntries(taker.bench.database, "orders", range);
  await expect(open.reached(0, "x")).rejects.toMatchObject({ code: "LEASE_LOST" });
});

test("a write that the network has held up undoes none that came after it", async () => {
  const database = await createMongoDatabase();
  await using held = await holdBench(database.url, { times: patient });
  const step = indexStep(1);
  const open = openCheckpoint({ bench: held.bench, step, settings }, undefined, undefined);
  let late: (() => Promise<unknown>) | undefined;
  const { db } = held.bench.database;
  const send = db.command.bind(db);
  db.command = (command, options) => {
    late ??= "update" in command ? () => send(command, options) : undefined;
    return send(command, options);
  };
  await open.begin();
  await open.noted({ kind: "sent", statement: 0, sha256: "x", before: {} });
  await open.reached(0, "x");
  expect(await late?.()).toMatchObject({ n: 0 });
  expect(await held.history()).toMatchObject([{ status: "done", checkpoint: null }]);
});

test("what was begun ahead of a body that does not run is taken back", async () => {
  const database = await createMongoDatabase();
  await using held = await holdBench(database.url, { times: patient });
  await applyStatements(held.bench, indexStep(1), settings, none, indexStep(2));
  expect(await held.history()).toMatchObject([{ status: "done" }, { seq: 2, status: "started" }]);
  await held.bench.entries.withdraw();
  expect(await held.history()).toMatchObject([{ status: "done" }]);
  await applyStatements(held.bench, indexStep(2), settings, none);
  expect(await held.history()).toMatchObject([{ seq: 1 }, { seq: 2, status: "done" }]);
});

test("what was begun ahead by a run that then died is done once by the next", async () => {
  const database = await createMongoDatabase();
  const limited = { ...settings, statementTimeoutMs: 500 };
  {
    await using dead = await holdBench(database.url, { times: patient });
    await applyStatements(dead.bench, indexStep(1), limited, none, indexStep(2));
  }
  await using held = await holdBench(database.url, { times: patient });
  const unfinished = (await held.history()).at(-1) ?? null;
  expect(unfinished).toMatchObject({ seq: 2, status: "started", statementsDone: 0 });
  const said: unknown[] = [];
  await applyStatements(held.bench, { ...indexStep(2), unfinished }, limited, (progress) =>
    said.push(progress),
  );
  expect(said).toEqual([
    { kind: "probed", statement: 1, verdict: "not-done" },
    { kind: "statement", done: 1 },
  ]);
  expect((await held.history()).map(({ seq, status }) => [seq, status])).toEqual([
    [1, "done"],
    [2, "started"],
    [2, "done"],
  ]);
  expect(await database.db.collection("orders").indexes()).toHaveLength(3);
});

test("a command that nothing repeats is noted only when its own turn comes", async () => {
  const database = await createMongoDatabase();
  await using held = await holdBench(database.url, { times: patient });
  const once = statementStep(
    [{ renameCollection: `${database.name}.orders`, to: `${database.name}.sales` }],
    {
      seq: 2,
    },
  );
  await applyStatements(held.bench, indexStep(1), settings, none, once);
  expect(await held.history()).toMatchObject([{ seq: 1, status: "done" }]);
});
