import type { Binary, Collection, Db } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { AuditEntry } from "../../history/audit.ts";
import type { EntryError, HistoryEntry } from "../../history/entry.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import type { BackupRecord, Caller, RunRecord } from "../../history/run.ts";
import type { RootFile } from "../../release/trust/anchor.ts";
import type { HighWaterMark } from "../../release/release.ts";
import type { FailedRelease, Hold } from "../stream-state.ts";

/**
 * Our own documents, in collections of the target database: they are backed up and restored together with what they
 * describe. What others name freely (labels, an order, what a probe saw) is kept as JSON text: as documents their keys
 * could be operators to the server, or types to the driver.
 */

/**
 * A stream, and the fence of its lease (`protocol.md` 15): whatever changes anything begins with a write to this document,
 * filtered by token and run, so that a transaction that is still open and a taker who raises the token exclude each other.
 */
export interface StreamDocument {
  /** name of the stream */
  readonly _id: string;
  /** of whom the fence lets through */
  readonly token: number;
  readonly runId: string | null;
  /** a random name of the newest transaction that committed: tells whether one did whose answer was lost */
  readonly transaction?: string;
  /** id of the newest history entry; may run ahead of it */
  readonly lastEntryId: number;
  readonly targetId: string | null;
  readonly environment?: string;
  readonly highWaterMark?: HighWaterMark;
  readonly rootVersion?: number;
  readonly completed?: string | null;
  readonly held?: Hold | null;
  readonly failed?: FailedRelease | null;
  readonly paused?: boolean;
  readonly inStep?: ForeignPlace | null;
  /** ids of the entries that the holder may write to by themselves; see `own-entries.ts` */
  readonly openEntries?: { readonly from: number; readonly through: number } | null;
}

/** Who has the lease of a stream: what heartbeats write to, so that they wait for no transaction. */
export interface LeaseDocument {
  /** name of the stream */
  readonly _id: string;
  /** only grows */
  readonly token: number;
  /** null: nobody has it */
  readonly runId: string | null;
  readonly holder: string;
  readonly acquiredAt: Date;
  /** by the server's clock, written by the server; it expires `leaseMs` later */
  readonly renewedAt: Date;
  readonly leaseMs: number;
  /** it was taken away from the holder before, who may have left something under way */
  readonly wasTaken?: boolean;
  /** of the driver's sessions, those in which its holder has transactions: whoever takes over has the server end them */
  readonly sessions?: readonly Binary[];
}

/** One entry of the history. */
export interface EntryDocument extends Omit<HistoryEntry, "checkpoint"> {
  /** `<stream>/<id>`: no two entries of a stream have the same id, without any index of ours */
  readonly _id: string;
  readonly stream: string;
  /** as JSON */
  readonly checkpoint: string | null;
  readonly writer?: EntryWriter;
}

/** Who may write to an entry without the stream's fence; see `own-entries.ts`. */
export interface EntryWriter {
  /** token and run */
  readonly run: string;
  /** number of his newest write to it */
  readonly turn: number;
}

/** One run. */
export interface RunDocument extends Pick<
  RunRecord,
  "target" | "stream" | "action" | "status" | "trigger" | "cancelRequested" | "attempt" | "createdAt"
> {
  /** id of the run */
  readonly _id: string;
  /**
   * What no two runs may have: its id, its idempotency key, the single-use ids of tokens that asked for it. In the run's own
   * document, so that one insert says all of it or nothing.
   */
  readonly claims: readonly string[];
  readonly caller: Caller;
  /** as JSON */
  readonly labels: string;
  /** as JSON; null: nobody else may go on with it */
  readonly order: string | null;
  readonly bodyDigest: string | null;
  readonly outcome?: RunRecord["outcome"];
  readonly releaseDigest: string | null;
  readonly releaseVersion?: number | null;
  readonly fromVersion?: string | null;
  readonly toVersion?: string | null;
  readonly total: number;
  /** of the lease that it had last */
  readonly token?: number;
  readonly mark?: string | null;
  readonly stalls: number;
  /** when its process said last that it has it; null: it has no process */
  readonly claimedAt: Date | null;
  readonly cancelReason?: string;
  readonly startedAt?: Date;
  readonly endedAt?: Date;
  readonly backup?: BackupRecord;
  readonly error?: EntryError | null;
}

/** One version of the root that a stream was begun under. */
export interface RootDocument extends RootFile {
  /** `<stream>/<version>` */
  readonly _id: string;
  readonly stream: string;
}

/** One entry of the audit log. */
export interface AuditDocument extends Omit<AuditEntry, "seq"> {
  /** its number */
  readonly _id: number;
  /** by the server's clock */
  readonly recordedAt: Date;
}

/** The `_id` of an entry. */
export function entryId(stream: string, id: number): string {
  return `${stream}/${id}`;
}

/** Our collections in one database. */
export interface Collections {
  readonly streams: Collection<StreamDocument>;
  readonly leases: Collection<LeaseDocument>;
  readonly history: Collection<EntryDocument>;
  readonly runs: Collection<RunDocument>;
  readonly roots: Collection<RootDocument>;
  readonly audit: Collection<AuditDocument>;
}

/**
 * Our collections, whatever the URL says of reading and writing: what was read stays, and what was written stays, also
 * after an election.
 *
 * @throws RunnerError `CONFIG` - MongoDB takes no such prefix
 */
export function collectionsOf(db: Db, prefix: string): Collections {
  if (prefix === "" || /[$\0]/.test(prefix) || prefix.startsWith("system.") || prefix.startsWith("."))
    throw new RunnerError("CONFIG", "the collections of our own state cannot begin with this prefix", {
      hint: "choose one without $, and not beginning with a dot or system.",
    });
  const safe = {
    writeConcern: { w: "majority" },
    readConcern: { level: "majority" },
    readPreference: "primary",
    ignoreUndefined: true,
    promoteLongs: true,
    promoteValues: true,
  } as const;
  return {
    streams: db.collection(`${prefix}.streams`, safe),
    leases: db.collection(`${prefix}.leases`, safe),
    history: db.collection(`${prefix}.history`, safe),
    runs: db.collection(`${prefix}.runs`, safe),
    roots: db.collection(`${prefix}.roots`, safe),
    audit: db.collection(`${prefix}.audit`, safe),
  };
}

/**
 * Creates what is absent. Before the first document of a stream, so that whoever finds one need not ask again; no
 * transaction has to create a collection, which some servers refuse.
 */
export async function createCollections({ history, runs }: Collections, maxTimeMS: number): Promise<void> {
  // One after the other: another connection takes longer to open than either takes.
  await history.createIndexes(
    [
      { key: { stream: 1, id: 1 }, name: "stream_id" },
      { key: { seq: 1, stream: 1, id: 1 }, name: "seq_stream_id" },
      { key: { runId: 1, id: 1 }, name: "run_id" },
    ],
    { maxTimeMS },
  );
  await runs.createIndexes(
    [
      { key: { claims: 1 }, name: "claims", unique: true },
      { key: { target: 1, createdAt: -1, _id: -1 }, name: "target_created" },
      { key: { stream: 1, status: 1 }, name: "stream_status" },
    ],
    { maxTimeMS },
  );
}

/** Creates the collection of roots where it is absent. */
export async function createRoots({ roots }: Collections, maxTimeMS: number): Promise<void> {
  await roots.createIndexes([{ key: { stream: 1, version: 1 }, name: "stream_version" }], { maxTimeMS });
}
