import type { ClientSession, Collection, Db, Document, Filter, UpdateFilter } from "mongodb";
import * as v from "valibot";

import { assertDone } from "./command-error.ts";
import { answerMs } from "./database.ts";

/** What the answer counts: what was added is in `n` as well. */
const counts = v.object({ n: v.number(), upserted: v.optional(v.array(v.unknown())) });

/** One update of several. */
export interface PlainUpdate<T> {
  readonly q: Filter<T>;
  readonly u: UpdateFilter<T>;
  /** all that match, and not one alone */
  readonly multi?: boolean;
  /** adds a document where none matches */
  readonly upsert?: boolean;
}

/**
 * Updates documents of one collection in one command, one after the other. For updates that may be made twice, which is why
 * nothing is done to keep the server from it: that would cost it more than the update.
 *
 * @returns how many documents matched, and how many were added besides
 * @throws WriteErrors - the first that was not done; those after it were not tried
 */
export async function updateInOrder<T extends Document>(
  db: Db,
  { collectionName }: Collection<T>,
  updates: readonly PlainUpdate<T>[],
  session: ClientSession | undefined,
): Promise<{ readonly matched: number; readonly added: number }> {
  const answer = await db.command(
    {
      update: collectionName,
      updates,
      ordered: true,
      maxTimeMS: answerMs,
      // A transaction's commit waits for that.
      ...(session === undefined ? { writeConcern: { w: "majority" } } : {}),
    },
    { ignoreUndefined: true, ...(session === undefined ? {} : { session }) },
  );
  assertDone(answer);
  const { n, upserted = [] } = v.parse(counts, answer);
  return { matched: n - upserted.length, added: upserted.length };
}
