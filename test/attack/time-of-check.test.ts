import { execFileSync } from "node:child_process";
import { link, mkdir, open, rename, symlink, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, onTestFinished, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { layout } from "../../src/release/layout.ts";
import { releaseLimits } from "../../src/release/limits.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Source } from "../../src/source/source.ts";
import { createDatabase } from "../support/database.ts";
import {
  folderSource,
  makeKeys,
  never,
  overwrite,
  publishTo,
  recorded,
  tempFolder,
} from "../support/release.ts";
import { targetOn } from "../support/target.ts";
import { refusedOn, runOn, stateOf } from "./site.ts";

const files = {
  "0001_users.up.sql": "create table users (id int);",
  "0002_email.up.sql": "alter table users add email text;",
};

/** A folder with one release of `files` in it, gone when the test has ended. */
async function published() {
  const { key, trust } = makeKeys();
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const { digest } = await publishTo(folder.source, files, { keys: [key] });
  return { ...folder, key, trust, digest };
}

describe("a store that answers differently the second time", () => {
  test("38 is never asked a second time: what runs is what was verified", async () => {
    const database = await createDatabase();
    const { source, trust } = await published();
    const { source: watched, requests } = recorded(source);
    const asked = new Set<string>();
    const lying: Source = {
      ...watched,
      async read(key, options, signal) {
        const object = await watched.read(key, options, signal);
        if (object === undefined || !asked.has(key)) {
          asked.add(key);
          return object;
        }
        return { ...object, bytes: Buffer.from("create table owned ();") };
      },
    };
    expect(await runOn(database, { source: lying, trust })).toMatchObject({ outcome: "applied" });
    expect(requests.toSorted()).toEqual([...new Set(requests)].toSorted());
    expect(requests).toHaveLength(5);
    const history = await database.query<{ path: string; sha256: string }>(
      "SELECT path, sha256 FROM lockkeeper.history ORDER BY seq",
    );
    expect(history).toEqual(Object.entries(files).map(([path, text]) => ({ path, sha256: sha256Hex(text) })));
    expect(await database.query("SELECT 1 FROM pg_tables WHERE tablename = 'owned'")).toEqual([]);
  });

  test("38 is asked anew by the next run, which takes nothing that it changed meanwhile", async () => {
    const database = await createDatabase();
    const bucket = await published();
    expect(await runOn(database, bucket)).toMatchObject({ outcome: "applied" });
    const more = { ...files, "0003_more.up.sql": "create table more ();" };
    await publishTo(bucket.source, more, { keys: [bucket.key] });
    await overwrite(
      bucket.source,
      layout.blob(sha256Hex(more["0003_more.up.sql"])),
      Buffer.from("drop table users;"),
    );
    expect(await refusedOn(database, bucket)).toBe("BLOB_DIGEST");
  });
});

describe("a folder on disk", () => {
  const take = (folder: string, key: string) => folderSource(folder).read(key, { maxBytes: 1 << 20 }, never);
  const unsafe = { code: "SOURCE_UNSAFE" };

  test("39 with a body behind a symbolic link that leads out is SOURCE_UNSAFE, and nothing is applied", async () => {
    const database = await createDatabase();
    const bucket = await published();
    const outside = await tempFolder({ secret: files["0001_users.up.sql"] });
    onTestFinished(() => outside[Symbol.asyncDispose]());
    const blob = path.join(bucket.path, layout.blob(sha256Hex(files["0001_users.up.sql"])));
    await rename(blob, `${blob}.away`);
    // the right bytes, and still not ours to read
    await symlink(path.join(outside.path, "secret"), blob);
    expect(await refusedOn(database, bucket)).toBe("SOURCE_UNSAFE");
  });

  test("39 with a whole folder behind such a link is SOURCE_UNSAFE", async () => {
    const database = await createDatabase();
    const bucket = await published();
    const outside = await tempFolder();
    onTestFinished(() => outside[Symbol.asyncDispose]());
    await rename(path.join(bucket.path, "blobs"), path.join(outside.path, "blobs"));
    await symlink(path.join(outside.path, "blobs"), path.join(bucket.path, "blobs"));
    expect(await refusedOn(database, bucket)).toBe("SOURCE_UNSAFE");
  });

  test("39 with a FIFO or a device for a file is SOURCE_UNSAFE at once, and a folder is no file", async () => {
    const folder = await tempFolder();
    onTestFinished(() => folder[Symbol.asyncDispose]());
    execFileSync("mkfifo", [path.join(folder.path, "head.json")]);
    await expect(take(folder.path, "head.json")).rejects.toMatchObject(unsafe);
    await mkdir(path.join(folder.path, "manifests"));
    expect(await take(folder.path, "manifests")).toBeUndefined();
    await expect(take("/dev", "zero")).rejects.toMatchObject(unsafe);
  });

  test("39 with a file swapped for a link between look and read never gives a byte of what is outside", async () => {
    const folder = await tempFolder({ "a.sql": "inside" });
    const outside = await tempFolder({ secret: "SECRET" });
    onTestFinished(async () => {
      await folder[Symbol.asyncDispose]();
      await outside[Symbol.asyncDispose]();
    });
    const file = path.join(folder.path, "a.sql");
    await writeFile(`${file}.honest`, "inside");
    const over = new AbortController();
    const swapping = (async () => {
      while (!over.signal.aborted) {
        await symlink(path.join(outside.path, "secret"), `${file}.link`);
        await rename(`${file}.link`, file);
        await link(`${file}.honest`, `${file}.copy`);
        await rename(`${file}.copy`, file);
      }
    })();
    const seen = new Set<string>();
    for (let round = 0; round < 300; round++) {
      const outcome = await take(folder.path, "a.sql").then(
        (object) => String(object?.bytes),
        (error: unknown) => String(Reflect.get(Object(error) as object, "code")),
      );
      seen.add(outcome);
    }
    over.abort();
    await swapping;
    expect(
      [...seen].filter(
        (outcome) => !["inside", "SOURCE_UNSAFE", "SOURCE_CHANGED", "undefined"].includes(outcome),
      ),
    ).toEqual([]);
  });
});

describe("objects of a gigabyte", () => {
  test.for([
    ["head", () => layout.head, "TOO_LARGE"],
    ["release", (digest: string) => layout.release(digest.slice(7)), "TOO_LARGE"],
    ["body", () => layout.blob(sha256Hex(files["0001_users.up.sql"])), "BLOB_DIGEST"],
  ] as const)("35 a %s is given up at its ceiling, and never in memory whole", async ([, keyOf, code]) => {
    const database = await createDatabase();
    const bucket = await published();
    const file = path.join(bucket.path, keyOf(bucket.digest));
    await using handle = await open(file, "r+");
    await handle.truncate(0);
    await truncate(file, 1 << 30);
    const before = process.memoryUsage().arrayBuffers;
    expect(await refusedOn(database, bucket)).toBe(code);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * releaseLimits.blobBytes);
  });
});

