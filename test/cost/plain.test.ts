import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { BucketServer } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { tempFolder } from "../support/release.ts";
import { migrations, openSite, startBuckets, type Cost, type Site } from "./site.ts";

needs("versitygw", "fake-gcs-server");

/** keys in one page of a listing, on S3 and on GCS */
const pageKeys = 1_000;
/** Round trips with nothing to do: where the database is, and what it has applied, which the files are compared with. Lower it when it can be lowered. */
const idleRoundTrips = 2;
/** uploads under way at once */
const uploads = 16;

let s3: BucketServer;
let gcs: BucketServer;
beforeAll(async () => {
  [s3, gcs] = await Promise.all([startBuckets("S3"), startBuckets("GCS")]);
});

/** Puts files into a site's bucket as somebody would who has no tool for it. */
async function upload(site: Site, files: Readonly<Record<string, string>>): Promise<void> {
  const rest = Object.entries(files);
  const worker = async (): Promise<void> => {
    for (let next = rest.pop(); next !== undefined; next = rest.pop()) await site.put(...next);
  };
  await Promise.all(Array.from({ length: uploads }, worker));
}

function withDowns(files: Readonly<Record<string, string>>): Record<string, string> {
  const downs = Object.keys(files).map((name) => [name.replace(".up.", ".down."), "SELECT 1;\n"] as const);
  return { ...files, ...Object.fromEntries(downs) };
}

function plain(source: string): readonly string[] {
  return ["--source", source, "--stream", "plain", "--unsigned"];
}

/** `up --unsigned` twice: the second has nothing to do. */
async function idleAfterFresh(site: Site, source: string): Promise<Cost> {
  const flags = plain(source);
  expect(await site.cost(["up"], flags)).toMatchObject({ said: { outcome: "applied" } });
  const idle = await site.cost(["up"], flags);
  expect(idle.said).toMatchObject({ outcome: "noop" });
  return idle;
}

describe("a plain bucket with nothing to do", () => {
  test("costs a listing and a request for each file that goes up, and none for those that go down", async () => {
    const site = await openSite(s3);
    await upload(site, withDowns(migrations(10)));
    const { bucket, database } = await idleAfterFresh(site, site.url);
    expect(bucket.exchanges).toBeLessThanOrEqual(1 + 10);
    expect(bucket.asked.filter((asked) => asked.includes(".down."))).toEqual([]);
    expect(database.asked.length).toBeLessThanOrEqual(idleRoundTrips);
  });

  test("costs one listing for each 1,000 of its objects", async () => {
    const site = await openSite(gcs);
    const count = pageKeys + 10;
    await upload(site, migrations(count));
    const { bucket } = await site.cost(["status"], plain(site.url));
    expect(bucket.asked.filter((asked) => /\/o\?/.test(asked))).toHaveLength(2);
    expect(bucket.exchanges).toBeLessThanOrEqual(2 + count);
  });
});

describe("a folder with nothing to do", () => {
  test("costs as few round trips on one connection with 1,000 migrations as with 10", async () => {
    await using folder = await tempFolder();
    const idleOf = async (count: number): Promise<Cost> => {
      const site = await openSite(gcs);
      const source = join(folder.path, String(count));
      await mkdir(source);
      for (const [name, text] of Object.entries(migrations(count))) await writeFile(join(source, name), text);
      return idleAfterFresh(site, source);
    };
    const idle = await Promise.all([idleOf(10), idleOf(1_000)]);
    for (const { bucket, database } of idle) {
      expect(bucket.exchanges).toBe(0);
      expect(database.connections).toBe(1);
      expect(database.asked.length).toBeLessThanOrEqual(idleRoundTrips);
    }
    expect(idle[1].database.asked).toHaveLength(idle[0].database.asked.length);
  });
});
