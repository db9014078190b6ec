import type { Db } from "mongodb";
import * as v from "valibot";

import type { HistoryEntry } from "../../history/entry.ts";
import type { Orphan } from "../driver.ts";
import type { MongoDatabase } from "./database.ts";
import { killOperation, selectOperations, type Operation } from "./operations.ts";

/**
 * Commands that outlived their runner (`protocol.md` 17): the lease is free, and the server still works on one, or may.
 * Transactions are none: the fence keeps whoever takes over from beginning before they have ended.
 */

/** What is looked for. */
export interface OrphanSearch {
  readonly stream: string;
  /** the greatest token whose commands are orphans */
  readonly throughToken: number;
  /** the entry that an earlier run has left, with what it noted before it sent its last command */
  readonly unfinished: Pick<HistoryEntry, "runId" | "token" | "checkpoint" | "startedAt"> | null;
}

/** What is in the way of whoever takes over, the oldest first; undefined: nothing. */
export async function findOrphan(
  database: MongoDatabase,
  { stream, throughToken, unfinished }: OrphanSearch,
  signal: AbortSignal,
): Promise<Orphan | undefined> {
  const { now } = await database.facts(signal);
  const [shown] = await shownOperations(database.db, { stream, throughToken }, signal);
  if (shown !== undefined)
    return {
      runId: unfinished?.token === shown.token ? unfinished.runId : null,
      pid: Number(String(shown.id).replace(/^.*:/, "")),
      since: new Date(now.getTime() - shown.secondsRunning * 1_000),
      isCanceled: false,
    };
  // A server that does not show what it works on: the command has a time limit, and may use all of it.
  const until = endOf(unfinished?.checkpoint);
  if (unfinished === null || until === undefined || until <= now) return undefined;
  return { runId: unfinished.runId, pid: 0, since: unfinished.startedAt, isCanceled: false };
}

/** Has the server end what it shows of them; how many there were. */
export async function cancelOrphans(
  { db }: MongoDatabase,
  search: Pick<OrphanSearch, "stream" | "throughToken">,
  signal: AbortSignal,
): Promise<number> {
  const shown = await shownOperations(db, search, signal);
  for (const operation of shown) await killOperation(db, operation, signal);
  return shown.length;
}

/** None where the server does not show them to us, or to nobody. */
function shownOperations(
  db: Db,
  { stream, throughToken }: Pick<OrphanSearch, "stream" | "throughToken">,
  signal: AbortSignal,
): Promise<readonly Operation[]> {
  return selectOperations(db, { stream, isWanted: (token) => token <= throughToken }, signal).catch(
    (cause: unknown) => {
      if (signal.aborted) throw cause;
      return [];
    },
  );
}

const ending = v.object({ kind: v.literal("sent"), before: v.object({ until: v.string() }) });

function endOf(checkpoint: unknown): Date | undefined {
  const read = v.safeParse(ending, checkpoint);
  return read.success ? new Date(read.output.before.until) : undefined;
}
