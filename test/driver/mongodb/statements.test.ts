import type { Db } from "mongodb";
import { beforeAll, describe, expect, test } from "vitest";

import type { StatementProgress } from "../../../src/driver/session.ts";
import { applyStatements } from "../../../src/driver/mongodb/statements.ts";
import { createMongoDatabase, mongoServer, ownMongo, type MongoServer } from "../../support/mongo.ts";
import { portOf, startMongoProxy, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { settings } from "../../support/steps.ts";
import { holdBench, statementStep } from "./hold-bench.ts";

needs("mongodb", "secantusdb");

let standalone: MongoServer;
beforeAll(async () => {
  standalone = await ownMongo({ standalone: true });
});

const none = (): void => undefined;
/** So that nobody has to wait long for a command whose answer was lost. */
const limited = { ...settings, statementTimeoutMs: 500 };

describe.for(["replica set", "stand-alone"] as const)("on a %s", (kind) => {
  const server = (): Promise<MongoServer> =>
    kind === "stand-alone" ? Promise.resolve(standalone) : mongoServer();

  test("commands run one after the other, each with its checkpoint", async () => {
    const database = await createMongoDatabase({ server: await server() });
    await using held = await holdBench(database.url);
    const said: StatementProgress[] = [];
    const step = statementStep([
      { insert: "orders", documents: [{ _id: 1, n: 1 }, { n: 2 }] },
      { createIndexes: "orders", indexes: [{ key: { n: 1 }, name: "n_1" }] },
      { dropIndexes: "orders", index: "n_1" },
      { update: "orders", updates: [{ q: {}, u: { $inc: { n: 10 } }, multi: true }] },
      {
        aggregate: "orders",
        pipeline: [{ $addFields: { m: { $add: ["$n", 1] } } }, { $out: "orders" }],
        cursor: {},
      },
      { collMod: "orders", validator: { n: { $gt: 0 } } },
    ]);
    await applyStatements(held.bench, step, settings, (progress) => said.push(progress));
    expect(
      await database.db
        .collection("orders")
        .find({}, { projection: { _id: 0 } })
        .sort({ n: 1 })
        .toArray(),
    ).toEqual([
      { n: 11, m: 12 },
      { n: 12, m: 13 },
    ]);
    expect(said).toEqual([1, 2, 3, 4, 5, 6].map((done) => ({ kind: "statement", done })));
    const [entry, ...others] = await held.history();
    expect(others).toEqual([]);
    expect(entry).toMatchObject({
      status: "done",
      statementsDone: 6,
      statements: 6,
      checkpoint: null,
      error: null,
    });
    expect(entry?.statementChecksums).toHaveLength(6);
  });

  test("a command that fails is named with its line and code, and those before it stay done", async () => {
    const database = await createMongoDatabase({ server: await server() });
    await using held = await holdBench(database.url);
    const step = statementStep([
      { insert: "orders", documents: [{ _id: 1, email: "a@b.example" }] },
      { insert: "orders", documents: [{ _id: 2 }, { _id: 1, email: "c@d.example" }] },
      { drop: "orders" },
    ]);
    await expect(applyStatements(held.bench, step, settings, none)).rejects.toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringMatching(
        /^1_a\.up\.json:3: command 2 of 3 \(insert\): DuplicateKey 11000: E11000 duplicate key error collection: \S+ index: _id_; its first 1 of 3 commands took effect/,
      ) as string,
      fields: {
        migration: "1_a.up.json",
        line: 3,
        statement: 2,
        statements: 3,
        mongoCode: 11_000,
        codeName: "DuplicateKey",
      },
    });
    const [entry] = await held.history();
    expect(entry).toMatchObject({
      status: "failed",
      statementsDone: 1,
      checkpoint: null,
      error: { code: "MIGRATION_FAILED" },
    });
    expect(JSON.stringify(entry)).not.toContain("example");
    // Where there are transactions, nothing of the command itself stays either.
    expect(await database.db.collection("orders").countDocuments()).toBe(kind === "stand-alone" ? 2 : 1);
  });

  test("a write concern that is not met is an error, although the server says ok", async () => {
    const database = await createMongoDatabase({ server: await server() });
    await using held = await holdBench(database.url);
    const client = database.client.db("admin");
    await client.command({
      configureFailPoint: "failCommand",
      mode: { times: 1 },
      data: {
        failCommands: ["create"],
        writeConcernError: { code: 64, errmsg: "waiting for replication timed out" },
      },
    });
    const step = statementStep([{ create: "sales" }]);
    await expect(applyStatements(held.bench, step, settings, none)).rejects.toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringContaining("this one did on the primary") as string,
      fields: { mongoCode: 64, codeName: "WriteConcernTimeout" },
    });
    // Running again finds out that it is there.
    const [unfinished = null] = await held.history();
    const again = statementStep([{ create: "sales" }], { unfinished });
    const said: StatementProgress[] = [];
    await applyStatements(held.bench, again, settings, (progress) => said.push(progress));
    expect(said).toEqual([
      { kind: "probed", statement: 1, verdict: "done" },
      { kind: "statement", done: 1 },
    ]);
  });

  describe.concurrent.for(["cut", "swallow"] as const)(
    "where the network takes a command or its answer (%s)",
    (passage) => {
      test.for(Object.entries(kinds))(
        "%s takes effect once, and the body goes on",
        async ([, { setup, command, check }]) => {
          const origin = await server();
          const database = await createMongoDatabase({ server: origin, endsWith: "file" });
          for (const each of setup) await database.db.command(each);
          let struck = 0;
          await using proxy = await startMongoProxy(portOf(origin.url), (sent) => {
            const isOurs =
              typeof sent["comment"] === "string" && sent["comment"].startsWith("lockkeeper:orders:");
            if (!isOurs || struck > 0) return "pass";
            struck += 1;
            return passage;
          });
          await using held = await holdBench(throughProxy(database.url, proxy));
          const written = typeof command === "function" ? command(database.name) : command;
          const step = statementStep([written, { insert: "after", documents: [{ _id: 1 }] }]);
          await applyStatements(held.bench, step, limited, none);
          expect(struck).toBe(1);
          expect(await check(database.db)).toBe(true);
          expect(await held.history()).toMatchObject([
            { status: "done", statementsDone: 2, checkpoint: null },
          ]);
        },
      );
    },
  );
});

