import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { readCapped } from "../../src/http/read-capped.ts";

const maxBytes = 256 * 1024;

/** A body in chunks of so many bytes; `end` is waited for before it closes. */
function bodyOf(size: number, chunk: number, end: Promise<void> = Promise.resolve()): ReadableStream {
  let sent = 0;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const length = Math.min(chunk, size - sent);
      if (length === 0) {
        await end;
        controller.close();
        return;
      }
      controller.enqueue(new Uint8Array(length).fill(sent % 251));
      sent += length;
    },
  });
}

describe("a body", () => {
  test.for([
    [0, 1],
    [1, 1],
    [1_025, 1_000],
    [5_000, 7],
    [maxBytes, 65_536],
  ] as const)("of %i bytes in pieces of %i is what was sent", async ([size, chunk]) => {
    const wanted = Buffer.from(
      Array.from({ length: size }, (_, at) => (Math.floor(at / chunk) * chunk) % 251),
    );
    expect((await readCapped(bodyOf(size, chunk), maxBytes))?.equals(wanted)).toBe(true);
  });

  test("above the ceiling is nothing, however it is cut", async () => {
    for (const chunk of [1_000, maxBytes, 2 * maxBytes])
      expect(await readCapped(bodyOf(maxBytes + 1, chunk), maxBytes)).toBeUndefined();
  });

  test(
    "that is sent byte by byte costs its bytes in memory, and no object for each",
    { timeout: 90_000 },
    async () => {
      setFlagsFromString("--expose-gc");
      const collect = runInNewContext("gc") as () => void;
      const heap = (): number => {
        collect();
        const { heapUsed, arrayBuffers } = process.memoryUsage();
        return heapUsed + arrayBuffers;
      };
      const { promise: end, resolve } = Promise.withResolvers<void>();
      const count = 8;
      let read = 0;
      const before = heap();
      const bodies = Array.from({ length: count }, () =>
        readCapped(bodyOf(60_000, 1, end), maxBytes, (bytes) => (read += bytes)),
      );
      await expect.poll(() => read, { timeout: 60_000 }).toBe(count * 60_000);
      expect(heap() - before).toBeLessThan(16 * 1024 * 1024);
      resolve();
      expect((await Promise.all(bodies)).map((body) => body?.length)).toEqual(bodies.map(() => 60_000));
    },
  );
});