describe("two runners at once", () => {
  test("40 the one with the older release, which was right before it waited, is ROLLBACK under the lease", async () => {
    const database = await createDatabase();
    const bucket = await published();
    expect(await runOn(database, bucket)).toMatchObject({ outcome: "applied" });
    const keys = [bucket.key];
    const older = await publishTo(
      bucket.source,
      { ...files, "0003_a.up.sql": "create table a ();" },
      { keys },
    );
    const newer = await publishTo(
      bucket.source,
      { ...files, "0003_a.up.sql": "create table a ();", "0004_b.up.sql": "create table b ();" },
      { keys },
    );
    await database.query(
      "UPDATE lockkeeper.streams SET holder = 'newer/1', run_id = 'newer', acquired_at = now(), expires_at = clock_timestamp() + interval '1 h'",
    );
    const releases = signedReleases({
      source: bucket.source,
      stream: "orders",
      environment: "default",
      engine: "postgres",
      trust: bucket.trust,
    });
    const target = await targetOn(database.url, releases);
    const late = target.run({ release: older.digest });
    while (!target.events.some(({ kind }) => kind === "lease.waiting")) await pause(20);
    // what the holder does first of all: it writes down its release; then it dies
    await database.query("UPDATE lockkeeper.streams SET version = 3, release = $1", [newer.digest]);
    const before = await stateOf(database);
    await database.query("UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 s'");
    expect(await late).toMatchObject({ status: "failed", done: [], error: { code: "ROLLBACK" } });
    expect(await stateOf(database)).toEqual(before);
  });

  test("40 each migration is applied once, whichever is first, and the older release never last", async () => {
    const database = await createDatabase();
    const bucket = await published();
    const more = { ...files, "0003_more.up.sql": "create table more ();" };
    const newer = await publishTo(bucket.source, more, { keys: [bucket.key] });
    const [old, young] = await Promise.all([
      runOn(database, bucket, { release: bucket.digest }),
      runOn(database, bucket, { release: newer.digest }),
    ]);
    expect(young).toMatchObject({ status: "succeeded", to: { length: 3 } });
    expect([undefined, "ROLLBACK"]).toContain(old.error?.code);
    expect(await refusedOn(database, bucket, { release: bucket.digest })).toBe("ROLLBACK");
    expect(await database.query("SELECT path FROM lockkeeper.history ORDER BY id")).toEqual(
      Object.keys(more).map((path) => ({ path })),
    );
  });
});
