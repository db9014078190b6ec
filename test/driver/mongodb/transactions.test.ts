import type { Document } from "mongodb";
import { describe, expect, test } from "vitest";

import { applyInTransactions } from "../../../src/driver/mongodb/transactions.ts";
import { applyStatements } from "../../../src/driver/mongodb/statements.ts";
import { createMongoDatabase, mongoServer, ownMongo, type MongoTestDatabase } from "../../support/mongo.ts";
import { portOf, startMongoProxy, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { settings } from "../../support/steps.ts";
import { holdBench, statementStep, transactionStep } from "./hold-bench.ts";

needs("mongodb", "secantusdb");

const adds = (n: number): object => ({ insert: "orders", documents: [{ n }] });
const counts = { update: "counters", updates: [{ q: { _id: 1 }, u: { $inc: { n: 1 } }, upsert: true }] };

/** Fails the next command of such a name. */
async function fail({ client }: MongoTestDatabase, command: string, data: object): Promise<void> {
  await client.db("admin").command({
    configureFailPoint: "failCommand",
    mode: { times: 1 },
    data: { failCommands: [command], ...data },
  });
}

test("bodies commit one after the other, each with its entry, up to the first that fails", async () => {
  const { db, url } = await createMongoDatabase();
  await using held = await holdBench(url);
  const steps = [
    transactionStep([adds(1), counts], 1),
    transactionStep(
      [adds(2), { insert: "orders", documents: [{ _id: "a" }, { _id: "a", mail: "a@b.example" }] }],
      2,
    ),
    transactionStep([adds(3)], 3),
  ];
  const { done, failure } = await applyInTransactions(held.bench, steps, settings);
  expect(done).toHaveLength(1);
  expect(failure).toMatchObject({
    code: "MIGRATION_FAILED",
    message: expect.stringMatching(
      /^2_a\.up\.json:3: command 2 of 2 \(insert\): DuplicateKey 11000: .*nothing of this migration was applied$/,
    ) as string,
    fields: { migration: "2_a.up.json", line: 3, statement: 2, statements: 2, mongoCode: 11_000 },
  });
  expect(
    await db
      .collection("orders")
      .find({}, { projection: { _id: 0 } })
      .toArray(),
  ).toEqual([{ n: 1 }]);
  const history = await held.history();
  expect(history.map(({ seq, status, statementsDone }) => [seq, status, statementsDone])).toEqual([
    [1, "done", 1],
    [2, "failed", 0],
  ]);
  expect(JSON.stringify(history)).not.toContain("example");
});

test.for([
  [
    "a command meets a write conflict",
    "insert",
    { errorCode: 112, errorLabels: ["TransientTransactionError"] },
  ],
  ["the primary steps down before a command", "insert", { errorCode: 10_107 }],
  ["the server stops in a command", "insert", { errorCode: 91 }],
  ["a command's connection is lost", "insert", { closeConnection: true }],
  ["the primary steps down in the commit", "commitTransaction", { errorCode: 189 }],
  ["the commit's connection is lost", "commitTransaction", { closeConnection: true }],
  [
    "the commit's write concern is not met",
    "commitTransaction",
    { writeConcernError: { code: 91, errmsg: "stopping" } },
  ],
  [
    "the transaction is gone at its commit",
    "commitTransaction",
    { errorCode: 251, errorLabels: ["TransientTransactionError"] },
  ],
] as const)("takes effect once when %s", async ([, command, data]) => {
  const database = await createMongoDatabase();
  await using held = await holdBench(database.url);
  await fail(database, command, data);
  const retried: unknown[] = [];
  const { done, failure } = await applyInTransactions(held.bench, [transactionStep([adds(1), counts])], {
    ...settings,
    onRetry: (...said) => retried.push(said),
  });
  expect({ failure, done: done.length }).toEqual({ failure: null, done: 1 });
  expect(await database.db.collection("orders").countDocuments()).toBe(1);
  expect(await database.db.collection("counters").findOne()).toEqual({ _id: 1, n: 1 });
  expect(await held.history()).toMatchObject([{ seq: 1, status: "done" }]);
  expect(retried).toHaveLength(command === "insert" ? 1 : 0);
});

test("a commit whose answer is lost is not made twice", async () => {
  const server = await mongoServer();
  const database = await createMongoDatabase();
  let struck = 0;
  await using proxy = await startMongoProxy(portOf(server.url), (command: Document) => {
    if (!("commitTransaction" in command) || struck > 0) return "pass";
    struck += 1;
    return "swallow";
  });
  await using held = await holdBench(throughProxy(database.url, proxy));
  const { failure } = await applyInTransactions(held.bench, [transactionStep([adds(1), counts])], settings);
  expect({ failure, struck }).toEqual({ failure: null, struck: 1 });
  expect(await database.db.collection("counters").findOne()).toEqual({ _id: 1, n: 1 });
  expect(await held.history()).toHaveLength(1);
});

test("a stale holder commits nothing, whatever it had begun", async () => {
  const database = await createMongoDatabase();
  await using stale = await holdBench(database.url);
  await database.db.collection("lockkeeper.leases").updateOne({}, { $set: { renewedAt: new Date(0) } });
  await using held = await holdBench(database.url);
  await expect(
    applyInTransactions(stale.bench, [transactionStep([adds(1)])], settings),
  ).rejects.toMatchObject({ code: "LEASE_LOST" });
  await expect(
    applyStatements(stale.bench, statementStep([adds(1), { create: "late" }]), settings, () => undefined),
  ).rejects.toMatchObject({ code: "LEASE_LOST" });
  const { failure } = await applyInTransactions(held.bench, [transactionStep([adds(2)])], settings);
  expect(failure).toBeNull();
  expect(
    await database.db
      .collection("orders")
      .find({}, { projection: { _id: 0 } })
      .toArray(),
  ).toEqual([{ n: 2 }]);
  expect(await database.db.listCollections({ name: "late" }).toArray()).toEqual([]);
});

describe("x-transaction-mode=true of the URL", () => {
  const withMode = (url: string): string => `${url}${url.includes("?") ? "&" : "?"}x-transaction-mode=true`;

  test("puts a body of commands that can be into one transaction", async () => {
    const { db, url } = await createMongoDatabase();
    await using held = await holdBench(withMode(url));
    const step = statementStep([adds(1), { insert: "orders", documents: [{ _id: 1 }, { _id: 1 }] }]);
    await expect(applyStatements(held.bench, step, settings, () => undefined)).rejects.toMatchObject({
      code: "MIGRATION_FAILED",
    });
    expect(await db.collection("orders").countDocuments()).toBe(0);
    await applyStatements(held.bench, statementStep([adds(1), adds(2)]), settings, () => undefined);
    expect(await held.history()).toMatchObject([
      { status: "failed", statementsDone: 0 },
      { status: "done", statementsDone: 2, statements: 2 },
    ]);
  });

  test("names the command that no transaction takes", async () => {
    const { db, url } = await createMongoDatabase();
    await using held = await holdBench(withMode(url));
    const step = statementStep([adds(1), { collMod: "orders", validationLevel: "off" }]);
    await expect(applyStatements(held.bench, step, settings, () => undefined)).rejects.toMatchObject({
      code: "STATEMENT_REFUSED",
      message: expect.stringContaining("command 2 of 2 (collMod)") as string,
      fields: { line: 3, statement: 2 },
    });
    expect(await db.collection("orders").countDocuments()).toBe(0);
  });
});

test("a body in one transaction is refused where the server has none, with what to do", async () => {
  const server = await ownMongo({ standalone: true });
  const { db, url } = await createMongoDatabase({ server });
  await using held = await holdBench(url);
  const { done, failure } = await applyInTransactions(held.bench, [transactionStep([adds(1)])], settings);
  expect(done).toEqual([]);
  expect(failure).toMatchObject({
    code: "DATABASE_UNSUPPORTED",
    hint: expect.stringContaining('"tx": "none"') as string,
  });
  expect(await db.collection("orders").countDocuments()).toBe(0);
  expect(await held.history()).toMatchObject([{ status: "failed" }]);
});
