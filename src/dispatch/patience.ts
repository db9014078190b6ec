import { RunnerError } from "../error.ts";

/**
 * Asks a database or bucket, for `ms` at the most, and not longer than the caller stays.
 *
 * @throws RunnerError `DEADLINE` — no answer within `ms`; `CANCELED` — the caller left
 */
export async function within<T>(
  ms: number,
  ask: (signal: AbortSignal) => Promise<T>,
  caller?: AbortSignal,
): Promise<T> {
  const patience = new AbortController();
  const leave = (): void => patience.abort(new RunnerError("CANCELED", "the caller left before the answer"));
  const timer = setTimeout(() => {
    patience.abort(
      new RunnerError("DEADLINE", `the database or bucket did not answer within ${Math.ceil(ms / 1000)} s`, {
        hint: "try again; if it lasts, look whether the database is overloaded or locked",
      }),
    );
  }, ms);
  if (caller?.aborted === true) leave();
  else caller?.addEventListener("abort", leave, { once: true });
  try {
    return await ask(patience.signal);
  } catch (thrown) {
    // Whatever a client library makes of an aborted signal, this is why it was.
    patience.signal.throwIfAborted();
    throw thrown;
  } finally {
    clearTimeout(timer);
    caller?.removeEventListener("abort", leave);
  }
}
