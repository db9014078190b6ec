import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { expect, test } from "vitest";

import { createMongoDatabase, ownMongo } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { makeKey, publishTo, tempFolder } from "../support/release.ts";
import { bundled, startMany } from "./many.ts";

needs("mongodb");

const runners = 24;
const migrations = 12;

/** Each adds its number; every third outside transactions, after an index that it makes. */
function files(): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Array.from({ length: migrations }, (_, index) => {
      const n = index + 1;
      const insert = { insert: "effects", documents: [{ n }] };
      const indexes = { createIndexes: "effects", indexes: [{ key: { [`f${n}`]: 1 }, name: `by_${n}` }] };
      return [`${n}_effect.up.json`, JSON.stringify(n % 3 === 0 ? [indexes, insert] : [insert])];
    }),
  );
}

test.for([
  ["up", "a stand-alone server"],
  ["init", "a replica set"],
] as const)(
  `${runners} processes of %s at once on one fresh database of %s apply each migration once, and all exit 0`,
  { timeout: 240_000 },
  async ([verb, kind]) => {
    const server = await ownMongo({ standalone: kind === "a stand-alone server" });
    const database = await createMongoDatabase({ server });
    const key = makeKey();
    await using folder = await tempFolder();
    await publishTo(folder.source, files(), { keys: [key], engine: "mongodb" });
    const trust = join(folder.path, "orders.pub");
    await writeFile(trust, key.publicPem);
    await using programs = await tempFolder();
    const program = await bundled(programs.path);
    const args = [verb, "--source", folder.path, "--trust", trust, "--stream", "orders"];
    const ended = await startMany(runners, program, [...args, "--database", database.url], folder.path);
    expect(ended).toEqual(Array.from({ length: runners }, () => ({ code: 0, said: "" })));
    const numbers = Array.from({ length: migrations }, (_, index) => index + 1);
    const effects = await database.db.collection("effects").find().sort({ n: 1 }).toArray();
    expect(effects.map(({ n }) => Number(n))).toEqual(numbers);
    const history = await database.db.collection("lockkeeper.history").find().sort({ seq: 1 }).toArray();
    expect(history.map(({ seq, status }) => `${seq} ${status}`)).toEqual(numbers.map((n) => `${n} done`));
  },
);
