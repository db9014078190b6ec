import type { StreamState } from "../driver/stream-state.ts";
import type { ChainEnd } from "../release/chain.ts";
import type { Target } from "../runner.ts";
import { hasChain } from "../status/chain.ts";
import { endOfRelease } from "../status/release-end.ts";

/** Releases remembered; a deployment asks for the newest few. */
const remembered = 1_000;

/**
 * Tells whether a database has all of a release, by the chain that both carry: also where a newer release has
 * followed, is being applied or has failed, so that a pod of the former version can still start; and not any more
 * once migrations of it were rolled back.
 */
export class AppliedReleases {
  /** where each release ends, which never changes for a digest */
  readonly #ends = new Map<string, ChainEnd>();

  /**
   * Asks the bucket only for a release that is not the last one completed, and once for each.
   *
   * @throws RunnerError `SOURCE_…` and what the release is refused for, but not that it is not there yet: then it is not applied
   */
  async has(
    target: Target,
    state: StreamState,
    digest: string,
    now: Date,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (state.completed === digest) return true;
    if (!state.exists) return false;
    const end = await this.#endOf(target, state, digest, now, signal);
    return end !== undefined && hasChain(target.driver, target.stream, state, end, signal);
  }

  async #endOf(
    target: Target,
    state: StreamState,
    digest: string,
    now: Date,
    signal: AbortSignal,
  ): Promise<ChainEnd | undefined> {
    // a digest can be published to several streams' prefixes, with another trust for each target
    const key = JSON.stringify([target.name, digest]);
    const known = this.#ends.get(key);
    if (known !== undefined) return known;
    const end = await endOfRelease(target, state, digest, now, signal);
    if (end === undefined) return undefined;
    if (this.#ends.size >= remembered) this.#ends.clear();
    this.#ends.set(key, end);
    return end;
  }
}
