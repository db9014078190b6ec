import { GrowingBytes } from "../growing-bytes.ts";

/**
 * A stream's bytes, counted as they arrive: what a header says of their length is only what the sender says.
 *
 * @param onBytes - told of so many more bytes before they are kept; what it throws ends the reading
 * @returns undefined when there are more than `maxBytes`; the rest is not read
 */
export async function readCapped(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
  onBytes: (bytes: number) => void = () => undefined,
): Promise<Buffer | undefined> {
  const bytes = new GrowingBytes(maxBytes);
  for await (const chunk of body ?? []) {
    if (bytes.length + chunk.byteLength > maxBytes) return undefined;
    onBytes(chunk.byteLength);
    bytes.add(chunk);
  }
  return bytes.whole();
}
