import { Binary, Decimal128, type Document, Long, MaxKey, MinKey, ObjectId, Timestamp } from "mongodb";
import { beforeAll, describe, expect, test } from "vitest";

import { applyStatements } from "../../../src/driver/mongodb/statements.ts";
import type { StatementProgress } from "../../../src/driver/session.ts";
import { RunnerError } from "../../../src/error.ts";
import {
  createMongoDatabase,
  mongoServer,
  ownMongo,
  type MongoServer,
  type MongoTestDatabase,
} from "../../support/mongo.ts";
import { portOf, startMongoProxy, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { settings } from "../../support/steps.ts";
import { holdBench, statementStep } from "./hold-bench.ts";

needs("mongodb", "secantusdb");

let standalone: MongoServer;
beforeAll(async () => {
  standalone = await ownMongo({ standalone: true });
});

/** `_id`s of every kind that there can be. */
const ids: readonly unknown[] = [
  ...Array.from({ length: 25 }, (_, index) => index),
  2.5,
  Long.fromString("9007199254740993"),
  Decimal128.fromString("3.5"),
  "a",
  "b",
  "c",
  { x: 1 },
  { x: 2 },
  ...[1, 2, 3].map((second) => ObjectId.createFromTime(second)),
  true,
  false,
  new Date(0),
  new Date(5),
  new Binary(Buffer.from("abc")),
  new Timestamp({ t: 1, i: 2 }),
  new MinKey(),
  new MaxKey(),
];

async function fill({ db }: MongoTestDatabase, values: readonly unknown[] = ids): Promise<void> {
  await db.collection("orders").insertMany(values.map((_id): Document => ({ _id, n: 1 })));
}

const header = { backfill: true, table: "orders", batch: 7 };
const increment = { update: "orders", updates: [{ q: {}, u: { $inc: { done: 1 } }, multi: true }] };
const mark = { update: "orders", updates: [{ q: { n: 1 }, u: { $set: { done: 1 } }, multi: true }] };

function backfill(command: object, more: object = {}): readonly object[] {
  return [{ $lockkeeper: { ...header, ...more } }, command];
}

describe("a backfill", () => {
  test("changes each document once, whatever kinds of _id there are", async () => {
    const database = await createMongoDatabase();
    await fill(database);
    await using held = await holdBench(database.url);
    const said: StatementProgress[] = [];
    await applyStatements(held.bench, statementStep(backfill(increment)), settings, (one) => said.push(one));
    expect(await database.db.collection("orders").countDocuments({ done: 1 })).toBe(ids.length);
    expect(said.findLast(({ kind }) => kind === "backfill")).toMatchObject({ rows: ids.length, fraction: 1 });
    expect(await held.history()).toMatchObject([{ status: "done", statementsDone: 1, checkpoint: null }]);
  });

  test("deletes by ranges as well", async () => {
    const database = await createMongoDatabase();
    await fill(database);
    await using held = await holdBench(database.url);
    const command = { delete: "orders", deletes: [{ q: { n: 1 }, limit: 0 }] };
    await applyStatements(held.bench, statementStep(backfill(command)), settings, () => undefined);
    expect(await database.db.collection("orders").countDocuments()).toBe(0);
  });

  test("that is stopped goes on behind the last range that is done", async () => {
    const database = await createMongoDatabase();
    await fill(database);
    const stop = new AbortController();
    let ranges = 0;
    const server = await mongoServer();
    await using proxy = await startMongoProxy(portOf(server.url), (command) => {
      if (command["update"] === "orders" && (ranges += 1) === 4)
        stop.abort(new RunnerError("CANCELED", "enough"));
      return "pass";
    });
    await using first = await holdBench(throughProxy(database.url, proxy), { signal: stop.signal });
    await expect(
      applyStatements(first.bench, statementStep(backfill(increment)), settings, () => undefined),
    ).rejects.toMatchObject({ code: "CANCELED" });
    const [unfinished = null] = await first.history();
    expect(unfinished).toMatchObject({
      status: "failed",
      error: { code: "CANCELED" },
      checkpoint: { kind: "backfill" },
    });
    const before = await database.db.collection("orders").countDocuments({ done: 1 });
    expect(before).toBeGreaterThanOrEqual(3 * 7 - 6);
    expect(before).toBeLessThan(ids.length);
    await database.db.collection("lockkeeper.leases").updateOne({}, { $set: { renewedAt: new Date(0) } });
    await using second = await holdBench(database.url);
    const said: StatementProgress[] = [];
    const step = statementStep(backfill(increment), { unfinished });
    await applyStatements(second.bench, step, settings, (one) => said.push(one));
    expect(await database.db.collection("orders").countDocuments({ done: 1 })).toBe(ids.length);
    expect(said.findLast(({ kind }) => kind === "backfill")).toMatchObject({ rows: ids.length });
  });

  test.for(["cut", "swallow"] as const)(
    "loses a range or its commit (%s) and changes nothing twice",
    async (passage) => {
      const database = await createMongoDatabase();
      await fill(database);
      const server = await mongoServer();
      let struck = 0;
      await using proxy = await startMongoProxy(portOf(server.url), (command) => {
        const isIt = passage === "cut" ? command["update"] === "orders" : "commitTransaction" in command;
        return isIt && (struck += 1) === 4 ? passage : "pass";
      });
      await using held = await holdBench(throughProxy(database.url, proxy));
      await applyStatements(held.bench, statementStep(backfill(increment)), settings, () => undefined);
      expect(struck).toBeGreaterThan(4);
      expect(await database.db.collection("orders").countDocuments({ done: 1 })).toBe(ids.length);
    },
  );

  test("without transactions is repeated where it was cut off, and so must bear that", async () => {
    const database = await createMongoDatabase({ server: standalone });
    await fill(database);
    await using held = await holdBench(database.url);
    await expect(
      applyStatements(held.bench, statementStep(backfill(increment)), settings, () => undefined),
    ).rejects.toMatchObject({ code: "BACKFILL" });
    expect(await database.db.collection("orders").countDocuments({ done: { $exists: true } })).toBe(0);
    let struck = 0;
    await using proxy = await startMongoProxy(portOf(standalone.url), (command) =>
      command["update"] === "orders" && (struck += 1) === 3 ? "swallow" : "pass",
    );
    await database.db.collection("lockkeeper.leases").updateOne({}, { $set: { renewedAt: new Date(0) } });
    await using other = await holdBench(throughProxy(database.url, proxy));
    const limited = { ...settings, statementTimeoutMs: 500 };
    await applyStatements(other.bench, statementStep(backfill(mark)), limited, () => undefined);
    expect(await database.db.collection("orders").countDocuments({ done: 1 })).toBe(ids.length);
  });

  test("waits while its throttle says that the database is busy", async () => {
    const database = await createMongoDatabase();
    await fill(database, [1, 2, 3]);
    await database.db.collection("load").insertOne({ _id: 1, busy: true } as Document);
    await using held = await holdBench(database.url);
    const throttle = { find: "load", filter: {}, limit: 1 };
    let throttled = 0;
    await applyStatements(held.bench, statementStep(backfill(increment, { throttle })), settings, (one) => {
      if (one.kind !== "backfill" || !one.isThrottled) return;
      throttled += 1;
      void database.db.collection("load").updateOne({}, { $set: { busy: false } });
    });
    expect(throttled).toBeGreaterThan(0);
    expect(await database.db.collection("orders").countDocuments({ done: 1 })).toBe(3);
  });

  test("that fails says how far it came, and keeps it", async () => {
    const database = await createMongoDatabase();
    await fill(
      database,
      Array.from({ length: 20 }, (_, index) => index),
    );
    await database.db
      .collection("orders")
      .updateOne({ _id: 16 } as Document, { $set: { k: "no number: secret" } });
    await using held = await holdBench(database.url);
    const command = { update: "orders", updates: [{ q: {}, u: { $inc: { k: 1 } }, multi: true }] };
    const applied = applyStatements(held.bench, statementStep(backfill(command)), settings, () => undefined);
    await expect(applied).rejects.toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(
        /^1_a\.up\.json:3: .*its earlier ranges, of 14 changed documents, are done/,
      ) as string,
    });
    await expect(applied).rejects.not.toThrow("secret");
    expect(await held.history()).toMatchObject([{ status: "failed", checkpoint: { rows: 14 } }]);
  });
});
