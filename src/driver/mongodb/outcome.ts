import { BSON, type Db } from "mongodb";
import * as v from "valibot";

import type { Command, Value } from "../../migration/mongo/value.ts";
import { entriesOf, fieldOf, itemsOf, textOf } from "../../migration/mongo/field.ts";
import { insertedDocuments } from "./inserted-documents.ts";
import { firstText, type Probe } from "./probe.ts";

/** The probe of a command; undefined where nothing would tell. */
export function probeOf(command: Command): ProbeName | undefined {
  switch (command.name) {
    case "create":
    case "drop":
    case "dropIndexes":
    case "insert":
    case "renameCollection":
    case "createUser":
    case "dropUser":
    case "createRole":
    case "dropRole":
      return command.name;
    case "aggregate":
      return outOf(command) === undefined ? undefined : "out";
    default:
      return undefined;
  }
}

/** A probe's name, as it is noted. */
export type ProbeName =
  | "create"
  | "drop"
  | "dropIndexes"
  | "renameCollection"
  | "out"
  | "insert"
  | "createUser"
  | "dropUser"
  | "createRole"
  | "dropRole";

/** Whether a text is the name of a probe. */
export function isProbeName(name: unknown): name is ProbeName {
  return typeof name === "string" && Object.hasOwn(probes, name);
}

const wasThere = v.object({ name: v.string(), wasThere: v.boolean() });

/** What appears, or disappears, by its name: it did so by this command where it was otherwise before. */
function ofName(
  isThere: (db: Db, name: string) => Promise<boolean>,
  expected: "appears" | "disappears",
): Probe {
  const wanted = expected === "appears";
  return {
    async look(db, command) {
      const name = firstText(command);
      return { name, wasThere: await isThere(db, name) };
    },
    async settle(db, seen) {
      const { name, wasThere: before } = v.parse(wasThere, seen);
      return before !== wanted && (await isThere(db, name)) === wanted ? "done" : "not-done";
    },
  };
}

const seenIndexes = v.object({ collection: v.string(), names: v.array(v.string()) });

/** The indexes that a command names; all or none of them go. */
const droppedIndexes: Probe = {
  async look(db, command) {
    const collection = firstText(command);
    const index = fieldOf(command.document, "index");
    const there = await indexesOf(db, collection);
    const names = there.filter((one) => isNamed(one, index)).map(({ name }) => name);
    return { collection, names };
  },
  async settle(db, seen) {
    const { collection, names } = v.parse(seenIndexes, seen);
    const left = new Set((await indexesOf(db, collection)).map(({ name }) => name));
    return names.length > 0 && names.every((name) => !left.has(name)) ? "done" : "not-done";
  },
};

const seenNames = v.object({ from: v.string(), hadFrom: v.boolean(), to: v.string() });

/** Both names hold their database: `shop.orders`. */
const renamed: Probe = {
  async look(db, command) {
    const from = firstText(command);
    return {
      from,
      to: textOf(fieldOf(command.document, "to")) ?? "",
      hadFrom: await isNamespace(db, from),
    };
  },
  async settle(db, seen) {
    const { from, hadFrom, to } = v.parse(seenNames, seen);
    const isDone = hadFrom && !(await isNamespace(db, from)) && (await isNamespace(db, to));
    return isDone ? "done" : "not-done";
  },
};

const seenIdentity = v.object({
  database: v.string(),
  collection: v.string(),
  /** null: it was not there; undefined: the server does not tell */
  uuid: v.optional(v.nullable(v.string())),
});

/** `$out` puts a new collection in the place of the old one, with another identity. */
const replaced: Probe = {
  async look(db, command) {
    const target = outOf(command) ?? { database: undefined, collection: "" };
    const place = { database: target.database ?? db.databaseName, collection: target.collection };
    return { ...place, uuid: await identityOf(db, place) };
  },
  async settle(db, seen) {
    const { uuid, ...place } = v.parse(seenIdentity, seen);
    const now = await identityOf(db, place);
    if (uuid === undefined || now === undefined) return undefined;
    return now !== null && now !== uuid ? "done" : "not-done";
  },
};

