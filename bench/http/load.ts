/** What came of many requests, some of them at once. */
export interface Load {
  /** of each request, in the order in which they ended */
  readonly ms: readonly number[];
  readonly seconds: number;
}

/** How much of it, at the most. */
export interface LoadLimits {
  /** requests under way at once */
  readonly clients: number;
  readonly requests: number;
  readonly seconds: number;
}

/**
 * Sends requests one after the other from several clients at once, until one of the limits is reached.
 *
 * @param send - makes the `index`th request, by the `client`th client, and checks its answer
 */
export async function load(
  { clients, requests, seconds }: LoadLimits,
  send: (index: number, client: number) => Promise<void>,
): Promise<Load> {
  const ms: number[] = [];
  const began = performance.now();
  let next = 0;
  const client = async (_: unknown, number: number): Promise<void> => {
    while (next < requests && performance.now() - began < seconds * 1_000) {
      const index = next;
      next += 1;
      const sentAt = performance.now();
      await send(index, number);
      ms.push(performance.now() - sentAt);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { ms, seconds: (performance.now() - began) / 1_000 };
}
