import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import { appliedEntries } from "../history/applied.ts";
import type { Target } from "../runner.ts";

/** Where a release ends: so many migrations, and the chain digest over all of them. Never changes for a digest. */
interface ReleaseEnd {
  readonly length: number;
  readonly chain: string | null;
}

/** Releases remembered; a deployment asks for the newest few. */
const remembered = 1_000;

/**
 * Tells whether a database has all of a release, by the chain that both carry: also where a newer release has
 * followed, is being applied or has failed, so that a pod of the former version can still start; and not any more
 * once migrations of it were rolled back.
 */
export class AppliedReleases {
  readonly #ends = new Map<string, ReleaseEnd>();

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
    const end = await this.#endOf(target, digest, now, signal);
    if (end === undefined || state.position.length < end.length) return false;
    if (state.position.length === end.length) return state.position.chain === end.chain;
    const entries = await target.driver.history(target.stream, {}, signal);
    return end.length === 0 || appliedEntries(entries)[end.length - 1]?.chain === end.chain;
  }

  async #endOf(
    target: Target,
    digest: string,
    now: Date,
    signal: AbortSignal,
  ): Promise<ReleaseEnd | undefined> {
    // a digest can be published to several streams' prefixes, with another trust for each target
    const key = JSON.stringify([target.name, digest]);
    const known = this.#ends.get(key);
    if (known !== undefined) return known;
    try {
      // Without the high-water mark: that a newer release was applied is no reason to refuse an older one here.
      const context = { highWaterMark: undefined, expected: digest, now, applied: async () => [] };
      const { migrations } = await target.releases.fetch(context, signal);
      const end = { length: migrations.length, chain: migrations.at(-1)?.chain ?? null };
      if (this.#ends.size >= remembered) this.#ends.clear();
      this.#ends.set(key, end);
      return end;
    } catch (thrown) {
      if (thrown instanceof RunnerError && thrown.code === "RELEASE_NOT_FOUND") return undefined;
      throw thrown;
    }
  }
}
