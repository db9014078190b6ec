import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import { emptyChain, type ChainEnd } from "../release/chain.ts";
import { fetchRelease } from "../run/fetch-release.ts";
import type { Target } from "../run/target.ts";

/**
 * Where a release ends, by the place that databases keep too. Judged without the high-water mark: that a newer release
 * was applied is no reason to refuse an older one, where the question is only whether it is there.
 *
 * @returns undefined where the bucket has no such release
 * @throws RunnerError `SOURCE_…`, and what the release is refused for
 */
export async function endOfRelease(
  target: Pick<Target, "driver" | "releases" | "stream">,
  { rootVersion }: Pick<StreamState, "rootVersion">,
  digest: string,
  now: Date,
  signal: AbortSignal,
): Promise<ChainEnd | undefined> {
  try {
    const facts = { highWaterMark: null, rootVersion };
    const { migrations } = await fetchRelease(target, facts, { expected: digest, now }, signal);
    return { length: migrations.length, head: migrations.at(-1)?.chain ?? emptyChain(target.stream) };
  } catch (thrown) {
    if (thrown instanceof RunnerError && thrown.code === "RELEASE_NOT_FOUND") return undefined;
    throw thrown;
  }
}
