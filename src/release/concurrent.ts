/**
 * Applies `act` to every item, at most `limit` at once, and gives the results in the items' order.
 *
 * The first failure ends it: no further item is begun, the signal given to those under way aborts, and once
 * they have settled that failure is thrown. An abort of `signal` ends it likewise, with the signal's reason.
 */
export async function mapConcurrently<T, R>(
  items: readonly T[],
  limit: number,
  signal: AbortSignal,
  act: (item: T, signal: AbortSignal) => Promise<R>,
): Promise<R[]> {
  signal.throwIfAborted();
  const results: R[] = [];
  const stop = new AbortController();
  const failures: unknown[] = [];
  const onAbort = (): void => fail(signal.reason);
  const fail = (reason: unknown): void => {
    failures.push(reason);
    stop.abort(reason);
  };
  let next = 0;
  const worker = async (): Promise<void> => {
    while (failures.length === 0 && next < items.length) {
      const index = next++;
      try {
        results[index] = await act(items[index] as T, stop.signal);
      } catch (error) {
        fail(error);
      }
    }
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  if (failures.length > 0) throw failures[0];
  return results;
}
