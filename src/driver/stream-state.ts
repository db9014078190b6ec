import type { EntryError, HistoryEntry, Position } from "../history/entry.ts";
import type { ForeignPlace } from "../history/foreign.ts";
import type { HighWaterMark } from "../release/release.ts";

/** One stream's row, and where its history stands. */
export interface StreamState {
  /** false: our tables or the stream's row are not there, all else is as for a fresh stream */
  readonly exists: boolean;
  readonly environment: string | null;
  readonly targetId: string | null;
  readonly highWaterMark: HighWaterMark | null;
  /** version of the newest root that a release was begun under; null where none was */
  readonly rootVersion: number | null;
  /** digest of the release last applied whole; null after anything that moved the database otherwise */
  readonly completed: string | null;
  /** an entry that is not done, if it is the newest that had an effect: what a next run has to deal with first */
  readonly unfinished: HistoryEntry | null;
  readonly position: Position;
  /** repeatable migrations by path: sha256 of what was applied last */
  readonly repeatables: Readonly<Record<string, string>>;
  /** set by a rollback: automatic triggers change nothing until a newer release, or a person, comes */
  readonly held: Hold | null;
  /** the release that failed last: automatic triggers do not try it again */
  readonly failed: FailedRelease | null;
  readonly paused: boolean;
  /** another tool's record, kept true with every entry, so that it can take over again; null where there is none */
  readonly inStep: ForeignPlace | null;
  readonly lease: LeaseHolder | null;
  /** the database's clock */
  readonly now: Date;
}

/** The state of a stream that nobody has worked on yet, by the database's clock. */
export function freshState(now: Date): StreamState {
  return {
    exists: false,
    environment: null,
    targetId: null,
    highWaterMark: null,
    rootVersion: null,
    completed: null,
    unfinished: null,
    position: { length: 0, chain: null, version: null },
    repeatables: {},
    held: null,
    failed: null,
    paused: false,
    inStep: null,
    lease: null,
    now,
  };
}

/** Why a stream waits for a person, or for a newer release. */
export interface Hold {
  readonly runId: string;
  readonly version: string | null;
  readonly reason: string;
  /** the newest release that the database knew then: one above it ends the hold; null where none was signed */
  readonly highWaterMark: HighWaterMark | null;
}

/** A release that failed on this database, and why: sticky until another release, or a person, comes. */
export interface FailedRelease {
  readonly digest: string;
  readonly runId: string;
  readonly error: EntryError;
}

/** Who has the lease, for people who wait. */
export interface LeaseHolder {
  readonly holder: string;
  readonly runId: string;
  readonly token: number;
  readonly acquiredAt: Date;
  readonly expiresAt: Date;
}
