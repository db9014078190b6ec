import { describe, expect, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import { analyzeBody } from "../../../src/migration/analyze-body.ts";
import { analyzeCommands } from "../../../src/migration/mongo/analyze-commands.ts";

function analyze(...commands: readonly unknown[]) {
  return analyzeCommands(Buffer.from(JSON.stringify(commands)), "1_a.up.json");
}

function kinds(...commands: readonly unknown[]) {
  return analyze(...commands).statements?.map(({ kind }) => kind);
}

function failure(...commands: readonly unknown[]): RunnerError {
  try {
    analyze(...commands);
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const header = (settings: Readonly<Record<string, unknown>>) => ({ $lockkeeper: settings });
const update = (u: unknown, more: Readonly<Record<string, unknown>> = { multi: true }) => ({
  update: "users",
  updates: [{ q: {}, u, ...more }],
});
const aggregate = (...pipeline: readonly unknown[]) => ({ aggregate: "users", pipeline, cursor: {} });

describe("analyzeCommands", () => {
  test("says of each command where it stands and how it runs, one by one", () => {
    const text = '[\n{"createIndexes": "é", "indexes": []},\n{"insert": "c", "documents": []}]';
    expect(analyzeCommands(Buffer.from(text), "x")).toEqual({
      tx: "none",
      alone: false,
      locks: [],
      isEmpty: false,
      statements: [
        { offset: 2, length: 38, kind: "repeatable" },
        { offset: 42, length: 32, kind: "transactional" },
      ],
    });
  });

  test("puts all of them into one transaction where the header says so", () => {
    expect(
      analyze(header({ tx: "one" }), { insert: "c", documents: [{ _id: 1 }] }, update({ $inc: { n: 1 } })),
    ).toEqual({
      tx: "one",
      alone: false,
      locks: [],
      isEmpty: false,
    });
    const error = failure(header({ tx: "one" }), { insert: "c", documents: [{}] }, { collMod: "c" });
    expect(error).toMatchObject({ code: "STATEMENT_REFUSED", fields: { line: 1, statement: 2 } });
    expect(error.message).toContain('"collMod" cannot run in a transaction');
  });

  test("puts none of them into a transaction where the header says that", () => {
    const commands = [
      { insert: "c", documents: [{}] },
      update({ $set: { a: 1 } }),
      update({ $inc: { a: 1 } }),
    ];
    expect(kinds(...commands)).toEqual(["transactional", "transactional", "transactional"]);
    expect(kinds(header({ tx: "none" }), ...commands)).toEqual(["once", "repeatable", "once"]);
  });

  test("finds a body without commands empty, and only an up file must hold some", async () => {
    expect(analyze().isEmpty).toBe(true);
    expect(analyze(header({ tx: "none" })).isEmpty).toBe(true);
    const body = { bytes: Buffer.from("[]"), path: "1_a.up.json" };
    const options = { engine: "mongodb", isSigned: true } as const;
    await expect(analyzeBody({ ...body, direction: "up" }, options)).rejects.toMatchObject({
      code: "EMPTY_MIGRATION",
      hint: expect.stringContaining('[{"ping": 1}]'),
    });
    expect(await analyzeBody({ ...body, direction: "down" }, options)).toMatchObject({
      tx: "none",
      statements: [],
    });
  });

  test.each([
    ["insert", { insert: "c", documents: [{ a: 1 }] }, "transactional"],
    ["delete", { delete: "c", deletes: [{ q: {}, limit: 0 }] }, "transactional"],
    ["findAndModify", { findAndModify: "c", query: {}, update: { $inc: { n: 1 } } }, "transactional"],
    ["find", { find: "c" }, "transactional"],
    ["distinct", { distinct: "c", key: "a" }, "transactional"],
    ["an aggregate that only reads", aggregate({ $match: { a: 1 } }), "transactional"],
    ["an aggregate that no transaction takes", aggregate({ $indexStats: {} }), "repeatable"],
    ["count, which no transaction takes", { count: "c" }, "repeatable"],
    ["ping", { ping: 1 }, "repeatable"],
    ["createIndexes", { createIndexes: "c", indexes: [{ key: { a: 1 }, name: "a_1" }] }, "repeatable"],
    ["dropIndexes with an array", { dropIndexes: "c", index: ["a_1", "b_1"] }, "repeatable"],
    [
      "collMod with a validator",
      { collMod: "c", validator: { $jsonSchema: {} }, validationLevel: "moderate" },
      "repeatable",
    ],
    ["create", { create: "c", capped: true, size: 4_096 }, "repeatable"],
    ["drop", { drop: "c" }, "repeatable"],
    ["createUser", { createUser: "app", pwd: "x", roles: [] }, "repeatable"],
    ["dropUser", { dropUser: "app" }, "repeatable"],
    ["renameCollection", { renameCollection: "d.a", to: "d.b" }, "once"],
    ["convertToCapped", { convertToCapped: "c", size: 1 }, "once"],
    ["cloneCollectionAsCapped", { cloneCollectionAsCapped: "a", toCollection: "b", size: 1 }, "once"],
    ["a mapReduce into a collection", { mapReduce: "c", map: "m", reduce: "r", out: "d" }, "once"],
    ["what is not known", { frobnicate: 1 }, "once"],
    ["a name from JavaScript's own objects", { constructor: 1 }, "once"],
  ] as const)("%s", (_, command, kind) => {
    expect(kinds(command)).toEqual([kind]);
  });

  test("knows golang-migrate's four published examples", () => {
    expect(kinds({ createUser: "app", pwd: "x", roles: [{ role: "readWrite", db: "orders" }] })).toEqual([
      "repeatable",
    ]);
    expect(kinds({ dropUser: "app" })).toEqual(["repeatable"]);
    const indexes = [
      { key: { name: 1, created: -1 }, name: "by_name", background: true },
      { key: { email: 1 }, name: "by_email", unique: true, background: true },
    ];
    expect(kinds({ createIndexes: "users", indexes })).toEqual(["repeatable"]);
    expect(kinds({ dropIndexes: "users", index: "a" }, { dropIndexes: "users", index: "b" })).toEqual([
      "repeatable",
      "repeatable",
    ]);
    expect(kinds(update({ $set: { status: "active" } }))).toEqual(["transactional"]);
    expect(kinds(update({ $unset: { status: "" } }))).toEqual(["transactional"]);
    const names = { _id: 1, first: 1, last: 1, full: { $concat: ["$first", " ", "$last"] } };
    expect(kinds(aggregate({ $project: names }, { $out: "users" }))).toEqual(["repeatable"]);
  });
});

describe("an aggregate that writes", () => {
  test.each([
    [[{ $match: { n: { $gt: 1 } } }, { $out: "others" }]],
    [[{ $group: { _id: "$a", n: { $sum: 1 } } }, { $out: { db: "d", coll: "others" } }]],
    [[{ $set: { n: { $add: ["$n", 1] } } }, { $out: "others" }]],
    [[{ $addFields: { status: "new", at: "$$NOW" } }, { $out: "users" }]],
    [[{ $addFields: { status: { $ifNull: ["$status", "new"] } } }, { $out: "users" }]],
    [[{ $unset: "status" }, { $out: "users" }]],
    [[{ $unset: ["a", "b.c"] }, { $out: "users" }]],
    [[{ $addFields: { names: { $map: { input: "$people", in: "$$this.name" } } } }, { $out: "users" }]],
    [[{ $match: { kind: "a" } }, { $unset: "note" }, { $out: "users" }]],
    [[{ $project: { note: 0 } }, { $out: "users" }]],
    [[{ $lookup: { from: "o", localField: "k", foreignField: "_id", as: "os" } }, { $out: "users" }]],
    [[{ $merge: "others" }]],
    [[{ $merge: { into: "others", on: ["k"], whenMatched: "replace" } }]],
    [[{ $set: { a: 1 } }, { $merge: { into: "users" } }]],
  ])("%j is repeatable", (pipeline) => {
    expect(kinds(aggregate(...pipeline))).toEqual(["repeatable"]);
  });

  test.each([
    ["adds to what it has made", [{ $set: { n: { $add: ["$n", 1] } } }, { $out: "users" }]],
    [
      "maps a field onto itself",
      [{ $set: { tags: { $map: { input: "$tags", in: { $concat: ["$$this", "!"] } } } } }, { $out: "users" }],
    ],
    ["moves a field", [{ $set: { b: "$a" } }, { $unset: "a" }, { $out: "users" }]],
    ["asks for what it changes", [{ $match: { v: 1 } }, { $set: { v: 2 } }, { $out: "users" }]],
    ["keeps what it leaves out", [{ $project: { full: "$name" } }, { $out: "users" }]],
    ["groups itself", [{ $group: { _id: "$a" } }, { $out: "users" }]],
    ["unwinds itself", [{ $unwind: "$a" }, { $out: "users" }]],
    ["takes all of a document", [{ $set: { copy: "$$ROOT" } }, { $out: "users" }]],
    ["takes the first of some", [{ $limit: 5 }, { $out: "users" }]],
    ["draws", [{ $set: { r: { $rand: {} } } }, { $out: "users" }]],
    ["is read by a lookup of what it writes", [{ $lookup: { from: "others", as: "o" } }, { $out: "others" }]],
    ["merges without _id", [{ $project: { _id: 0, a: 1 } }, { $merge: "others" }]],
    ["merges parts of documents", [{ $unwind: "$a" }, { $merge: "others" }]],
    ["merges by a pipeline", [{ $merge: { into: "others", whenMatched: [{ $set: { n: 1 } }] } }]],
    ["finds its own documents", [{ $merge: { into: "others", whenMatched: "fail" } }]],
    ["takes a sample", [{ $sample: { size: 1 } }, { $out: "others" }]],
  ])("once, where it %s", (_, pipeline) => {
    expect(kinds(aggregate(...pipeline))).toEqual(["once"]);
  });
});

describe("a write outside a transaction", () => {
  const outside = (...commands: readonly unknown[]) => kinds(header({ tx: "none" }), ...commands);

  test.each([
    [update({ $set: { a: 1 }, $unset: { b: "" }, $addToSet: { c: 1 } })],
    [update({ $rename: { a: "b" } })],
    [update([{ $set: { a: { $ifNull: ["$a", 0] } } }, { $unset: ["b"] }])],
    [update({ a: 1 }, { q: { _id: 1 } })],
    [update({ $set: { a: 1 } }, { q: { _id: 1 }, upsert: true })],
    [{ delete: "c", deletes: [{ q: { a: 1 }, limit: 0 }] }],
    [{ delete: "c", deletes: [{ q: { _id: 5, a: 1 }, limit: 1 }] }],
    [{ findAndModify: "c", query: { _id: 1 }, update: { $set: { a: 1 } } }],
    [{ findAndModify: "c", query: { _id: 1 }, remove: true }],
    [
      {
        update: "c",
        updates: [
          { q: { a: 1 }, u: { $set: { b: 1 } }, multi: true },
          { q: { c: 1 }, u: { $set: { d: 1 } }, multi: true },
        ],
      },
    ],
  ])("%j is repeatable", (command) => {
    expect(outside(command)).toEqual(["repeatable"]);
  });

  test.each([
    ["an insert", { insert: "c", documents: [{ _id: 1 }] }],
    ["a sum", update({ $inc: { a: 1 } })],
    ["a push", update({ $push: { a: 1 } })],
    ["one of many", update({ $set: { a: 1 } }, { multi: false })],
    ["one of some ids", update({ $set: { a: 1 } }, { q: { _id: { $in: [1, 2] } } })],
    [
      "an upsert of what it may no longer match",
      update({ $set: { a: 2 } }, { q: { _id: 1, a: 1 }, upsert: true }),
    ],
    ["an upsert of many", update({ $set: { a: 2 } }, { q: { a: 1 }, upsert: true, multi: true })],
    ["a circle of names", update({ $rename: { a: "b", b: "c" } })],
    ["a pipeline that counts", update([{ $set: { n: { $add: ["$n", 1] } } }])],
    ["one deletion of many", { delete: "c", deletes: [{ q: { a: 1 }, limit: 1 }] }],
    [
      "an update that another looks for",
      {
        update: "c",
        updates: [
          { q: { x: 0 }, u: { $set: { y: 1 } }, multi: true },
          { q: { x: 1 }, u: { $set: { x: 0 } }, multi: true },
        ],
      },
    ],
  ])("%s is not", (_, command) => {
    expect(outside(command)).toEqual(["once"]);
  });
});

describe("what no migration may hold", () => {
  test.each([
    [{ commitTransaction: 1 }, "sessions or transactions"],
    [{ insert: "c", documents: [], lsid: { id: 1 } }, '"lsid"'],
    [{ update: "c", updates: [], txnNumber: 1 }, '"txnNumber"'],
    [{ shutdown: 1 }, "whole server"],
    [{ fsync: 1, lock: true }, "whole server"],
    [{ replSetStepDown: 60 }, "whole server"],
    [{ dropDatabase: 1 }, "lockkeeper's own collections too"],
    [{ drop: "lockkeeper.history" }, '"lockkeeper.history"'],
    [{ update: "lockkeeper.streams", updates: [] }, '"lockkeeper.streams"'],
    [{ aggregate: "a", pipeline: [{ $out: "lockkeeper.runs" }] }, '"lockkeeper.runs"'],
    [
      { aggregate: "a", pipeline: [{ $merge: { into: { db: "d", coll: "lockkeeper.runs" } } }] },
      '"lockkeeper.runs"',
    ],
    [{ renameCollection: "d.lockkeeper.runs", to: "d.x" }, '"lockkeeper.runs"'],
    [{ renameCollection: "d.x", to: "d.lockkeeper.runs" }, '"lockkeeper.runs"'],
  ])("%j", (command, what) => {
    const error = failure({ ping: 1 }, command);
    expect(error).toMatchObject({
      code: "STATEMENT_REFUSED",
      fields: { migration: "1_a.up.json", statement: 2 },
    });
    expect(error.message).toContain(what);
    expect(error.hint).toBeTypeOf("string");
  });

  test("is not what only sounds like it", () => {
    expect(kinds({ aggregate: "lockkeeper.history", pipeline: [] }, { drop: "lockkeepers" })).toHaveLength(2);
    expect(kinds({ replSetGetStatus: 1 })).toEqual(["repeatable"]);
  });
});

describe("a backfill of commands", () => {
  const backfill = header({ backfill: true, table: "users" });

  test("is one update or deletion, of all that its ranges hold", () => {
    expect(kinds(backfill, update({ $set: { a: 1 } }))).toEqual(["backfill"]);
    expect(kinds(backfill, { delete: "users", deletes: [{ q: { old: true }, limit: 0 }] })).toEqual([
      "backfill",
    ]);
    expect(
      kinds(
        header({ backfill: true, table: "users", throttle: { find: "load", limit: 1 } }),
        update({ $set: { a: 1 } }),
      ),
    ).toEqual(["backfill"]);
  });

  test.each([
    [[backfill], "a backfill without a command"],
    [[backfill, update({ $set: { a: 1 } }), { ping: 1 }], "several commands"],
    [[backfill, { insert: "users", documents: [{}] }], 'a backfill by "insert"'],
    [[header({ backfill: true, table: "orders" }), update({ $set: { a: 1 } })], 'not about "orders"'],
    [[backfill, update({ $set: { a: 1 } }, {})], "one document only"],
    [[backfill, update({ $set: { a: 1 } }, { multi: true, upsert: true })], "an upsert"],
    [[backfill, update({ $set: { a: 1 } }, { multi: true, collation: { locale: "fr" } })], '"collation"'],
    [[backfill, { delete: "users", deletes: [{ q: {}, limit: 1 }] }], "one document only"],
    [[backfill, { delete: "users", deletes: [{ limit: 0 }] }], 'its query "q"'],
    [[backfill, { update: "users", updates: [] }], 'no "updates"'],
    [
      [header({ backfill: true, table: "users", throttle: { drop: "users" } }), update({ $set: { a: 1 } })],
      'the throttle "drop" does more than look',
    ],
  ])("%j is refused: %s", (commands, what) => {
    const error = failure(...commands);
    expect(error.code).toBe("BACKFILL");
    expect(error.message).toContain(what);
    expect(error.hint).toBeTypeOf("string");
  });
});
