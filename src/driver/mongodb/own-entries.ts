import type { ClientSession, Document } from "mongodb";

import type { StatementStep } from "../session.ts";
import { removeBlanks, type OpenRange } from "./blank-entries.ts";
import { assertDone } from "./command-error.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import { entryId, type EntryDocument, type StreamDocument } from "./documents.ts";
import { toChange, toDocument, type EntryChange, type NewEntry } from "./history.ts";
import { isOurs, leaseLost, type LeaseKey } from "./lease.ts";
import { updateInOrder, type PlainUpdate } from "./plain-update.ts";
import type { Noted } from "./sent-note.ts";

/**
 * The entry of a body that runs command by command is written several times, and each time a transaction of its own, with
 * the fence before and the commit after it, would cost three round trips. So such an entry carries its fence in itself: it
 * names its writer, every write of his is one update of one document that matches it by that name, and whoever raises the
 * fence strikes the names out (`blank-entries.ts`) before he reads anything. A late write either came before that, and is part
 * of what he reads, or finds no name and changes nothing.
 *
 * A new entry needs a place that only a fenced transaction can give: that of the run's beginning makes one for each body that
 * is known to come, and any other a few at once. No reader sees these blanks, because they belong to no stream yet.
 */

/** An entry that was begun, for its later writes. */
export interface OpenEntry {
  readonly id: number;
  /** number of its newest write; null: it has no writer, and is changed behind the stream's own fence */
  turn: number | null;
}

/** The body that follows, where its entry is there already. */
export interface Ahead {
  readonly step: StatementStep;
  readonly noted: Noted;
  readonly begun: OpenEntry;
}

/** A later write to an entry. */
export interface OwnChange {
  readonly of: OpenEntry;
  readonly change: EntryChange;
}

/** Places that are made at once for bodies that are known to come. */
const mostPlaces = 256;
/** Blanks that are made with an entry: none with the first, which may be the only one. */
const blanksMade = [0, 7, 63, mostPlaces - 1] as const;

/** Places for entries that are to come, made in a transaction of somebody else's. */
export interface Places {
  /** what the stream's document has to say of them, before they are added */
  readonly change: Pick<StreamDocument, "lastEntryId" | "openEntries">;
  add(session: ClientSession | undefined): Promise<void>;
  /** The transaction has committed. */
  added(): void;
}

const limit = { maxTimeMS: answerMs } as const;

/** What a held lease lends to its entries; see `Bench`. */
export interface EntryBench {
  readonly database: MongoDatabase;
  lastEntryId: number;
  key(): LeaseKey;
  write<T>(work: (session: ClientSession | undefined, before: StreamDocument) => Promise<T>): Promise<T>;
  again<T>(action: () => Promise<T>): Promise<T>;
  addEntries(session: ClientSession | undefined, entries: readonly NewEntry[]): Promise<number>;
  updateEntry(session: ClientSession | undefined, id: number, change: EntryChange): Promise<void>;
}

/** The entries that one holder begins and changes. */
export class OwnEntries {
  readonly #bench: EntryBench;
  /** ids of the blanks that are left */
  #blanks = { next: 1, through: 0 };
  /** how often in a row all blanks were used */
  #used = 0;
  #hasOpen = false;
  #ahead: Ahead | undefined;

  constructor(bench: EntryBench) {
    this.#bench = bench;
  }

