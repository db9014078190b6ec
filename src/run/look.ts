import type { Look, RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** The bucket's head and the database's row at once; a release that is asked for by its digest needs no head. */
export async function look(
  { release }: Pick<RunRequest, "release">,
  { driver, stream, releases }: Target,
  signal: AbortSignal,
): Promise<Look> {
  const [state, head] = await Promise.all([driver.state(stream, signal), release ?? releases.head(signal)]);
  return { state, head };
}

/** What a look that somebody else began comes to. Rejects with the signal's reason as soon as that aborts. */
export async function lookBegun(looked: Look | Promise<Look>, signal: AbortSignal): Promise<Look> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([looked, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
