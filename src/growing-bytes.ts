/** What is reserved at first; most that is read is smaller than a few of these. */
const firstBytes = 1024;

/**
 * Bytes that arrive in pieces, copied together at once: whoever sends byte by byte would otherwise have every single one
 * kept as an object of its own, at some hundred times its size.
 */
export class GrowingBytes {
  readonly #most: number;
  #kept: Buffer<ArrayBuffer>;
  #length = 0;

  /**
   * @param most - that are ever added, so that no more is reserved than that
   * @param expected - how many will probably come: reserved at once, so that nothing is copied, or held twice, to have room for more
   */
  constructor(most: number, expected = 0) {
    this.#most = most;
    this.#kept = Buffer.alloc(expected);
  }

  get length(): number {
    return this.#length;
  }

  add(piece: Uint8Array): void {
    const next = this.#length + piece.byteLength;
    if (next > this.#kept.length) {
      const larger = Math.max(next, Math.min(this.#most, Math.max(firstBytes, 2 * next)));
      // Unlike a copy, it frees what was reserved before.
      this.#kept = Buffer.from(this.#kept.buffer.transfer(larger));
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
