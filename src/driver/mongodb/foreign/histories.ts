import { Int32, Long, ObjectId, type Document } from "mongodb";

import { RunnerError } from "../../../error.ts";
import {
  placeName,
  type ForeignColumn,
  type ForeignRow,
  type ForeignTable,
} from "../../../history/foreign.ts";
import type { ForeignHistories } from "../../foreign.ts";
import { answerMs, type MongoDatabase } from "../database.ts";
import { withForeignLock } from "./lock.ts";

/** How the tools call their collections where nobody renames them. */
const usualNames: ReadonlySet<string> = new Set(["schema_migrations", "changelog", "migrations"]);
/** more documents than any project has migrations: the collection is something else */
const mostRows = 100_000;
/** as a 32-bit integer: a driver of Go's reads no floating point there */
const noVersion = new Int32(-1);
/** Values keep the type that they have in the database. */
const asStored = { promoteValues: false, promoteLongs: false, maxTimeMS: answerMs } as const;

/** What other tools left in a MongoDB database. */
export function foreignHistories(database: MongoDatabase): ForeignHistories {
  const { db } = database;
  return {
    tables: (named, signal) =>
      database.use(signal, async () => {
        const listed = await db.listCollections({ type: "collection" }, { nameOnly: true }).toArray();
        const isMeant = (name: string): boolean =>
          named === undefined
            ? usualNames.has(name)
            : named === name || named === `${db.databaseName}.${name}`;
        const names = listed
          .map(({ name }) => name)
          .filter(isMeant)
          .toSorted();
        return Promise.all(names.map((name) => describe(database, name)));
      }),
    rows: (table, signal) =>
      database.use(signal, async () => {
        const found = db
          .collection(table.table)
          .find({}, { promoteLongs: false, maxTimeMS: answerMs, limit: mostRows + 1 });
        const rows = (await found.toArray()).map(toRow);
        if (rows.length <= mostRows) return rows;
        const message = `${placeName(table)} has more than ${mostRows} documents: no tool's record of migrations is that long`;
        throw new RunnerError("ADOPTION", message, {
          hint: "name the right collection with --table",
          fields: { table: placeName(table) },
        });
      }),
    begin: (named, signal) =>
      database.use(signal, async () => {
        // what golang-migrate writes where nothing is applied: a collection without a document says nothing of whose it is
        await db
          .collection(named.replace(`${db.databaseName}.`, ""))
          .updateOne(
            {},
            { $setOnInsert: { version: noVersion, dirty: false } },
            { upsert: true, maxTimeMS: answerMs },
          );
      }),
    withLock: (place, options, work) => withForeignLock(database, place, options, work),
  };
}

/** A collection has no columns: its first document stands for all. */
async function describe({ db }: MongoDatabase, name: string): Promise<ForeignTable> {
  const first = await db.collection(name).findOne({}, asStored);
  return {
    schema: db.databaseName,
    table: name,
    columns: Object.entries(first ?? {}).map(([field, value]): ForeignColumn => ({
      name: field,
      type: typeOf(value),
    })),
    beside: [],
    // Rights are seen when they are used.
    isWritable: true,
  };
}

/** The names of `$type`. */
function typeOf(value: unknown): string {
  if (value === null || value === undefined) return "null";
  if (value instanceof Date) return "date";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "bigint") return "long";
  if (typeof value === "number") return "double";
  if (typeof value !== "object") return typeof value;
  const tag: unknown = Reflect.get(value, "_bsontype");
  return typeof tag === "string"
    ? tag === "ObjectId"
      ? "objectId"
      : tag === "Int32"
        ? "int"
        : tag.toLowerCase()
    : "object";
}

function toRow(document: Document): ForeignRow {
  return Object.fromEntries(
    Object.entries(document).map(([field, value]: [string, unknown]) => [field, textOf(value)]),
  );
}

function textOf(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  if (typeof value === "string") return value;
  if (value instanceof Date) return value.toISOString();
  if (Long.isLong(value) || value instanceof ObjectId) return value.toString();
  return JSON.stringify(value);
}