  /**
   * Places for the entries of so many bodies; undefined where none are needed, or none can be made.
   *
   * @param lastEntryId - as the stream's document says under the lease
   */
  placesFor(count: number, lastEntryId: number): Places | undefined {
    const bench = this.#bench;
    const { hasTransactions, isOneTransaction } = bench.database;
    if (count === 0 || this.#hasOpen || !hasTransactions || isOneTransaction) return undefined;
    const last = Math.max(lastEntryId, bench.lastEntryId);
    const range = { from: last + 1, through: last + Math.min(count, mostPlaces) };
    let isInTransaction = false;
    return {
      change: { lastEntryId: range.through, openEntries: range },
      add: async (session) => {
        isInTransaction = session !== undefined;
        if (session !== undefined) await insert(bench.database, blanksIn(bench.key(), range), session);
      },
      added: () => {
        if (!isInTransaction) return;
        this.#blanks = { next: range.from, through: range.through };
        this.#used = count < mostPlaces ? 0 : blanksMade.length - 1;
        this.#hasOpen = true;
      },
    };
  }

  /**
   * Begins an entry, and writes to another before it where `after` says so: both in one command, in this order.
   *
   * @throws RunnerError `LEASE_LOST`
   */
  async begin(entry: NewEntry, after?: OwnChange): Promise<OpenEntry> {
    const { next, through } = this.#blanks;
    // What was added otherwise meanwhile comes later, and has a greater id.
    const isUsable = next <= through && this.#bench.lastEntryId < next;
    if (!isUsable) {
      if (after !== undefined) await this.change(after);
      return this.#beginWithBlanks(entry);
    }
    const { database } = this.#bench;
    const key = this.#bench.key();
    const first = after === undefined ? [] : [this.#update(after)];
    const fill = update(key, { id: next, turn: 1 }, toDocument(key.stream, next, entry));
    await this.#bench.again(() => writeOwn(database, [...first, fill], undefined));
    this.#blanks = { next: next + 1, through };
    this.#bench.lastEntryId = next;
    return { id: next, turn: 1 };
  }

  /**
   * Writes to an entry by itself.
   *
   * @throws RunnerError `LEASE_LOST` - it is no longer ours
   */
  async change({ of, change }: OwnChange): Promise<void> {
    const bench = this.#bench;
    if (of.turn === null) return bench.write((session) => bench.updateEntry(session, of.id, change));
    const sent = this.#update({ of, change });
    return bench.again(() => writeOwn(bench.database, [sent], undefined));
  }

  /** Writes to an entry in a transaction, or, where the server has none, behind a fence that was just passed. */
  async changeWithin(session: ClientSession | undefined, { of, change }: OwnChange): Promise<void> {
    const bench = this.#bench;
    if (of.turn === null) return bench.updateEntry(session, of.id, change);
    return writeOwn(bench.database, [this.#update({ of, change })], session);
  }

  /**
   * Begins the entry of the body that follows, with the note of its first command: with the end of the one before, which
   * costs no round trip. Only for a command that may be repeated, because a crash from here on leaves it as one that may have
   * been sent.
   */
  async beginAhead(body: Omit<Ahead, "begun">, entry: NewEntry, after: OwnChange): Promise<void> {
    this.#ahead = { ...body, begun: await this.begin(entry, after) };
  }

  /** What was begun ahead of a body that now runs; undefined: nothing. */
  takeAhead({ path, direction, sha256 }: StatementStep): Ahead | undefined {
    const ahead = this.#ahead;
    const isIt =
      ahead?.step.path === path && ahead.step.direction === direction && ahead.step.sha256 === sha256;
    if (!isIt) return undefined;
    this.#ahead = undefined;
    return ahead;
  }

  /** Takes back what was begun ahead of a body that does not run: nothing was sent of it. */
  async withdraw(): Promise<void> {
    const ahead = this.#ahead;
    if (ahead === undefined) return;
    const { stream, ...key } = this.#bench.key();
    await this.#bench.database.collections.history.deleteOne(
      { _id: entryId(stream, ahead.begun.id), "writer.run": writerOf(key), "writer.turn": 1 },
      limit,
    );
    this.#ahead = undefined;
  }

  /** What the stream's document is to say once `end` is done. */
  get ending(): Pick<StreamDocument, "openEntries"> {
    return this.#hasOpen ? { openEntries: null } : {};
  }

  /** Removes what is left of the blanks, in a transaction's session. Once that has committed, `ended` has to be called. */
  async end(session: ClientSession | undefined): Promise<void> {
    const { next, through } = this.#blanks;
    if (next > through) return;
    await removeBlanks(this.#bench.database, this.#bench.key().stream, { from: next, through }, session);
  }

  /** The next entry makes new blanks. */
  ended(): void {
    this.#blanks = { next: 1, through: 0 };
    this.#used = 0;
    this.#hasOpen = false;
  }

  async #beginWithBlanks(entry: NewEntry): Promise<OpenEntry> {
    const bench = this.#bench;
    const left = this.#blanks;
    const isUsedUp = left.next > left.through;
    const used = isUsedUp ? this.#used : 0;
    const blanks = blanksMade[Math.min(used, blanksMade.length - 1)] ?? 0;
    const { id, turn } = await bench.write(async (session, before): Promise<OpenEntry> => {
      if (session === undefined) return { id: await bench.addEntries(session, [entry]), turn: null };
      // They would come before what was added otherwise.
      if (!isUsedUp)
        await removeBlanks(
          bench.database,
          bench.key().stream,
          { from: left.next, through: left.through },
          session,
        );
      const id = before.lastEntryId + 1;
      await addWithBlanks(bench.database, bench.key(), entry, { from: id, through: id + blanks }, session);
      return { id, turn: 1 };
    });
    bench.lastEntryId = id;
    this.#blanks = { next: id + 1, through: turn === null ? id : id + blanks };
    this.#used = used + 1;
    this.#hasOpen ||= turn !== null;
    return { id, turn };
  }

  #update({ of, change }: OwnChange): PlainUpdate<EntryDocument> {
    of.turn = (of.turn ?? 0) + 1;
    return update(this.#bench.key(), { id: of.id, turn: of.turn }, toChange(change));
  }
}

/** The entry, places for more, and where they end, in one transaction's session. */
async function addWithBlanks(
  database: MongoDatabase,
  key: LeaseKey,
  entry: NewEntry,
  { from, through }: OpenRange,
  session: ClientSession,
): Promise<void> {
  const begun = { ...toDocument(key.stream, from, entry), writer: { run: writerOf(key), turn: 1 } };
  await insert(database, [begun, ...blanksIn(key, { from: from + 1, through })], session);
  const { matchedCount } = await database.collections.streams.updateOne(
    isOurs(key),
    { $set: { lastEntryId: through, openEntries: { from, through } } },
    { session, ...limit },
  );
  if (matchedCount !== 1) throw leaseLost();
}

/** Places of a holder, which no entry was written to yet. */
function blanksIn(key: LeaseKey, { from, through }: OpenRange): readonly Document[] {
  const writer = { run: writerOf(key), turn: 0 };
  return Array.from({ length: through - from + 1 }, (_, index) => ({
    _id: entryId(key.stream, from + index),
    writer,
  }));
}

async function insert(
  { db, collections }: MongoDatabase,
  documents: readonly Document[],
  session: ClientSession,
): Promise<void> {
  const command = { insert: collections.history.collectionName, documents, ...limit };
  assertDone(await db.command(command, { ignoreUndefined: true, session }));
}

/** Of a holder: both at once, as in {@link isOurs}. */
function writerOf({ token, runId }: Pick<LeaseKey, "token" | "runId">): string {
  return `${token}/${runId}`;
}

/** By turns, so that one that the network held up, and that was made again meanwhile, cannot undo a later one. */
function update(
  key: LeaseKey,
  { id, turn }: { readonly id: number; readonly turn: number },
  { _id, ...values }: Partial<EntryDocument>,
): PlainUpdate<EntryDocument> {
  return {
    q: { _id: entryId(key.stream, id), "writer.run": writerOf(key), "writer.turn": { $lte: turn } },
    u: { $set: { ...values, "writer.turn": turn } },
  };
}

async function writeOwn(
  { db, collections }: MongoDatabase,
  updates: readonly PlainUpdate<EntryDocument>[],
  session: ClientSession | undefined,
): Promise<void> {
  const { matched } = await updateInOrder(db, collections.history, updates, session);
  if (matched !== updates.length) throw leaseLost();
}
