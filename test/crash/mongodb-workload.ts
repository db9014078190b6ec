import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Db } from "mongodb";

import type { Random } from "./random.ts";

/** A folder of migrations, and how to see that each took effect once. */
export interface MongoWorkload {
  readonly names: readonly string[];
  /** what is wrong with their effects */
  check(db: Db): Promise<readonly string[]>;
}

interface Part {
  readonly commands: readonly object[];
  wrong(db: Db): Promise<boolean>;
}

/** Documents of a collection that a backfill goes through. */
const rows = 60;

/**
 * Kinds of migrations, each on collections of its own. What is added to is added to once: a second time would show, and
 * so would a first one that is missing. Without transactions, `$inc` can only be asked of a person, and is left out.
 */
const kinds = {
  insert: (n: number): Part => ({
    commands: [
      { insert: "evidence", documents: [{ mark: `${n}.1` }, { mark: `${n}.1` }] },
      { insert: "evidence", documents: [{ mark: `${n}.2` }] },
    ],
    wrong: async (db) =>
      (await count(db, "evidence", { mark: `${n}.1` })) !== 2 ||
      (await count(db, "evidence", { mark: `${n}.2` })) !== 1,
  }),
  counter: (n: number): Part => ({
    commands: [1, 2].map(() => ({
      update: "counters",
      updates: [{ q: { _id: n }, u: { $inc: { done: 1 } }, upsert: true }],
    })),
    wrong: async (db) => (await count(db, "counters", { _id: n, done: 2 })) !== 1,
  }),
  whole: (n: number): Part => ({
    commands: [
      { $lockkeeper: { tx: "one" } },
      { insert: "evidence", documents: [{ mark: `${n}.1` }] },
      { update: "counters", updates: [{ q: { _id: n }, u: { $inc: { done: 1 } }, upsert: true }] },
    ],
    wrong: async (db) =>
      (await count(db, "evidence", { mark: `${n}.1` })) !== 1 ||
      (await count(db, "counters", { _id: n, done: 1 })) !== 1,
  }),
  collection: (n: number): Part => ({
    commands: [
      { create: `c_${n}` },
      {
        createIndexes: `c_${n}`,
        indexes: [
          { key: { a: 1 }, name: "a_1" },
          { key: { b: 1 }, name: "b_1" },
        ],
      },
      { collMod: `c_${n}`, validator: { a: { $gte: 0 } } },
      { insert: `c_${n}`, documents: [{ a: n }] },
      { dropIndexes: `c_${n}`, index: "b_1" },
    ],
    wrong: async (db) => {
      const indexes = (await db.collection(`c_${n}`).indexes()).map(({ name }) => name);
      return indexes.join() !== "_id_,a_1" || (await count(db, `c_${n}`, {})) !== 1;
    },
  }),
  out: (n: number): Part => ({
    commands: [
      {
        insert: `o_${n}`,
        documents: [
          { _id: 1, k: 1 },
          { _id: 2, k: 2 },
        ],
      },
      {
        aggregate: `o_${n}`,
        pipeline: [{ $addFields: { k: { $add: ["$k", 10] } } }, { $out: `o_${n}` }],
        cursor: {},
      },
    ],
    wrong: async (db) =>
      (await count(db, `o_${n}`, { k: { $in: [11, 12] } })) !== 2 || (await count(db, `o_${n}`, {})) !== 2,
  }),
  drop: (n: number): Part => ({
    commands: [
      { create: `d_${n}` },
      { drop: `d_${n}` },
      { insert: "evidence", documents: [{ mark: `${n}.1` }] },
    ],
    wrong: async (db) =>
      (await db.listCollections({ name: `d_${n}` }).toArray()).length > 0 ||
      (await count(db, "evidence", { mark: `${n}.1` })) !== 1,
  }),
  backfill: (n: number, hasTransactions: boolean): Part => ({
    commands: [
      { $lockkeeper: { backfill: true, table: "rows", batch: 7 } },
      {
        update: "rows",
        updates: [
          {
            q: {},
            u: hasTransactions ? { $inc: { [`f_${n}`]: 1 } } : { $set: { [`f_${n}`]: 1 } },
            multi: true,
          },
        ],
      },
    ],
    wrong: async (db) => (await count(db, "rows", { [`f_${n}`]: 1 })) !== rows,
  }),
};

/** A kind of migration. */
export type MongoKind = keyof typeof kinds;

const needTransactions: ReadonlySet<string> = new Set<MongoKind>(["counter", "whole"]);

/** Writes a folder of `size` migrations of mixed kinds, the first of which makes what backfills go through. */
export function makeWorkload(
  folder: string,
  random: Random,
  {
    size,
    hasTransactions,
    kinds: wanted = Object.keys(kinds) as MongoKind[],
  }: { readonly size: number; readonly hasTransactions: boolean; readonly kinds?: readonly MongoKind[] },
): MongoWorkload {
  mkdirSync(folder, { recursive: true });
  const names = wanted.filter((name) => hasTransactions || !needTransactions.has(name));
  const drawn = Array.from({ length: size }, () => random.pick(names));
  const first: Part = {
    commands: [{ insert: "rows", documents: Array.from({ length: rows }, (_, index) => ({ _id: index })) }],
    wrong: async (db) => (await count(db, "rows", {})) !== rows,
  };
  const parts = [first, ...drawn.map((name, index) => kinds[name](index + 2, hasTransactions))];
  for (const [index, { commands }] of parts.entries())
    writeFileSync(path.join(folder, `${index + 1}_step.up.json`), JSON.stringify(commands, null, 1));
  return {
    names: ["rows", ...drawn],
    async check(db) {
      const wrong: string[] = [];
      for (const [index, part] of parts.entries())
        if (await part.wrong(db))
          wrong.push(`migration ${index + 1} (${["rows", ...drawn][index]}) was not done exactly once`);
      return wrong;
    },
  };
}

function count(db: Db, collection: string, filter: object): Promise<number> {
  return db.collection(collection).countDocuments(filter);
}
