import type { StreamState } from "../driver/stream-state.ts";
import { appliedEntries } from "../history/applied.ts";
import type { KnownRoots } from "../release/trust/anchor.ts";
import type { AppliedMigration, Release } from "../release/release.ts";
import type { Target } from "./target.ts";

type Place = Pick<Target, "driver" | "releases" | "stream">;

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
  state: Pick<StreamState, "highWaterMark" | "rootVersion">,
  wanted: WantedRelease,
  signal: AbortSignal,
): Promise<Release> {
  const { driver, releases, stream } = target;
  const context = {
    applied: async () => appliedEntries(await driver.history(stream, {}, signal)),
    ...wanted,
    highWaterMark: state.highWaterMark ?? undefined,
    knownRoots: knownRoots(target, state, signal),
  };
  return releases.fetch(context, signal);
}

/** What a database remembers of roots; they are asked for only where that is news. */
export function knownRoots(
  { driver, stream }: Pick<Place, "driver" | "stream">,
  { rootVersion }: Pick<StreamState, "rootVersion">,
  signal: AbortSignal,
): KnownRoots {
  return { version: rootVersion, files: () => driver.roots(stream, signal) };
}
