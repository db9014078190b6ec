/** Messages of PostgreSQL's protocol, cut out of a stream of bytes. */

/** Type byte of a query by the simple protocol, and of the server's word that it waits for the next one. */
export const frameType = { query: 0x51, readyForQuery: 0x5a, backendKey: 0x4b } as const;

/** Collects bytes until they are whole messages. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);
  #isStart: boolean;

  /** @param hasStart - the first message has no type, as what a client sends first */
  constructor(hasStart: boolean) {
    this.#isStart = hasStart;
  }

  /** The messages that are whole with these bytes. */
  push(bytes: Buffer): readonly Buffer[] {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    const frames: Buffer[] = [];
    for (;;) {
      const at = this.#isStart ? 0 : 1;
      if (this.#rest.length < at + 4) return frames;
      const size = at + this.#rest.readInt32BE(at);
      if (this.#rest.length < size) return frames;
      frames.push(this.#rest.subarray(0, size));
      this.#rest = this.#rest.subarray(size);
      this.#isStart = false;
    }
  }
}

/** The text of a query message. */
export function queryText(frame: Buffer): string {
  return frame.subarray(5, -1).toString("utf8");
}

/** A query message with this text. */
export function queryFrame(text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  const frame = Buffer.alloc(bytes.length + 6);
  frame[0] = frameType.query;
  frame.writeInt32BE(bytes.length + 5, 1);
  bytes.copy(frame, 5);
  return frame;
}
