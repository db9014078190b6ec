import { BSON, ObjectId, type Collection } from "mongodb";
import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import type { CommandDocument } from "./bson.ts";

/**
 * Ranges of `_id`s. A comparison in MongoDB holds within one kind of values only, and the index goes through the kinds
 * one after the other; so a range never holds `_id`s of two kinds, and any collection can be followed.
 */

/** An `_id`, as canonical Extended JSON of `{_id: …}`: so it keeps its type in a history entry. */
export type Cursor = string;

/** The end of the next range. */
export interface Bound {
  readonly from: Cursor | null;
  readonly to: Cursor;
  /** documents in it */
  readonly count: number;
  /** as many as were asked for, so there may be more behind them */
  readonly isFull: boolean;
}

/** The end of the range of at most `size` documents behind `cursor` (null: from the least on); undefined: nothing is left. */
export async function findBound(
  collection: Collection,
  cursor: Cursor | null,
  size: number,
  signal: AbortSignal,
): Promise<Bound | undefined> {
  const options = { projection: { _id: 1 }, promoteValues: false, signal } as const;
  const first = async (filter: object): Promise<Cursor | undefined> => {
    const [found] = await collection.find(filter, options).sort({ _id: 1 }).limit(1).toArray();
    return found === undefined ? undefined : toCursor(found._id);
  };
  const within = async (from: Cursor | null, filter: object): Promise<Bound | undefined> => {
    const [full] = await collection
      .find(filter, options)
      .sort({ _id: 1 })
      .skip(size - 1)
      .limit(1)
      .toArray();
    if (full !== undefined) return { from, to: toCursor(full._id), count: size, isFull: true };
    const [last] = await collection.find(filter, options).sort({ _id: -1 }).limit(1).toArray();
    if (last === undefined) return undefined;
    const count = await collection.countDocuments(filter, { limit: size, signal });
    return { from, to: toCursor(last._id), count, isFull: false };
  };
  const kind = cursor === null ? undefined : kindOf(cursor);
  if (cursor !== null && kind?.isSingle !== true) {
    const bound = await within(cursor, { _id: { $gt: toValue(cursor) } });
    if (bound !== undefined) return bound;
  }
  const later = kind === undefined ? kinds : kinds.slice(kinds.indexOf(kind) + 1);
  if (later.length === 0) return undefined;
  const start = await first(
    kind === undefined ? {} : { _id: { $type: later.flatMap(({ types }) => types) } },
  );
  if (start === undefined) return undefined;
  const bound = kindOf(start).isSingle
    ? { from: null, to: start, count: 1 }
    : await within(null, { _id: { $gte: toValue(start) } });
  return bound === undefined ? undefined : { ...bound, isFull: true };
}

/**
 * The backfill's command for one range: its statements reach no document outside of it.
 *
 * The range is what the server must follow, and not an index that fits the statement better: that would lead through
 * the whole collection each time.
 */
export function withRange(document: CommandDocument, { from, to }: Bound): CommandDocument {
  const field = "updates" in document ? "updates" : "deletes";
  const statements = document[field];
  if (!Array.isArray(statements)) return document;
  const upTo = kindOf(to).isSingle ? { $eq: toValue(to) } : { $lte: toValue(to) };
  const range = { _id: { ...(from === null ? {} : { $gt: toValue(from) }), ...upTo } };
  return {
    ...document,
    [field]: statements.map((statement: unknown) => {
      if (!(statement instanceof Map)) return statement;
      const fields = new Map<unknown, unknown>(statement);
      const query: unknown = statement.get("q");
      const isAll = query instanceof Map && query.size === 0;
      fields.set("q", isAll ? range : { $and: [range, query] });
      if (!fields.has("hint")) fields.set("hint", { _id: 1 });
      return fields;
    }),
  };
}

/** Documents that a reply says were changed. */
export function changedBy(answer: unknown): number {
  const { n, nModified } = v.parse(
    v.object({ n: v.optional(v.number(), 0), nModified: v.optional(v.number()) }),
    answer,
  );
  return nModified ?? n;
}

/** Where an `_id` lies on a scale: milliseconds of an ObjectId or a date, a number; undefined for all others. */
export function placeOf(cursor: Cursor | null): { readonly scale: string; readonly at: number } | undefined {
  if (cursor === null) return undefined;
  const value = toValue(cursor);
  const scale = kindOf(cursor).name;
  if (value instanceof Date) return { scale, at: value.getTime() };
  if (value instanceof ObjectId) return { scale, at: value.getTimestamp().getTime() };
  const at = scale === "number" ? Number(String(value)) : Number.NaN;
  return Number.isFinite(at) ? { scale, at } : undefined;
}