/** The probes by their names. */
export const probes: Readonly<Record<ProbeName, Probe>> = {
  create: ofName((db, name) => isNamespace(db, `${db.databaseName}.${name}`), "appears"),
  drop: ofName((db, name) => isNamespace(db, `${db.databaseName}.${name}`), "disappears"),
  dropIndexes: droppedIndexes,
  renameCollection: renamed,
  out: replaced,
  insert: insertedDocuments,
  createUser: ofName((db, name) => isInfo(db, { usersInfo: name }, "users"), "appears"),
  dropUser: ofName((db, name) => isInfo(db, { usersInfo: name }, "users"), "disappears"),
  createRole: ofName((db, name) => isInfo(db, { rolesInfo: name }, "roles"), "appears"),
  dropRole: ofName((db, name) => isInfo(db, { rolesInfo: name }, "roles"), "disappears"),
};

/** Where the pipeline's `$out` writes to, if it has one. */
function outOf(
  command: Command,
): { readonly database: string | undefined; readonly collection: string } | undefined {
  const last = itemsOf(fieldOf(command.document, "pipeline")).at(-1);
  const out = fieldOf(last, "$out");
  if (out === undefined) return undefined;
  const collection = textOf(out) ?? textOf(fieldOf(out, "coll"));
  return collection === undefined ? undefined : { database: textOf(fieldOf(out, "db")), collection };
}

const collections = v.object({
  cursor: v.object({
    firstBatch: v.array(
      v.object({ name: v.string(), info: v.optional(v.object({ uuid: v.optional(v.unknown()) })) }),
    ),
  }),
});

async function collectionsNamed(
  db: Db,
  name: string,
): Promise<v.InferOutput<typeof collections>["cursor"]["firstBatch"]> {
  const answer = await db.command({ listCollections: 1, filter: { name } });
  return v.parse(collections, answer).cursor.firstBatch;
}

async function isNamespace(db: Db, namespace: string): Promise<boolean> {
  const dot = namespace.indexOf(".");
  const database = db.client.db(namespace.slice(0, dot));
  return (await collectionsNamed(database, namespace.slice(dot + 1))).length > 0;
}

async function identityOf(
  db: Db,
  { database, collection }: { readonly database: string; readonly collection: string },
): Promise<string | null | undefined> {
  const [found] = await collectionsNamed(db.client.db(database), collection);
  if (found === undefined) return null;
  const uuid = found.info?.uuid;
  return uuid === undefined ? undefined : BSON.EJSON.stringify(uuid, { relaxed: false });
}

interface NamedIndex {
  readonly name: string;
  readonly key: string;
}

const indexes = v.object({
  cursor: v.object({
    firstBatch: v.array(v.object({ name: v.string(), key: v.record(v.string(), v.unknown()) })),
  }),
});

async function indexesOf(db: Db, collection: string): Promise<readonly NamedIndex[]> {
  if (!(await isNamespace(db, `${db.databaseName}.${collection}`))) return [];
  const answer = await db.command({ listIndexes: collection, cursor: { batchSize: 1_000 } });
  return v
    .parse(indexes, answer)
    .cursor.firstBatch.map(({ name, key }) => ({ name, key: JSON.stringify(Object.entries(key)) }));
}

/** Whether `dropIndexes` with this `index` means it: a name, a list of names, a key, or all but that of `_id`. */
function isNamed({ name, key }: NamedIndex, index: Value | undefined): boolean {
  switch (index?.kind) {
    case "string":
      return index.text === "*" ? name !== "_id_" : index.text === name;
    case "array":
      return index.items.some((item) => textOf(item) === name);
    case "document":
      return JSON.stringify(entriesOf(index).map(([field, value]) => [field, plain(value)])) === key;
    default:
      return false;
  }
}

function plain(value: Value): unknown {
  if (value.kind === "string") return value.text;
  return "value" in value ? Number(value.value) : null;
}

async function isInfo(db: Db, question: Record<string, unknown>, field: "users" | "roles"): Promise<boolean> {
  const answer: unknown = (await db.command(question))[field];
  return Array.isArray(answer) && answer.length > 0;
}
