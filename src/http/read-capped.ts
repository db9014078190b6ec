/** What a body begins with in memory; most are smaller than a few of these. */
const firstBytes = 1024;

/**
 * A stream's bytes, counted as they arrive: what a header says of their length is only what the sender says. They are
 * copied together at once, because a sender who writes byte by byte would have every single one kept as an object.
 *
 * @param onBytes - told of so many more bytes before they are kept; what it throws ends the reading
 * @returns undefined when there are more than `maxBytes`; the rest is not read
 */
export async function readCapped(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
  onBytes: (bytes: number) => void = () => undefined,
): Promise<Buffer | undefined> {
  let kept = Buffer.alloc(0);
  let size = 0;
  for await (const chunk of body ?? []) {
    const next = size + chunk.byteLength;
    if (next > maxBytes) return undefined;
    onBytes(chunk.byteLength);
    if (next > kept.length) {
      const larger = Buffer.alloc(Math.min(maxBytes, Math.max(firstBytes, 2 * next)));
      kept.copy(larger, 0, 0, size);
      kept = larger;
    }
    kept.set(chunk, size);
    size = next;
  }
  return kept.subarray(0, size);
}
