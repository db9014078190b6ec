import type { Db } from "mongodb";
import { describe, expect, test } from "vitest";

import { toCommandDocument } from "../../../src/driver/mongodb/bson.ts";
import { probeOf, probes } from "../../../src/driver/mongodb/outcome.ts";
import { sendCommand } from "../../../src/driver/mongodb/send-command.ts";
import { readCommands } from "../../../src/migration/mongo/read-commands.ts";
import type { Command } from "../../../src/migration/mongo/value.ts";
import { createMongoDatabase } from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";

needs("mongodb");

function commandOf(value: object): Command {
  const [command] = readCommands(Buffer.from(JSON.stringify([value])), "1_a.up.json").commands;
  if (command === undefined) throw new Error("no command");
  return command;
}

function run(db: Db, command: Command): Promise<unknown> {
  const options = { key: { stream: "s", token: 1 }, maxTimeMs: 60_000, signal: new AbortController().signal };
  return sendCommand(db, toCommandDocument(command, "1_a.up.json"), options);
}

/** What a probe says before and after its command, as a run that died would be told. */
async function told(setup: readonly object[], asked: object | ((db: Db) => object)): Promise<object> {
  const { db } = await createMongoDatabase({ endsWith: "file" });
  for (const one of setup) await run(db, commandOf(one));
  const command = commandOf(typeof asked === "function" ? asked(db) : asked);
  const name = probeOf(command);
  if (name === undefined) return { name };
  const noted: unknown = JSON.parse(JSON.stringify(await probes[name].look(db, command)));
  const seen = noted as Readonly<Record<string, unknown>>;
  const before = await probes[name].settle(db, seen);
  const rest = probes[name].rest;
  const document = toCommandDocument(command, "1_a.up.json");
  const sent = rest === undefined ? document : await rest(db, seen, document);
  const options = { key: { stream: "s", token: 1 }, maxTimeMs: 60_000, signal: new AbortController().signal };
  await sendCommand(db, sent, options);
  return { name, before, after: await probes[name].settle(db, seen) };
}

const orders = [{ insert: "orders", documents: [{ _id: 1, n: 1 }] }];

describe.concurrent("whether a command took effect is told by the database", () => {
  test.for([
    ["create", [], { create: "orders" }],
    ["drop", orders, { drop: "orders" }],
    [
      "dropIndexes",
      [...orders, { createIndexes: "orders", indexes: [{ key: { n: 1 }, name: "n_1" }] }],
      { dropIndexes: "orders", index: "n_1" },
    ],
    [
      "dropIndexes",
      [...orders, { createIndexes: "orders", indexes: [{ key: { n: 1, m: -1 }, name: "n_1" }] }],
      { dropIndexes: "orders", index: { n: 1, m: -1 } },
    ],
    [
      "renameCollection",
      orders,
      ({ databaseName }: Db) => ({
        renameCollection: `${databaseName}.orders`,
        to: `${databaseName}.sales`,
      }),
    ],
    [
      "out",
      orders,
      {
        aggregate: "orders",
        pipeline: [{ $addFields: { n: { $add: ["$n", 1] } } }, { $out: "orders" }],
        cursor: {},
      },
    ],
    ["out", orders, { aggregate: "orders", pipeline: [{ $out: "sales" }], cursor: {} }],
    ["insert", [], { insert: "orders", documents: [{ _id: 1 }, { n: 2 }, { _id: { a: "x" } }] }],
    ["createUser", [], { createUser: "reader", pwd: "x", roles: [] }],
    ["dropUser", [{ createUser: "reader", pwd: "x", roles: [] }], { dropUser: "reader" }],
  ] as const)("by the probe of %s", async ([name, setup, asked]) => {
    expect(await told(setup, asked)).toEqual({ name, before: "not-done", after: "done" });
  });

  test.for([
    ["create", orders, { create: "orders" }],
    ["drop", [], { drop: "orders" }],
    [
      "createUser",
      [{ createUser: "reader", pwd: "x", roles: [] }],
      { createUser: "reader", pwd: "x", roles: [] },
    ],
  ] as const)("%s did nothing where it was so before", async ([name, setup, asked]) => {
    const { db } = await createMongoDatabase({ endsWith: "file" });
    for (const one of setup) await run(db, commandOf(one));
    const command = commandOf(asked);
    const seen = await probes[name].look(db, command);
    expect(await probes[name].settle(db, seen)).toBe("not-done");
  });

  test("and of an insert that was cut off, what is left is sent", async () => {
    const { db } = await createMongoDatabase({ endsWith: "file" });
    const command = commandOf({
      insert: "orders",
      documents: [{ _id: "a" }, { n: 2 }, { _id: 3 }, { n: 4 }],
    });
    const document = toCommandDocument(command, "1_a.up.json");
    const { look, settle, rest = () => Promise.reject(new Error("no rest")) } = probes.insert;
    const seen = await look(db, command);
    const whole = await rest(db, seen, document);
    await db.command({ ...whole, documents: (whole["documents"] as unknown[]).slice(0, 2) });
    expect(await settle(db, seen)).toBe("not-done");
    await db.command(await rest(db, seen, document));
    expect(await settle(db, seen)).toBe("done");
    expect(await db.collection("orders").countDocuments()).toBe(4);
  });

  test("and nothing tells of what changes documents in place", () => {
    expect(probeOf(commandOf({ update: "orders", updates: [] }))).toBeUndefined();
    expect(
      probeOf(commandOf({ aggregate: "orders", pipeline: [{ $merge: "orders" }], cursor: {} })),
    ).toBeUndefined();
  });
});
