import type { StreamState } from "../driver/stream-state.ts";
import { appliedEntries } from "../history/applied.ts";
import type { KnownRoots } from "../release/trust/anchor.ts";
import type { AppliedMigration, Release, ReleaseRank } from "../release/release.ts";
import type { Target } from "./target.ts";

type Place = Pick<Target, "driver" | "releases" | "stream">;

/** What a database says of its stream, as far as it is needed here. */
type Known = Pick<StreamState, "highWaterMark" | "rootVersion"> & Partial<Pick<StreamState, "exists">>;

/** Which release is wanted, and as of when. */
export interface WantedRelease {
  /** undefined: the newest */
  readonly expected: string | undefined;
  readonly now: Date;
  /** for a plain folder; default: what the history says */
  applied?(): Promise<readonly AppliedMigration[]>;
}

/**
 * The release of a target, judged by everything that its database remembers: the newest release and the newest root.
 *
 * @throws RunnerError as `ReleaseProvider.fetch`
 */
export function fetchRelease(
  target: Place,
  state: Known,
  wanted: WantedRelease,
  signal: AbortSignal,
): Promise<Release> {
  const { driver, releases, stream } = target;
  const context = {
    // A database that was never asked for this stream has no history of it.
    applied: async () =>
      state.exists === false ? [] : appliedEntries(await driver.history(stream, {}, signal)),
    ...wanted,
    highWaterMark: state.highWaterMark ?? undefined,
    knownRoots: knownRoots(target, state, signal),
  };
  return releases.fetch(context, signal);
}

/**
 * The release to go on with under the lease: where a newer one was begun while this run waited, and it was asked for the
 * newest, that is what the bucket offers now.
 *
 * @throws RunnerError as `ReleaseProvider.fetch`
 */
export async function newestStill(
  release: Release,
  target: Place,
  state: Pick<StreamState, "highWaterMark" | "rootVersion">,
  { expected, now }: { readonly expected: string | null; readonly now: Date },
  signal: AbortSignal,
): Promise<Release> {
  const { rank } = release;
  const mark = state.highWaterMark;
  if (expected !== null || rank === undefined || mark === null || !isBefore(rank, mark)) return release;
  return fetchRelease(target, state, { expected: undefined, now }, signal);
}

function isBefore(one: ReleaseRank, other: ReleaseRank): boolean {
  return (one.epoch - other.epoch || one.version - other.version) < 0;
}

/** What a database remembers of roots; they are asked for only where that is news. */
function knownRoots(
  { driver, stream }: Pick<Place, "driver" | "stream">,
  { rootVersion }: Pick<StreamState, "rootVersion">,
  signal: AbortSignal,
): KnownRoots {
  return { version: rootVersion, files: () => driver.roots(stream, signal) };
}
