import { RunnerError } from "../error.ts";
import type { RunRecord } from "../history/run.ts";
import type { Target } from "../runner.ts";
import type { HttpContext, HttpParts } from "./context.ts";
import { waitForEnd } from "./watch.ts";

/**
 * The run's record once it has ended, or as it is after `waitMs`; who does not wait takes no place.
 *
 * @throws RunnerError `UNKNOWN_RUN`, `DATABASE_…`; `RATE_LIMITED` — too many wait in this process, or too many of this caller's
 */
export async function runAfter(
  waitMs: number,
  runId: string,
  target: Target,
  c: HttpContext,
  parts: HttpParts,
): Promise<RunRecord> {
  const { active, limits } = parts;
  const wait = (signal: AbortSignal): Promise<RunRecord> =>
    waitForEnd(target, runId, waitMs, { active, limits, signal });
  if (waitMs === 0) return wait(parts.signal);
  const close = openWatcher(c, parts);
  try {
    return await wait(AbortSignal.any([c.req.raw.signal, parts.signal]));
  } finally {
    close();
  }
}

/** Whether the caller may wait. */
export function mayWatch(c: HttpContext, { watchers }: HttpParts): boolean {
  return watchers.hasPlaceFor(nameOf(c));
}

/**
 * Counts one more watcher until the returned function is called, which may happen more than once.
 *
 * @throws RunnerError `RATE_LIMITED` — as of {@link runAfter}
 */
export function openWatcher(c: HttpContext, parts: HttpParts): () => void {
  if (!mayWatch(c, parts)) {
    throw new RunnerError("RATE_LIMITED", "too many callers are waiting on this server", {
      hint: "try again soon, or wait on another replica",
      fields: { retryAfterSeconds: 5 },
    });
  }
  return parts.watchers.enter(nameOf(c));
}

function nameOf(c: HttpContext): string {
  const { issuer, subject } = c.get("principal");
  return JSON.stringify([issuer, subject]);
}