interface Kind {
  readonly setup: readonly object[];
  readonly command: object | ((database: string) => object);
  check(db: Db): Promise<boolean>;
}

const rows = [
  {
    insert: "orders",
    documents: [
      { _id: 1, n: 1 },
      { _id: 2, n: 2 },
    ],
  },
];
const index = { createIndexes: "orders", indexes: [{ key: { n: 1 }, name: "n_1" }] };
const names = async (db: Db): Promise<readonly string[]> =>
  (await db.listCollections({}, { nameOnly: true }).toArray()).map(({ name }) => name);
const count = (db: Db, filter: object): Promise<number> => db.collection("orders").countDocuments(filter);
const indexes = async (db: Db): Promise<readonly unknown[]> =>
  (await db.collection("orders").indexes()).map(({ name }) => name);

/** Kinds of commands, and how to see that they were done once. */
const kinds: Readonly<Record<string, Kind>> = {
  insert: {
    setup: [],
    command: { insert: "orders", documents: [{ n: 1 }, { n: 2 }] },
    check: async (db) => (await count(db, {})) === 2,
  },
  update: {
    setup: rows,
    command: { update: "orders", updates: [{ q: {}, u: { $set: { n: 5 } }, multi: true }] },
    check: async (db) => (await count(db, { n: 5 })) === 2,
  },
  delete: {
    setup: rows,
    command: { delete: "orders", deletes: [{ q: { n: 1 }, limit: 0 }] },
    check: async (db) => (await count(db, {})) === 1,
  },
  createIndexes: { setup: rows, command: index, check: async (db) => (await indexes(db)).includes("n_1") },
  dropIndexes: {
    setup: [...rows, index],
    command: { dropIndexes: "orders", index: "n_1" },
    check: async (db) => !(await indexes(db)).includes("n_1"),
  },
  create: {
    setup: [],
    command: { create: "orders" },
    check: async (db) => (await names(db)).includes("orders"),
  },
  drop: {
    setup: rows,
    command: { drop: "orders" },
    check: async (db) => !(await names(db)).includes("orders"),
  },
  collMod: {
    setup: rows,
    command: { collMod: "orders", validator: { n: { $gt: 0 } } },
    check: async (db) =>
      JSON.stringify(await db.listCollections({ name: "orders" }).toArray()).includes("$gt"),
  },
  renameCollection: {
    setup: rows,
    command: (database) => ({ renameCollection: `${database}.orders`, to: `${database}.sales` }),
    check: async (db) => (await names(db)).includes("sales") && !(await names(db)).includes("orders"),
  },
  $out: {
    setup: rows,
    command: {
      aggregate: "orders",
      pipeline: [{ $addFields: { n: { $add: ["$n", 10] } } }, { $out: "orders" }],
      cursor: {},
    },
    check: async (db) => (await count(db, { n: { $in: [11, 12] } })) === 2,
  },
  createUser: {
    setup: [],
    command: { createUser: "reader", pwd: "x", roles: [] },
    check: async (db) => (await db.command({ usersInfo: "reader" }))["users"].length === 1,
  },
};
