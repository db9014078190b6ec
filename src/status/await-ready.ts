import type { StreamState } from "../driver/stream-state.ts";
import type { RunnerError, RunnerErrorCode } from "../error.ts";
import type { Target } from "../run/target.ts";
import { askUntil, lookAt, type AskOptions } from "./ask-until.ts";

/**
 * What a moment later may be over without anybody doing anything: a server that starts, fails over or has no free slot,
 * a name that is not known yet, a network that is not there yet. Not a wrong password, a missing database, a
 * certificate that does not hold, a bucket that is not ours to read: waiting would only hide it.
 */
const passing: ReadonlySet<RunnerErrorCode> = new Set([
  "DATABASE_UNAVAILABLE",
  "DATABASE_READ_ONLY",
  "SOURCE_UNAVAILABLE",
  "TRUNCATED",
  "LEASE_LOST",
]);

/** Whether waiting may help against an error. */
export function isPassing({ code }: Pick<RunnerError, "code">): boolean {
  return passing.has(code);
}

/** What a target says when it answers. */
export interface Ready {
  readonly state: StreamState;
  /** what the bucket calls its newest release; undefined where it was not asked, or does not say */
  readonly newest: string | undefined;
}

/**
 * Waits until a target's database answers, and its bucket too, where the database does not have `release` already.
 *
 * @param release - digest that is wanted; undefined for the newest
 * @throws RunnerError what is no matter of time; `DATABASE_UNAVAILABLE`, `SOURCE_UNAVAILABLE` … when the time is over
 */
export function awaitReady(
  target: Pick<Target, "driver" | "releases" | "stream">,
  release: string | undefined,
  options: AskOptions,
): Promise<Ready> {
  const look = async (signal: AbortSignal): Promise<Ready> => {
    const state = await target.driver.state(target.stream, signal);
    const isThere = release !== undefined && state.completed === release;
    return { state, newest: isThere ? undefined : await target.releases.head(signal) };
  };
  return askUntil((signal) => lookAt(look, signal, isPassing), options);
}
