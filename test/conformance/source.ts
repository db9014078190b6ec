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
  readonly put: (
    key: string,
    bytes: Uint8Array,
    options?: { readonly contentEncoding?: string },
  ) => Promise<void>;
  /** Puts an object outside the source, whose whole name begins like those inside it. */
  readonly putBeside: (key: string, bytes: Uint8Array) => Promise<void>;
}

/** Opens a new source for each call. `versioning` asks for one that keeps old states, where there is such a thing. */
export type OpenSourceUnderTest = (options?: { readonly versioning?: boolean }) => Promise<SourceUnderTest>;

const { signal } = new AbortController();
const maxBytes = 1024 * 1024;

/**
 * What every source promises; the numbers are for talking about them.
 *
 * @param openMissing - a source in a bucket or folder that does not exist
 */
export function sourceSuite(
  name: string,
  open: OpenSourceUnderTest,
  openMissing: () => Promise<WritableSource>,
): void {
  // oxlint-disable-next-line vitest/valid-title -- the caller's
  describe(name, () => {
    test(
      "1. lists every object of more than one page, in code-unit order",
      { timeout: 120_000 },
      async () => {
        const { source, put } = await open();
        // 1,050 numbers without padding, and names that case, folding or UTF-8 order would place elsewhere.
        const names = Array.from({ length: 1_050 }, (_, index) => `${index}_t.up.sql`);
        const keys = [...names, "A.sql", "_.sql", "a.sql", "\u{1F600}.sql", "～.sql", "é.sql"];
        await inParallel(keys, (key) => put(key, Buffer.from(key)));
        const listed = await source.list("", signal);
        expect(listed.map(({ key }) => key)).toEqual(keys.toSorted());
        expect(listed.every(({ key, size }) => size === Buffer.byteLength(key))).toBe(true);
      },
    );

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
      const folders = async (prefix: string) => {
        const found: string[] = [];
        await source.list(prefix, signal, (name) => found.push(name));
        return found;
      };
      expect(await folders("")).toEqual(["releases/"]);
      expect(await folders("releases/")).toEqual(["releases/old/"]);
      expect(await folders("he")).toEqual([]);
    });

    test("3. lists nothing where nothing is", async () => {
      const { source } = await open();
      expect(await source.list("", signal)).toEqual([]);
    });

    test.for(["head.json", "deep", "deep/er", "deep/er.sql/x"])(
      "4. gives undefined for %s, which does not exist",
      async (key) => {
        const { source, put } = await open();
        await put("deep/er.sql", Buffer.from("x"));
        expect(await source.read(key, { maxBytes }, signal)).toBeUndefined();
        expect(await source.readIfChanged(key, undefined, { maxBytes }, signal)).toBeUndefined();
      },
    );

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
        const read = await source.read(key, { maxBytes }, signal);
        expect([key, read?.bytes.equals(bytes)]).toEqual([key, true]);
      }
    });

    test("7. does not decompress what is stored with a content encoding", async () => {
      const { source, put } = await open();
      const bomb = gzipSync(Buffer.alloc(10 * maxBytes));
      await put("bomb.sql", bomb, { contentEncoding: "gzip" });
      expect((await source.read("bomb.sql", { maxBytes: bomb.length }, signal))?.bytes.equals(bomb)).toBe(
        true,
      );
    });

    test("8. reads a body of exactly the ceiling, and refuses one byte more", async () => {
      const { source, put } = await open();
      await put("a.sql", Buffer.alloc(1_000, "x"));
      expect((await source.read("a.sql", { maxBytes: 1_000 }, signal))?.bytes).toHaveLength(1_000);
      await refuses("TOO_LARGE", source.read("a.sql", { maxBytes: 999 }, signal));
      await refuses("TOO_LARGE", source.readIfChanged("a.sql", undefined, { maxBytes: 999 }, signal));
    });

    test("9. reads the state that a version names, or none", async () => {
      const { source, put } = await open();
      await put("a.sql", Buffer.from("old"));
      const versions = [(await source.list("", signal))[0]?.version, (await text(source, "a.sql")).version];
      for (const version of versions)
        expect(await text(source, "a.sql", version)).toMatchObject({ text: "old" });
      await put("a.sql", Buffer.from("new"));
      for (const version of versions) {
        await refuses("SOURCE_CHANGED", source.read("a.sql", { maxBytes, ...pin(version) }, signal));
        await refuses("SOURCE_CHANGED", source.read("never.sql", { maxBytes, ...pin(version) }, signal));
      }
    });

    test("9a. reads the old state that a read named, where old states are kept", async () => {
      const { source, put, keepsVersions } = await open({ versioning: true });
      await put("a.sql", Buffer.from("old"));
      const { version } = await text(source, "a.sql");
      await put("a.sql", Buffer.from("new"));
      const outcome = await text(source, "a.sql", version).catch((error: unknown) => error);
      expect(outcome).toMatchObject(keepsVersions ? { text: "old" } : { code: "SOURCE_CHANGED" });
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
      expect(await source.write("blobs/sha256-aa", Buffer.from("late"), { absent: true }, signal)).toBe(
        "conflict",
      );
    });

    test("12. lets exactly one of 20 racing writers replace a state", async () => {
      const { source } = await open();
      const first = { version: await create(source, "head.json", Buffer.from("first")) };
      const bodies = Array.from({ length: 20 }, (_, index) => Buffer.from(`writer ${index}`));
      const outcomes = await Promise.all(
        bodies.map((bytes) => source.write("head.json", bytes, first, signal)),
      );
      const winners = bodies.filter((_, index) => outcomes[index] !== "conflict");
      expect(winners).toHaveLength(1);
      const now = await text(source, "head.json");
      expect(now.text).toBe(String(winners[0]));
      expect(await source.write("head.json", Buffer.from("stale"), first, signal)).toBe("conflict");
      expect(await source.write("none.json", Buffer.from("stale"), first, signal)).toBe("conflict");
      expect(await source.read("none.json", { maxBytes }, signal)).toBeUndefined();
      expect(await source.write("head.json", Buffer.from("next"), now, signal)).not.toBe("conflict");
    });

    test("13. gives with a write the version that a read of it gives", async () => {
      const { source } = await open();
      const bytes = Buffer.alloc(3_000_000, "large");
      const version = await create(source, "packs/sha256-aa", bytes);
      const read = await source.read("packs/sha256-aa", { maxBytes: bytes.length }, signal);
      expect(read?.bytes.equals(bytes)).toBe(true);
      expect(read?.version).toBe(version);
      const replaced = await source.write("packs/sha256-aa", Buffer.alloc(0), { version }, signal);
      expect(replaced).toEqual({ version: (await text(source, "packs/sha256-aa")).version });
    });

    test("14. reads and writes as many objects at once as a runner does", async () => {
      const { source } = await open();
      const keys = Array.from(
        { length: 4 * sourceLimits.concurrency },
        (_, index) => `blobs/sha256-${index}`,
      );
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
        expect(await text(source, key)).toMatchObject({ text: key });
        const version = await create(source, `new ${key}`, Buffer.from(key));
        expect(await text(source, `new ${key}`)).toEqual({ text: key, version });
      }
      const listed = (await source.list("", signal)).map(({ key }) => key);
      expect(listed).toEqual(
        [...keys.slice(0, 4), ...keys.slice(0, 4).map((key) => `new ${key}`)].toSorted(),
      );
    });

    test.for(["", "/a", "a/", "a//b", "../a", "a/../../b", ".", "a/./b", "a\u0000b", "a\nb", "..\\a"])(
      "16. refuses the key %j",
      async (key) => {
        const { source } = await open();
        const calls = [
          source.read(key, { maxBytes }, signal),
          source.readIfChanged(key, undefined, { maxBytes }, signal),
          source.write(key, Buffer.from("x"), { absent: true }, signal),
        ];
        for (const call of await Promise.allSettled(calls)) {
          expect(call).toMatchObject({ status: "rejected", reason: { code: "SOURCE_UNSAFE" } });
        }
      },
    );

    test("18. says that its bucket or folder does not exist, and makes none", async () => {
      const version = await create((await open()).source, "a.sql", Buffer.from("a"));
      const source = await openMissing();
      const calls = [
        source.write("a.sql", Buffer.from("a"), { absent: true }, signal),
        source.write("a.sql", Buffer.from("a"), { version }, signal),
        source.list("", signal),
        source.read("a.sql", { maxBytes }, signal),
        source.read("a.sql", { maxBytes, version }, signal),
        source.readIfChanged("a.sql", undefined, { maxBytes }, signal),
      ];
      for (const call of await Promise.allSettled(calls)) {
        expect(call).toMatchObject({ status: "rejected", reason: { code: "SOURCE_NOT_FOUND" } });
      }
    });

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

async function refuses(code: RunnerErrorCode, promise: Promise<unknown>): Promise<void> {
  await expect(promise).rejects.toMatchObject({ name: "RunnerError", code });
}

/** An object that is there, as text. */
async function text(
  source: WritableSource,
  key: string,
  version?: string,
): Promise<{ text: string; version: string }> {
  const object = await source.read(key, { maxBytes, ...pin(version) }, signal);
  if (object === undefined) throw new Error(`${key} is not there`);
  return { text: String(object.bytes), version: object.version };
}

function pin(version: string | undefined): { version?: string } {
  return version === undefined ? {} : { version };
}

/** Creates an object, and gives its version. */
async function create(source: WritableSource, key: string, bytes: Uint8Array): Promise<string> {
  const written = await source.write(key, bytes, { absent: true }, signal);
  if (written === "conflict") throw new Error(`${key} was there already`);
  return written.version;
}

/** All of them, `sourceLimits.concurrency` at once. */
async function inParallel<T>(items: readonly T[], act: (item: T) => Promise<unknown>): Promise<void> {
  const rest = items.values();
  const worker = async () => {
    for (const item of rest) await act(item);
  };
  await Promise.all(Array.from({ length: sourceLimits.concurrency }, worker));
}
