import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError, type RunnerErrorCode } from "../error.ts";
import type { Target } from "../run/target.ts";
import { askUntil, lookAt, type AskOptions } from "./ask-until.ts";

/**
 * What a moment later may be over without anybody doing anything: a server that starts, fails over or has no free slot,
 * a name that is not known yet, a network that is not there yet. Not a wrong password, a missing database, a
 * certificate that does not hold: waiting would only hide it.
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

/**
 * Milliseconds in which a bucket's refusal is asked again: what gives a pod its identity (GKE's metadata server, EKS Pod
 * Identity) may be up some seconds after the pod.
 */
const identityMs = 30_000;

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
 * @param options - `deadlineMs`: also for a look that hangs
 * @throws RunnerError what is no matter of time; `DATABASE_UNAVAILABLE`, `SOURCE_UNAVAILABLE` … when the time is over
 */
export function awaitReady(
  target: Pick<Target, "driver" | "releases" | "stream">,
  release: string | undefined,
  options: AskOptions & { readonly deadlineMs?: number },
): Promise<Ready> {
  const deadline = performance.now() + (options.deadlineMs ?? Infinity);
  const identityBy = performance.now() + Math.min(identityMs, options.timeoutMs);
  const maySettle = (error: RunnerError): boolean =>
    isPassing(error) || (error.code === "SOURCE_DENIED" && performance.now() < identityBy);
  let isFirst = true;
  const look = async (signal: AbortSignal): Promise<Ready> => {
    const head = (): Promise<string | undefined> => target.releases.head(signal);
    // At once where most find both there; a bucket is not asked again and again while only the database is away.
    const asked = release === undefined && isFirst ? head() : undefined;
    asked?.catch(() => "the database's word counts first");
    isFirst = false;
    const state = await target.driver.state(target.stream, signal);
    if (release !== undefined && state.completed === release) return { state, newest: undefined };
    const newest = await (asked ?? head()).catch((error: unknown) => {
      if (signal.aborted) throw hangs(target.releases.url, error);
      // A release that is named needs no head: its bucket only has to be there.
      if (release === undefined || !(error instanceof RunnerError) || maySettle(error)) throw error;
      return undefined;
    });
    return { state, newest };
  };
  return askUntil((signal) => lookAt(look, signal, maySettle, deadline - performance.now()), options);
}

/** The database has answered by then. */
function hangs(url: string, cause: unknown): RunnerError {
  return new RunnerError("SOURCE_UNAVAILABLE", `${url} does not answer`, {
    hint: "check the network to the bucket: a NetworkPolicy, a proxy, a private endpoint",
    cause,
  });
}
