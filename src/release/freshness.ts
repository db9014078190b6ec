import { RunnerError } from "../error.ts";
import type { Source } from "../source/source.ts";
import { assertNotExpired } from "./expiry.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import type { HighWaterMark, Release } from "./release.ts";
import { assertNotStale, verifyTimestamp } from "./timestamp.ts";
import type { TimestampExpectations } from "./timestamp.ts";

/**
 * Refuses what may be out of date. Asked only where something is pending: neither expiry nor a timestamp that is missing
 * stops a database that is where it should be.
 *
 * @throws RunnerError `RELEASE_EXPIRED`, and what {@link Release.stale} holds
 */
export function assertFresh(release: Release, now: Date): void {
  assertNotExpired(release, now);
  if (release.stale !== undefined) throw release.stale;
}

/** Why {@link assertFresh} would refuse a release; null where it would not. */
export function whyNotFresh(release: Release, now: Date): RunnerError | null {
  try {
    assertFresh(release, now);
    return null;
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
}

/** What a bucket answered that was asked for its timestamp: bytes, nothing, or why there will be none. */
export type TimestampAnswer = Buffer | RunnerError | undefined;

/**
 * Asks for the timestamp. That it is too large, or that nobody may read it, is an answer: whether it is needed is not known yet.
 *
 * @throws RunnerError `SOURCE_…` — the bucket could not be asked, and may be asked again
 */
export async function requestTimestamp(source: Source, signal: AbortSignal): Promise<TimestampAnswer> {
  try {
    const limit = { maxBytes: releaseLimits.timestampBytes };
    return (await source.read(layout.timestamp, limit, signal))?.bytes;
  } catch (error) {
    if (error instanceof RunnerError && !error.retryable) return error;
    throw error;
  }
}

/** Why nobody vouches for a release; undefined where somebody does. */
export function whyStale(
  release: HighWaterMark,
  answer: TimestampAnswer,
  expectations: TimestampExpectations,
): RunnerError | undefined {
  if (answer instanceof RunnerError) return answer;
  try {
    assertNotStale(release, verifyTimestamp(answer, expectations));
    return undefined;
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
}
