import { Readable } from "node:stream";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { collectBody, type ExpectedBody } from "../../src/source/body.ts";

const size = 300_000;

/** A body in pieces of one byte; the end waits. */
async function* drops(seen: { count: number }, end: Promise<void>): AsyncGenerator<Buffer> {
  for (; seen.count < size; seen.count += 1) yield Buffer.from([seen.count % 251]);
  await end;
}

describe("a bucket's body", () => {
  test.for([["announced"], ["not announced"]] as const)(
    "that comes byte by byte costs its bytes in memory, and no object for each: %s",
    { timeout: 90_000 },
    async ([how]) => {
      setFlagsFromString("--expose-gc");
      const collect = runInNewContext("gc") as () => void;
      const heap = (): number => {
        collect();
        const { heapUsed, arrayBuffers } = process.memoryUsage();
        return heapUsed + arrayBuffers;
      };
      const seen = { count: 0 };
      const { promise: end, resolve } = Promise.withResolvers<void>();
      const before = heap();
      const announced = how === "announced" ? size : undefined;
      const reading = collectBody(Readable.from(drops(seen, end)), {
        source: "s3://b",
        key: "k",
        maxBytes: 64 * 1024 * 1024,
        size: announced,
      });
      await expect.poll(() => seen.count, { timeout: 60_000 }).toBe(size);
      expect(heap() - before).toBeLessThan(16 * 1024 * 1024);
      resolve();
      const wanted = Buffer.from(Array.from({ length: size }, (_, at) => at % 251));
      expect((await reading).equals(wanted)).toBe(true);
    },
  );

  test("that comes in large pieces costs its bytes once: a piece is freed as soon as it was copied", async () => {
    const pieces = Array.from({ length: 100 }, (_, at) => Buffer.alloc(64 * 1024, at));
    const wanted = Buffer.concat(pieces);
    const read = await collectBody(Readable.from(pieces), announce(wanted.length));
    expect(pieces.map(({ length }) => length)).toEqual(pieces.map(() => 0));
    expect(read.equals(wanted)).toBe(true);
  });

  test("whose length is announced is collected where it stays, and never held twice", async () => {
    const mib = 1024 * 1024;
    const held = (): number => process.memoryUsage().arrayBuffers / mib;
    const before = held();
    let most = 0;
    function* pieces(): Generator<Buffer> {
      for (let at = 0; at < 32; at += 1) {
        yield Buffer.alloc(mib, at);
        most = Math.max(most, held() - before);
      }
    }
    const body = Readable.from(pieces(), { highWaterMark: 1 });
    expect(await collectBody(body, announce(32 * mib))).toHaveLength(32 * mib);
    expect(most).toBeLessThan(32 + 8);
  });

  test("that comes as parts of what others hold leaves those as they are", async () => {
    const held = Buffer.alloc(1024, "held");
    const parts = [held.subarray(0, 1000), held.subarray(1000)];
    const read = await collectBody(Readable.from(parts), announce(held.length));
    expect(read.equals(held)).toBe(true);
    expect(held.toString()).toBe("held".repeat(256));
  });
});

function announce(bytes: number): ExpectedBody {
  return { source: "s3://b", key: "k", maxBytes: bytes, size: bytes };
}
