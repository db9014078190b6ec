import { RunnerError } from "../error.ts";
import type { HttpContext, HttpParts } from "./context.ts";

/**
 * Counts one more watcher while `watch` goes on; its signal aborts when the caller leaves or the server stops.
 *
 * @throws RunnerError `RATE_LIMITED` — too many are open in this process
 */
export async function whileWatching<T>(
  c: HttpContext,
  parts: HttpParts,
  watch: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const close = openWatcher(parts);
  try {
    return await watch(AbortSignal.any([c.req.raw.signal, parts.signal]));
  } finally {
    close();
  }
}

/** Whether one more caller may wait. */
export function isWatchable(parts: HttpParts): boolean {
  return parts.watchers.open < parts.limits.watchers;
}

/** Counts one more watcher until the returned function is called, which may happen more than once. */
export function openWatcher(parts: HttpParts): () => void {
  if (!isWatchable(parts)) {
    throw new RunnerError("RATE_LIMITED", "too many callers are waiting on this server", {
      hint: "try again soon, or wait on another replica",
      fields: { retryAfterSeconds: 5 },
    });
  }
  parts.watchers.open++;
  let isOpen = true;
  return () => {
    if (isOpen) parts.watchers.open--;
    isOpen = false;
  };
}
