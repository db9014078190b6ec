/** What is reserved at first; most that is read is smaller than a few of these. */
const firstBytes = 1024;

/**
 * Bytes that arrive in pieces, copied together at once: whoever sends byte by byte would otherwise have every single one
 * kept as an object of its own, at some hundred times its size.
 */
export class GrowingBytes {
  readonly #most: number;
  #kept = Buffer.alloc(0);
  #length = 0;

  /** @param most - that are ever added, so that no more is reserved than that */
  constructor(most: number) {
    this.#most = most;
  }

  get length(): number {
    return this.#length;
  }

  add(piece: Uint8Array): void {
    const next = this.#length + piece.byteLength;
    if (next > this.#kept.length) {
      const larger = Buffer.alloc(Math.max(next, Math.min(this.#most, Math.max(firstBytes, 2 * next))));
      this.#kept.copy(larger, 0, 0, this.#length);
      this.#kept = larger;
    }
    this.#kept.set(piece, this.#length);
    this.#length = next;
  }

  /** All of them, in as much memory as they need. */
  whole(): Buffer {
    return this.#length === this.#kept.length
      ? this.#kept
      : Buffer.from(this.#kept.subarray(0, this.#length));
  }
}
