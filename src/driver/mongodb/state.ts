import { appliedLength } from "../../history/entry.ts";
import { freshState } from "../stream-state.ts";
import type { LeaseHolder, StreamState } from "../stream-state.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import type { EntryDocument, LeaseDocument, StreamDocument } from "./documents.ts";
import { readEntry } from "./history.ts";
import { expiryOf } from "./lease.ts";

/** A stream as it is read, with its lease as the take-over needs it. */
export interface SeenStream {
  readonly state: StreamState;
  readonly lease: LeaseDocument | undefined;
  /** undefined: there is none */
  readonly document: FoundStream | undefined;
}

/** What an entry says of where a stream stands. */
type PlaceDocument = Pick<
  EntryDocument,
  "id" | "stream" | "seq" | "direction" | "status" | "version" | "chain"
>;

/** What {@link readStream} gets. */
export interface FoundStream extends StreamDocument {
  readonly lease: readonly LeaseDocument[];
  /** its newest entry that had an effect and a place in the sequence, with the entries of that place and of the one before */
  readonly last: readonly (EntryDocument & {
    readonly here: readonly PlaceDocument[];
    readonly before: readonly PlaceDocument[];
  })[];
  /** the newest entry of a repeatable migration */
  readonly repeatable: readonly EntryDocument[];
  readonly repeatables: readonly { readonly _id: string; readonly sha256: string }[];
}

/** A down body that failed without any effect leaves everything as the entry before it says. */
const hadEffect = { $nor: [{ direction: "down", status: "failed", statementsDone: 0, checkpoint: null }] };

/**
 * What the database says of a stream. One question; the position comes from the history itself: there is no second count
 * that could disagree. Without `let` and `$$NOW`, which not every server has.
 *
 * @param clock - `asked`: the server is asked for its own beside, by whoever may take a lease by it
 */
export async function readStream(
  database: MongoDatabase,
  stream: string,
  signal: AbortSignal,
  clock: "asked" | "known" = "asked",
): Promise<SeenStream> {
  const { streams, leases, history } = database.collections;
  const ofSequence = { stream, seq: { $gt: 0 }, origin: { $ne: "covered" }, ...hadEffect };
  const from = history.collectionName;
  const details = ["statementChecksums", "checkpoint", "error", "note"];
  const withoutDetails = ["here", "before"].flatMap((name) =>
    details.map((detail) => [`${name}.${detail}`, 0] as const),
  );
  const found = streams.aggregate<FoundStream>(
    [
      { $match: { _id: stream } },
      { $lookup: { from: leases.collectionName, localField: "_id", foreignField: "_id", as: "lease" } },
      {
        $lookup: {
          from,
          pipeline: [
            { $match: ofSequence },
            { $sort: { id: -1 } },
            { $limit: 1 },
            { $addFields: { seqBefore: { $subtract: ["$seq", 1] } } },
            { $lookup: { from, localField: "seq", foreignField: "seq", as: "here" } },
            { $lookup: { from, localField: "seqBefore", foreignField: "seq", as: "before" } },
            { $project: { seqBefore: 0, ...Object.fromEntries(withoutDetails) } },
          ],
          as: "last",
        },
      },
      {
        $lookup: {
          from,
          pipeline: [{ $match: { stream, seq: 0 } }, { $sort: { id: -1 } }, { $limit: 1 }],
          as: "repeatable",
        },
      },
      {
        $lookup: {
          from,
          pipeline: [
            { $match: { stream, seq: 0, status: "done" } },
            { $sort: { id: 1 } },
            { $group: { _id: "$path", sha256: { $last: "$sha256" } } },
          ],
          as: "repeatables",
        },
      },
    ],
    { maxTimeMS: answerMs, signal },
  );
  if (!database.isOpen) await database.open();
  const asked = clock === "asked" ? database.facts(signal).then(({ now }) => now) : database.clock(signal);
  const [[document], now] = await Promise.all([found.toArray(), asked]);
  if (document === undefined) return { state: freshState(now), lease: undefined, document: undefined };
  database.sawStream();
  return seenIn(document, now);
}

/**
 * A stream under its lease, without reading it again: it was seen with this very lease free, and nobody has had that since.
 * What may change without it stands in the stream's document, as it was when the fence was raised.
 *
 * @returns undefined where something of an earlier holder may have arrived after it was seen
 */
export function stillSeen(
  { document }: SeenStream,
  fenced: StreamDocument,
  lease: LeaseDocument,
): SeenStream | undefined {
  // Each transaction writes a name of its own; what is written without one is written to open entries.
  if (document === undefined || document.transaction !== fenced.transaction || fenced.openEntries)
    return undefined;
  const { last, repeatable, repeatables } = document;
  return seenIn({ ...fenced, lease: [lease], last, repeatable, repeatables }, lease.acquiredAt);
}

function seenIn(document: FoundStream, now: Date): SeenStream {
  return { state: stateOf(document, now), lease: document.lease[0], document };
}

function stateOf(document: FoundStream, now: Date): StreamState {
  const last = document.last[0];
  const repeatable = document.repeatable[0];
  const newest = (repeatable?.id ?? 0) > (last?.id ?? 0) ? repeatable : last;
  return {
    exists: true,
    environment: document.environment ?? null,
    targetId: document.targetId,
    highWaterMark: document.highWaterMark ?? null,
    completed: document.completed ?? null,
    unfinished: newest === undefined || newest.status === "done" ? null : readEntry(newest),
    position: positionOf(document._id, last),
    repeatables: Object.fromEntries(document.repeatables.map(({ _id, sha256 }) => [_id, sha256])),
    held: document.held ?? null,
    failed: document.failed ?? null,
    paused: document.paused ?? false,
    rootVersion: document.rootVersion ?? null,
    inStep: document.inStep ?? null,
    lease: holderOf(document.lease[0]),
    now,
  };
}

function positionOf(stream: string, last: FoundStream["last"][number] | undefined): StreamState["position"] {
  if (last === undefined) return { length: 0, chain: null, version: null };
  const newestFirst = [...last.here, ...last.before]
    .filter((entry) => entry.stream === stream && entry.direction === "up")
    .toSorted((a, b) => b.id - a.id);
  const earlier = newestFirst.find(({ seq, id }) => seq === last.seq && id < last.id);
  const length = appliedLength(last, earlier?.status === "done");
  const at = newestFirst.find(({ seq, status }) => seq === length && status === "done");
  return { length, chain: at?.chain ?? null, version: at?.version ?? null };
}

function holderOf(lease: LeaseDocument | undefined): LeaseHolder | null {
  if (lease === undefined || lease.runId === null) return null;
  const { holder, runId, token, acquiredAt } = lease;
  return { holder, runId, token, acquiredAt, expiresAt: expiryOf(lease) };
}