/** The least and the greatest `_id` of a collection; undefined where it is empty. */
export async function findEnds(
  collection: Collection,
  signal: AbortSignal,
): Promise<readonly [Cursor, Cursor] | undefined> {
  const options = { projection: { _id: 1 }, promoteValues: false, signal } as const;
  const [least] = await collection.find({}, options).sort({ _id: 1 }).limit(1).toArray();
  const [greatest] = await collection.find({}, options).sort({ _id: -1 }).limit(1).toArray();
  if (least === undefined || greatest === undefined) return undefined;
  return [toCursor(least._id), toCursor(greatest._id)];
}

/**
 * Whether the throttle's command asks to wait: `busy` of its first document, or of its answer where it gives none.
 *
 * @throws RunnerError `BACKFILL` - it says neither
 */
export function readBusy(answer: unknown, path: string): boolean {
  const flag = v.union([
    v.boolean(),
    v.pipe(
      v.number(),
      v.transform((number) => number !== 0),
    ),
    v.null(),
  ]);
  const read = v.safeParse(
    v.object({ cursor: v.optional(v.object({ firstBatch: v.array(v.unknown()) })), busy: v.optional(flag) }),
    answer,
  );
  const first = read.success ? (read.output.cursor?.firstBatch[0] ?? undefined) : undefined;
  const inFirst = v.safeParse(v.object({ busy: flag }), first);
  if (inFirst.success) return inFirst.output.busy === true;
  if (read.success && read.output.cursor !== undefined && first === undefined) return false;
  if (read.success && read.output.busy !== undefined) return read.output.busy === true;
  throw new RunnerError(
    "BACKFILL",
    `${path}: the first document of the throttle's answer has no field "busy" of true or false`,
    {
      hint: 'let it end in {"$project": {"busy": …}}',
      fields: { migration: path },
    },
  );
}

interface Kind {
  readonly name: string;
  /** as `$type` calls them */
  readonly types: readonly string[];
  /** there is one value of it; what compares with it compares with values of all kinds */
  readonly isSingle: boolean;
}

/** Kinds of values in the order of an index. Arrays and expressions can be no `_id`. */
const kinds: readonly Kind[] = [
  { name: "minKey", types: ["minKey"], isSingle: true },
  { name: "null", types: ["null"], isSingle: true },
  { name: "number", types: ["double", "int", "long", "decimal"], isSingle: false },
  { name: "string", types: ["string", "symbol"], isSingle: false },
  { name: "object", types: ["object"], isSingle: false },
  { name: "binData", types: ["binData"], isSingle: false },
  { name: "objectId", types: ["objectId"], isSingle: false },
  { name: "bool", types: ["bool"], isSingle: false },
  { name: "date", types: ["date"], isSingle: false },
  { name: "timestamp", types: ["timestamp"], isSingle: false },
  { name: "maxKey", types: ["maxKey"], isSingle: true },
];

const kindNames: ReadonlyMap<string, string> = new Map([
  ["MinKey", "minKey"],
  ["Int32", "number"],
  ["Long", "number"],
  ["Double", "number"],
  ["Decimal128", "number"],
  ["BSONSymbol", "string"],
  ["Binary", "binData"],
  ["ObjectId", "objectId"],
  ["Timestamp", "timestamp"],
  ["MaxKey", "maxKey"],
]);

function kindOf(cursor: Cursor): Kind {
  const name = nameOfKind(toValue(cursor));
  const found = kinds.find((kind) => kind.name === name);
  if (found === undefined) throw new TypeError(`no kind of _id is called ${name}`);
  return found;
}

function nameOfKind(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string") return "string";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number" || typeof value === "bigint") return "number";
  if (value instanceof Date) return "date";
  const tagged = v.safeParse(v.object({ _bsontype: v.string() }), value);
  return tagged.success ? (kindNames.get(tagged.output._bsontype) ?? "object") : "object";
}

function toCursor(id: unknown): Cursor {
  return BSON.EJSON.stringify({ _id: id }, { relaxed: false });
}

function toValue(cursor: Cursor): unknown {
  return v.parse(v.object({ _id: v.unknown() }), BSON.EJSON.parse(cursor, { relaxed: false }))._id;
}
