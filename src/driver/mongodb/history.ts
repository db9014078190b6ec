import { MongoNetworkError, MongoServerError, type ClientSession } from "mongodb";

import type { HistoryEntry, StatementCheckpoint } from "../../history/entry.ts";
import type { HistoryQuery } from "../driver.ts";
import type { TransactionStep } from "../session.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import { entryId, type EntryDocument } from "./documents.ts";
import { commandError, errorCode } from "./command-error.ts";
import { isOurs, leaseLost, type LeaseKey } from "./lease.ts";

/** entries in one answer, which has 16 MB at most: by itself the server sends 101, and has to be asked for the rest */
const oneAnswer = 10_000;

/** Values of a new entry; its id comes from the database. */
export type NewEntry = Omit<HistoryEntry, "id">;

/** How far a body came, for {@link entryOfStep}. */
export type EntryProgress = Pick<
  NewEntry,
  | "status"
  | "statementsDone"
  | "statements"
  | "statementChecksums"
  | "checkpoint"
  | "error"
  | "startedAt"
  | "durationMs"
>;

/** What may change in an entry while its body is under way. */
export type EntryChange = Partial<
  Pick<
    HistoryEntry,
    "status" | "statementsDone" | "statementChecksums" | "checkpoint" | "error" | "durationMs"
  >
>;

/** The entry of a body that a run carries out. */
export function entryOfStep(
  step: Pick<TransactionStep, "migration" | "path" | "direction" | "sha256" | "signed">,
  { runId, token }: LeaseKey,
  appliedBy: string,
  progress: EntryProgress,
): NewEntry {
  const { seq, version, size, chain } = step.migration;
  const { path, direction, sha256, signed } = step;
  const run = { runId, token, appliedBy, origin: "run", note: null } as const;
  return { ...run, seq, version, path, direction, sha256, size, chain, signed, ...progress };
}

/**
 * The next ids of a stream's entries, in one write that is itself fenced. Those that are not used leave a gap.
 *
 * @returns the first of `count`
 * @throws RunnerError `LEASE_LOST`
 */
export async function takeIds(
  { collections }: MongoDatabase,
  key: LeaseKey,
  count: number,
  session: ClientSession | undefined,
): Promise<number> {
  const stream = await collections.streams.findOneAndUpdate(
    isOurs(key),
    { $inc: { lastEntryId: count } },
    { returnDocument: "after", maxTimeMS: answerMs, ...withSession(session) },
  );
  if (stream === null) throw leaseLost();
  return stream.lastEntryId - count + 1;
}

/** Adds entries under ids that are theirs alone: a second time, when nobody knows whether the first arrived, changes nothing. */
export async function insertEntries(
  { collections }: MongoDatabase,
  stream: string,
  firstId: number,
  entries: readonly NewEntry[],
  session: ClientSession | undefined,
): Promise<void> {
  const documents = entries.map((entry, index) => toDocument(stream, firstId + index, entry));
  const options = { maxTimeMS: answerMs, ...withSession(session) };
  try {
    // In order: whoever looks in between sees no entry without the one before.
    await collections.history.insertMany(documents, { ordered: session !== undefined, ...options });
  } catch (cause) {
    // It packs a lost connection into an answer of the server's.
    if (cause instanceof MongoServerError && cause.errorResponse instanceof MongoNetworkError)
      throw cause.errorResponse;
    if (session !== undefined || commandError(cause)?.code !== errorCode.duplicateKey) throw cause;
  }
}

/** Changes the entry of a body that is under way, while it is its writer's. */
export async function changeEntry(
  { collections }: MongoDatabase,
  { stream, token, runId }: LeaseKey,
  id: number,
  change: EntryChange,
  session: ClientSession | undefined,
): Promise<void> {
  const { matchedCount } = await collections.history.updateOne(
    { _id: entryId(stream, id), token, runId },
    { $set: toChange(change) },
    { maxTimeMS: answerMs, ...withSession(session) },
  );
  if (matchedCount !== 1) throw leaseLost();
}

/** Entries of a stream, oldest first. */
export async function readHistory(
  { collections }: MongoDatabase,
  stream: string,
  query: HistoryQuery,
): Promise<readonly HistoryEntry[]> {
  const filter = {
    stream,
    ...(query.afterId === undefined ? {} : { id: { $gt: query.afterId } }),
    ...(query.runId === undefined ? {} : { runId: query.runId }),
  };
  const found = collections.history.find(filter, { maxTimeMS: answerMs, batchSize: oneAnswer });
  const documents =
    query.last === undefined
      ? await found.sort({ id: 1 }).toArray()
      : // A limit of 0 is none to MongoDB.
        query.last === 0
        ? []
        : (await found.sort({ id: -1 }).limit(query.last).toArray()).toReversed();
  return documents.map(readEntry);
}

/** One entry, as the database has it now. */
export async function readOneEntry(
  { collections }: MongoDatabase,
  stream: string,
  id: number,
): Promise<HistoryEntry | undefined> {
  const found = await collections.history.findOne({ _id: entryId(stream, id) }, { maxTimeMS: answerMs });
  return found === null ? undefined : readEntry(found);
}

/** A document as an entry. */
export function readEntry(document: EntryDocument): HistoryEntry {
  const { id, checkpoint } = document;
  const noted = checkpoint === null ? null : (JSON.parse(checkpoint) as StatementCheckpoint);
  return { id, ...fieldsOf(document), checkpoint: noted };
}

/** A change as the fields of the document. */
export function toChange({ checkpoint, ...rest }: EntryChange): Partial<EntryDocument> {
  return { ...rest, ...(checkpoint === undefined ? {} : { checkpoint: textOf(checkpoint) }) };
}

/** An entry as a document. */
export function toDocument(stream: string, id: number, entry: NewEntry): EntryDocument {
  return { _id: entryId(stream, id), stream, id, ...fieldsOf(entry), checkpoint: textOf(entry.checkpoint) };
}

/** By name: what a repair hands over is a whole earlier entry, and what a question gives may hold more than was asked for. */
function fieldsOf(entry: Omit<HistoryEntry, "id" | "checkpoint">): Omit<HistoryEntry, "id" | "checkpoint"> {
  const { seq, version, path, direction, sha256, size, chain, origin, status } = entry;
  const { statementsDone, statements, statementChecksums, signed, runId, token } = entry;
  const { startedAt, durationMs, appliedBy, note, error } = entry;
  return {
    seq,
    version,
    path,
    direction,
    sha256,
    size,
    chain,
    origin,
    status,
    statementsDone,
    statements,
    statementChecksums,
    signed,
    runId,
    token,
    startedAt,
    durationMs,
    appliedBy,
    note,
    error,
  };
}

function textOf(checkpoint: StatementCheckpoint | null): string | null {
  return checkpoint === null ? null : JSON.stringify(checkpoint);
}

/** As an option: the driver tells an absent session from one that is undefined. */
export function withSession(session: ClientSession | undefined): { readonly session?: ClientSession } {
  return session === undefined ? {} : { session };
}
