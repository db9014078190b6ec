import { BSON, ObjectId, type Db } from "mongodb";
import * as v from "valibot";

import { fieldOf, itemsOf } from "../../migration/mongo/field.ts";
import type { Value } from "../../migration/mongo/value.ts";
import { toBson } from "./bson.ts";
import { firstText, type Probe } from "./probe.ts";

const seenDocuments = v.object({
  collection: v.string(),
  /** as canonical Extended JSON, in the order of the documents; null: too many to note */
  ids: v.nullable(v.array(v.string())),
  /** indexes of those that were there before */
  before: v.array(v.number()),
});

/** bytes of `_id`s that are noted at most; a document holds 16 MiB */
const mostNotedBytes = 4 * 1024 * 1024;
/** `_id`s in one question */
const idsAtOnce = 1_000;

/** Documents have an `_id` each; where the file gives none we do, as drivers do, so that they can be found again. */
export const insertedDocuments: Probe = {
  async look(db, command) {
    const collection = firstText(command);
    const ids = itemsOf(fieldOf(command.document, "documents")).map(idOf);
    const isNotable = ids.reduce((sum, id) => sum + id.length, 0) <= mostNotedBytes;
    return isNotable
      ? { collection, ids, before: await indexesThere(db, collection, ids) }
      : { collection, ids: null, before: [] };
  },
  async settle(db, seen) {
    const { collection, ids, before } = v.parse(seenDocuments, seen);
    if (ids === null) return undefined;
    const now = await indexesThere(db, collection, ids);
    return ids.length > 0 && before.length === 0 && now.length === ids.length ? "done" : "not-done";
  },
  async rest(db, seen, document) {
    const { collection, ids, before } = v.parse(seenDocuments, seen);
    const { documents } = document;
    if (ids === null || !Array.isArray(documents)) return document;
    const there = new Set(await indexesThere(db, collection, ids));
    for (const index of before) there.delete(index);
    const left = documents.flatMap((one: unknown, index) =>
      there.has(index) ? [] : [withId(one, ids[index])],
    );
    return { ...document, documents: left };
  },
};

/** The `_id` of a document, or a new one, as canonical Extended JSON. */
function idOf(document: Value): string {
  const own = fieldOf(document, "_id");
  return BSON.EJSON.stringify({ _id: own === undefined ? new ObjectId() : toBson(own) }, { relaxed: false });
}

/** The server puts `_id` first as well. */
function withId(document: unknown, id: string | undefined): unknown {
  if (!(document instanceof Map) || document.has("_id") || id === undefined) return document;
  return new Map<unknown, unknown>([["_id", readId(id)], ...document.entries()]);
}

async function indexesThere(db: Db, collection: string, ids: readonly string[]): Promise<number[]> {
  const there = new Set<string>();
  for (let at = 0; at < ids.length; at += idsAtOnce) {
    const wanted = ids.slice(at, at + idsAtOnce).map(readId);
    const found = await db
      .collection(collection)
      .aggregate([{ $match: { _id: { $in: wanted } } }, { $project: { _id: 1 } }], { promoteValues: false })
      .toArray();
    for (const document of found) there.add(BSON.EJSON.stringify(document, { relaxed: false }));
  }
  return ids.flatMap((id, index) => (there.has(id) ? [index] : []));
}

function readId(text: string): unknown {
  return v.parse(v.object({ _id: v.unknown() }), BSON.EJSON.parse(text, { relaxed: false }))._id;
}
