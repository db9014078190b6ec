import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { RunnerErrorCode } from "../../src/error.ts";
import { sourceLimits, type WritableSource } from "../../src/source/source.ts";

/** A source with nothing in it, and a way around it. */
export interface SourceUnderTest {
  readonly source: WritableSource;
  /** old states of an object stay readable after it is replaced */
  readonly keepsVersions: boolean;
  /** Puts an object as some other program would. */
  put(key: string, bytes: Uint8Array, options?: { readonly contentEncoding?: string }): Promise<void>;
  /** Puts an object outside the source, whose whole name begins like those inside it. */
  putBeside(key: string, bytes: Uint8Array): Promise<void>;
}

/** Opens a new source for each call. `versioning` asks for one that keeps old states, where there is such a thing. */
export type OpenSourceUnderTest = (options?: { readonly versioning?: boolean }) => Promise<SourceUnderTest>;

const { signal } = new AbortController();
const maxBytes = 1024 * 1024;

/** What every source promises; the numbers are for talking about them. */
export function sourceSuite(name: string, open: OpenSourceUnderTest): void {
  describe(name, () => {
    test("1. lists every object of more than one page, in code-unit order", { timeout: 120_000 }, async () => {
      const { source, put } = await open();
      // 1,050 numbers without padding, and names that case, folding or UTF-8 order would place elsewhere.
      const names = Array.from({ length: 1_050 }, (_, index) => `${index}_t.up.sql`);
      const keys = [...names, "A.sql", "_.sql", "a.sql", "\u{1F600}.sql", "～.sql", "é.sql"];
      await inParallel(keys, (key) => put(key, Buffer.from(key)));
      const listed = await source.list("", signal);
      expect(listed.map(({ key }) => key)).toEqual(keys.toSorted());
      expect(listed.every(({ key, size }) => size === Buffer.byteLength(key))).toBe(true);
    });

    test("2. lists what is directly under a prefix, and nothing beside or below it", async () => {
      const { source, put, putBeside } = await open();
      await put("head.json", Buffer.from("h"));
      await put("releases/sha256-aa", Buffer.from("a"));
      await put("releases/sha256-ab", Buffer.from("b"));
      await put("releases/old/sha256-ac", Buffer.from("c"));
      await putBeside("x.sql", Buffer.from("beside"));
      const keys = async (prefix: string) => (await source.list(prefix, signal)).map(({ key }) => key);
      expect(await keys("")).toEqual(["head.json"]);
      expect(await keys("he")).toEqual(["head.json"]);
      expect(await keys("releases/")).toEqual(["releases/sha256-aa", "releases/sha256-ab"]);
      expect(await keys("releases/sha256-aa")).toEqual(["releases/sha256-aa"]);
      expect(await keys("none/")).toEqual([]);
    });

    test("3. lists nothing where nothing is", async () => {
      const { source } = await open();
      expect(await source.list("", signal)).toEqual([]);
    });

    test("4. gives undefined for an object that does not exist", async () => {
      const { source, put } = await open();
      await put("deep/er.sql", Buffer.from("x"));
      for (const key of ["head.json", "deep", "deep/er", "deep/er.sql/x"]) {
        expect(await source.read(key, { maxBytes }, signal), key).toBeUndefined();
        expect(await source.readIfChanged(key, undefined, { maxBytes }, signal), key).toBeUndefined();
      }
    });

    test("5. gives no bytes for an empty object", async () => {
      const { source, put } = await open();
      await put("empty.sql", Buffer.alloc(0));
      expect((await source.read("empty.sql", { maxBytes: 0 }, signal))?.bytes).toEqual(Buffer.alloc(0));
      expect(await source.list("", signal)).toMatchObject([{ key: "empty.sql", size: 0 }]);
    });

    test("6. gives exactly the bytes that another program stored", async () => {
      const { source, put } = await open();
      const bodies = {
        "all.bin": Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
        "crlf.sql": Buffer.from("\uFEFFSELECT 1;\r\n\r\n"),
        "large.bin": Buffer.alloc(700_000, "0123456789abcdef~"),
        "zipped.gz": gzipSync("SELECT 1;"),
      };
      for (const [key, bytes] of Object.entries(bodies)) {
        await put(key, bytes);
        expect((await source.read(key, { maxBytes }, signal))?.bytes.equals(bytes), key).toBe(true);
      }
    });

    test("7. does not decompress what is stored with a content encoding", async () => {
      const { source, put } = await open();
      const bomb = gzipSync(Buffer.alloc(10 * maxBytes));
      await put("bomb.sql", bomb, { contentEncoding: "gzip" });
      expect((await source.read("bomb.sql", { maxBytes: bomb.length }, signal))?.bytes.equals(bomb)).toBe(true);
    });

    test("8. reads a body of exactly the ceiling, and refuses one byte more", async () => {
      const { source, put } = await open();
      await put("a.sql", Buffer.alloc(1_000, "x"));
      expect((await source.read("a.sql", { maxBytes: 1_000 }, signal))?.bytes).toHaveLength(1_000);
      await refuses("TOO_LARGE", source.read("a.sql", { maxBytes: 999 }, signal));
      await refuses("TOO_LARGE", source.readIfChanged("a.sql", undefined, { maxBytes: 999 }, signal));
    });

    test.for([false, true])("9. reads the state that a version names, or none (kept: %s)", async (versioning) => {
      const { source, put, keepsVersions } = await open({ versioning });
      await put("a.sql", Buffer.from("old"));
      const [listed] = await source.list("", signal);
      const read = await source.read("a.sql", { maxBytes }, signal);
      expect(String((await source.read("a.sql", { maxBytes, version: listed!.version }, signal))?.bytes)).toBe("old");
      expect(String((await source.read("a.sql", { maxBytes, version: read!.version }, signal))?.bytes)).toBe("old");
      await put("a.sql", Buffer.from("new"));
      // A listing names no version ids: such a pin holds only as long as the object is the same.
      await refuses("SOURCE_CHANGED", source.read("a.sql", { maxBytes, version: listed!.version }, signal), keepsVersions);
      const pinned = source.read("a.sql", { maxBytes, version: read!.version }, signal);
      if (keepsVersions) expect(String((await pinned)?.bytes)).toBe("old");
      else await refuses("SOURCE_CHANGED", pinned);
      await refuses("SOURCE_CHANGED", source.read("gone.sql", { maxBytes, version: listed!.version }, signal));
    });

    test("10. says unchanged, or gives the object as it is now", async () => {
      const { source, put } = await open();
      await put("head.json", Buffer.from("one"));
      const first = await source.read("head.json", { maxBytes }, signal);
      expect(await source.readIfChanged("head.json", first?.version, { maxBytes }, signal)).toBe("unchanged");
      await put("head.json", Buffer.from("two"));
      const second = await source.readIfChanged("head.json", first?.version, { maxBytes }, signal);
      if (second === undefined || second === "unchanged") throw new Error("the new object was not read");
      expect(String(second.bytes)).toBe("two");
      expect(await source.readIfChanged("head.json", second.version, { maxBytes }, signal)).toBe("unchanged");
      expect(await source.readIfChanged("head.json", undefined, { maxBytes }, signal)).toMatchObject({
        version: second.version,
      });
    });

    test("11. lets exactly one of 20 racing writers create an object", async () => {
      const { source } = await open();
      const bodies = Array.from({ length: 20 }, (_, index) => Buffer.from(`writer ${index}`));
      const outcomes = await Promise.all(
        bodies.map((bytes) => source.write("blobs/sha256-aa", bytes, { absent: true }, signal)),
      );
      const winners = bodies.filter((_, index) => outcomes[index] !== "conflict");
      expect(winners).toHaveLength(1);
      expect((await source.read("blobs/sha256-aa", { maxBytes }, signal))?.bytes).toEqual(winners[0]);
      expect(await source.write("blobs/sha256-aa", Buffer.from("late"), { absent: true }, signal)).toBe("conflict");
    });

    test("12. lets exactly one of 20 racing writers replace a state", async () => {
      const { source } = await open();
      const first = await source.write("head.json", Buffer.from("first"), { absent: true }, signal);
      if (first === "conflict") throw new Error("could not create");
      const bodies = Array.from({ length: 20 }, (_, index) => Buffer.from(`writer ${index}`));
      const outcomes = await Promise.all(bodies.map((bytes) => source.write("head.json", bytes, first, signal)));
      const winners = bodies.filter((_, index) => outcomes[index] !== "conflict");
      expect(winners).toHaveLength(1);
      const now = await source.read("head.json", { maxBytes }, signal);
      expect(now?.bytes).toEqual(winners[0]);
      expect(await source.write("head.json", Buffer.from("stale"), first, signal)).toBe("conflict");
      expect(await source.write("none.json", Buffer.from("stale"), first, signal)).toBe("conflict");
      expect(await source.read("none.json", { maxBytes }, signal)).toBeUndefined();
      expect(await source.write("head.json", Buffer.from("next"), { version: now!.version }, signal)).not.toBe("conflict");
    });

    test("13. gives with a write the version that a read of it gives", async () => {
      const { source } = await open();
      const bytes = Buffer.alloc(3_000_000, "large");
      const written = await source.write("packs/sha256-aa", bytes, { absent: true }, signal);
      const read = await source.read("packs/sha256-aa", { maxBytes: bytes.length }, signal);
      expect(read?.bytes.equals(bytes)).toBe(true);
      expect(written).toEqual({ version: read?.version });
      const replaced = await source.write("packs/sha256-aa", Buffer.alloc(0), { version: read!.version }, signal);
      expect(await source.read("packs/sha256-aa", { maxBytes }, signal)).toMatchObject(replaced);
    });

    test("14. reads and writes as many objects at once as a runner does", async () => {
      const { source } = await open();
      const keys = Array.from({ length: 4 * sourceLimits.concurrency }, (_, index) => `blobs/sha256-${index}`);
      await inParallel(keys, (key) => source.write(key, Buffer.from(key), { absent: true }, signal));
      await inParallel(keys, async (key) => {
        expect(String((await source.read(key, { maxBytes }, signal))?.bytes)).toBe(key);
      });
    });

    test("15. takes names that need escaping", async () => {
      const { source, put } = await open();
      const keys = ["a b+c.sql", "100%25.sql", "é&=?#.sql", "x~!*'().sql", "deep er/α β.sql"];
      for (const key of keys) {
        await put(key, Buffer.from(key));
        expect(String((await source.read(key, { maxBytes }, signal))?.bytes)).toBe(key);
        const written = await source.write(`new ${key}`, Buffer.from(key), { absent: true }, signal);
        expect(await source.read(`new ${key}`, { maxBytes }, signal)).toMatchObject(written);
      }
      const listed = (await source.list("", signal)).map(({ key }) => key);
      expect(listed).toEqual([...keys.slice(0, 4), ...keys.slice(0, 4).map((key) => `new ${key}`)].toSorted());
    });

    test.for(["", "/a", "a/", "a//b", "../a", "a/../../b", ".", "a/./b", "a\u0000b", "a\nb", "..\\a"])(
      "16. refuses the key %j",
      async (key) => {
        const { source } = await open();
        await refuses("SOURCE_UNSAFE", source.read(key, { maxBytes }, signal));
        await refuses("SOURCE_UNSAFE", source.readIfChanged(key, undefined, { maxBytes }, signal));
        await refuses("SOURCE_UNSAFE", source.write(key, Buffer.from("x"), { absent: true }, signal));
      },
    );

    test("17. stops at once when it is told to, with the reason it was given", async () => {
      const { source, put } = await open();
      await put("a.sql", Buffer.alloc(700_000, "x"));
      const reason = new Error("no longer wanted");
      const calls = (given: AbortSignal) => [
        source.list("", given),
        source.read("a.sql", { maxBytes }, given),
        source.readIfChanged("a.sql", undefined, { maxBytes }, given),
        source.write("b.sql", Buffer.from("b"), { absent: true }, given),
      ];
      for (const call of calls(AbortSignal.abort(reason))) await expect(call).rejects.toBe(reason);
      const controller = new AbortController();
      const reads = Array.from({ length: 100 }, () => source.read("a.sql", { maxBytes }, controller.signal));
      const outcomes = Promise.allSettled(reads);
      controller.abort(reason);
      expect(await outcomes).toEqual(reads.map(() => ({ status: "rejected", reason })));
      expect(await source.read("b.sql", { maxBytes }, signal)).toBeUndefined();
    });
  });
}

async function refuses(code: RunnerErrorCode, promise: Promise<unknown>, isOldToo = false): Promise<void> {
  // Where a listing already names a kept state, its old bytes are as good an answer.
  const outcome = await promise.catch((error: unknown) => error);
  if (isOldToo && !(outcome instanceof Error)) return;
  expect(outcome).toMatchObject({ name: "RunnerError", code });
}

/** All of them, `sourceLimits.concurrency` at once. */
async function inParallel<T>(items: readonly T[], act: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items.values();
  const worker = async () => {
    for (const item of rest) await act(item);
  };
  await Promise.all(Array.from({ length: sourceLimits.concurrency }, worker));
}
