import type { ClientSession } from "mongodb";

import { answerMs, type MongoDatabase } from "./database.ts";
import { entryId, type StreamDocument } from "./documents.ts";

/** Ids of entries that a holder may write to by themselves, and of the places that he has for more; see `own-entries.ts`. */
export type OpenRange = NonNullable<StreamDocument["openEntries"]>;

const limit = { maxTimeMS: answerMs } as const;

/**
 * Strikes out the writer of what an earlier holder has begun and not ended, and removes the places that he has not used.
 * Whoever raises the fence does so before he reads anything; a second time changes nothing.
 */
export async function closeEntries(database: MongoDatabase, stream: string, range: OpenRange): Promise<void> {
  const { history } = database.collections;
  await history.updateMany({ _id: { $in: idsOf(stream, range) } }, { $unset: { writer: true } }, limit);
  await removeBlanks(database, stream, range, undefined);
}

/** Removes places that no entry was written to. */
export async function removeBlanks(
  { collections }: MongoDatabase,
  stream: string,
  range: OpenRange,
  session: ClientSession | undefined,
): Promise<void> {
  await collections.history.deleteMany(
    { _id: { $in: idsOf(stream, range) }, stream: { $exists: false } },
    { ...limit, ...(session === undefined ? {} : { session }) },
  );
}

function idsOf(stream: string, { from, through }: OpenRange): string[] {
  return Array.from({ length: through - from + 1 }, (_, index) => entryId(stream, from + index));
}
