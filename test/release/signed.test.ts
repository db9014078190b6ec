import { describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { layout } from "../../src/release/layout.ts";
import type { Release, ReleaseContext } from "../../src/release/release.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { isVerified } from "../../src/release/verify.ts";
import type { Source } from "../../src/source/source.ts";
import { makeKeys, never, overwrite, publishTo, recorded, tempFolder } from "../support/release.ts";
import type { Files } from "../support/release.ts";

const context: ReleaseContext = {
  highWaterMark: undefined,
  expected: undefined,
  now: new Date(),
  applied: () => Promise.resolve([]),
};

function providerOf(source: Source, trust: Trust) {
  return signedReleases({ source, stream: "orders", environment: "default", engine: "postgres", trust });
}

/** `count` small migrations, each another. */
function many(count: number, from = 1): Files {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => [`${from + index}_step.up.sql`, `select ${from + index};`]),
  );
}

function packOf(release: Release) {
  if (!isVerified(release)) throw new Error("the release was not verified");
  return release.manifest.pack;
}

describe("the requests of a run", () => {
  test("are one for the head, two for the release and one a body", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const { digest } = await publishTo(bucket.source, many(5), { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const releases = providerOf(source, trust);
    expect(await releases.head(never)).toBe(digest);
    expect(requests).toEqual(["GET head.json"]);
    const release = await releases.fetch(context, never);
    expect(requests).toHaveLength(3);
    await releases.bodies(release, release.migrations, never);
    expect(requests).toHaveLength(8);
    expect(new Set(requests).size).toBe(8);
  });

  test("are two where the caller names the release: the head is not read", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const { digest } = await publishTo(bucket.source, many(2), { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    await providerOf(source, trust).fetch({ ...context, expected: digest }, never);
    expect(requests.filter((request) => request.includes("head"))).toEqual([]);
    expect(requests).toHaveLength(2);
  });

  test("are four for a fresh database and any number of migrations, with the pack", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(100), { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const releases = providerOf(source, trust);
    await releases.head(never);
    const release = await releases.fetch(context, never);
    const bodies = await releases.bodies(release, release.migrations, never);
    expect(requests).toHaveLength(4);
    expect(release.migrations.map(({ sha256 }) => bodies.get(sha256)?.toString())).toEqual(
      Object.values(many(100)),
    );
  });

  test("ask again for a head that was answered once, with the state that is known", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const first = await publishTo(bucket.source, many(1), { keys: [key] });
    const answers: string[] = [];
    const watched: Source = {
      ...recorded(bucket.source).source,
      readIfChanged: async (path, version, options, signal) => {
        const answer = await bucket.source.readIfChanged(path, version, options, signal);
        answers.push(typeof answer === "string" ? answer : "whole");
        return answer;
      },
    };
    const releases = providerOf(watched, trust);
    expect(await releases.head(never)).toBe(first.digest);
    expect(await releases.head(never)).toBe(first.digest);
    const second = await publishTo(bucket.source, many(2), { keys: [key] });
    expect(await releases.head(never)).toBe(second.digest);
    expect(await releases.head(never)).toBe(second.digest);
    expect(answers).toEqual(["whole", "unchanged", "whole", "unchanged"]);
  });

  test("take each answer about the head once: a second run asks for itself", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(1), { keys: [key] });
    const releases = providerOf(bucket.source, trust);
    await releases.head(never);
    expect((await releases.fetch(context, never)).rank?.version).toBe(1);
    await publishTo(bucket.source, many(2), { keys: [key] });
    expect((await releases.fetch(context, never)).rank?.version).toBe(2);
  });

  test("find nothing published under an empty prefix", async () => {
    await using bucket = await tempFolder();
    const { trust } = makeKeys();
    const releases = providerOf(bucket.source, trust);
    expect(await releases.head(never)).toBeUndefined();
    await expect(releases.fetch(context, never)).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
  });

  test("go out for one body where two migrations have the same bytes", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, { "1_a.up.sql": "select 1;", "2_b.up.sql": "select 1;" }, { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const releases = providerOf(source, trust);
    const release = await releases.fetch(context, never);
    expect((await releases.bodies(release, release.migrations, never)).size).toBe(1);
    expect(requests.filter((request) => request.startsWith("GET blobs/"))).toHaveLength(1);
  });
});

describe("a pack", () => {
  test("is not made for a few bodies, nor read for a few of many", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(7), { keys: [key] });
    expect(packOf(await providerOf(bucket.source, trust).fetch(context, never))).toBeUndefined();
    await publishTo(bucket.source, many(60), { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const releases = providerOf(source, trust);
    const release = await releases.fetch(context, never);
    expect(packOf(release)?.offsets).toHaveLength(60);
    await releases.bodies(release, release.migrations.slice(-5), never);
    await releases.bodies(release, release.migrations.slice(-12), never);
    expect(requests.filter((request) => request.startsWith("GET packs/"))).toEqual([]);
    await releases.bodies(release, release.migrations.slice(-20), never);
    expect(requests.filter((request) => request.startsWith("GET packs/"))).toHaveLength(1);
  });

  test("is carried on by small releases, so that a fresh database still needs few requests", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(40), { keys: [key] });
    await publishTo(bucket.source, many(43), { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const releases = providerOf(source, trust);
    const release = await releases.fetch(context, never);
    const bodies = await releases.bodies(release, release.migrations, never);
    expect(bodies.size).toBe(43);
    // head, release, manifest, pack and the three that came later
    expect(requests).toHaveLength(7);
    await publishTo(bucket.source, many(50), { keys: [key] });
    expect(packOf(await releases.fetch(context, never))?.offsets).toHaveLength(50);
  });

  test("that is gone is made up for by the blobs", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(10), { keys: [key] });
    const without: Source = {
      ...recorded(bucket.source).source,
      read: (path, options, signal) =>
        path.startsWith("packs/") ? Promise.resolve(undefined) : bucket.source.read(path, options, signal),
    };
    const releases = providerOf(without, trust);
    const release = await releases.fetch(context, never);
    expect((await releases.bodies(release, release.migrations, never)).size).toBe(10);
  });

  test.for([
    ["a flipped byte", (bytes: Buffer) => Buffer.concat([bytes.subarray(0, -1), Buffer.of(0x20)])],
    ["its end cut off", (bytes: Buffer) => bytes.subarray(0, -1)],
  ] as const)("with %s is BLOB_DIGEST: no body of it is taken on trust", async ([, change]) => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(10), { keys: [key] });
    const releases = providerOf(bucket.source, trust);
    const release = await releases.fetch(context, never);
    const bytes = Buffer.from(Object.values(many(10)).join(""));
    await overwrite(bucket.source, layout.pack(packOf(release)?.sha256 ?? ""), change(bytes));
    await expect(releases.bodies(release, release.migrations, never)).rejects.toMatchObject({
      code: "BLOB_DIGEST",
    });
  });
});

describe("the size of a run", () => {
  test("of 50 MB in bodies of 10 MB is brought whole", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const files = Object.fromEntries(
      [1, 2, 3, 4, 5].map((seq) => [`${seq}_data.up.sql`, `select ${seq}; --${" ".repeat(10_000_000)}`]),
    );
    await publishTo(bucket.source, files, { keys: [key] });
    const releases = providerOf(bucket.source, trust);
    const release = await releases.fetch(context, never);
    const bodies = await releases.bodies(release, release.migrations, never);
    expect(release.migrations.every(({ sha256, size }) => bodies.get(sha256)?.length === size)).toBe(true);
    expect(sha256Hex(bodies.get(release.migrations[4]?.sha256 ?? "") ?? "")).toBe(
      release.migrations[4]?.sha256,
    );
  });

  test("above 64 MiB is TOO_LARGE before a byte is asked for, and fine in two parts", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const files = Object.fromEntries(
      [1, 2, 3, 4, 5].map((seq) => [`${seq}_data.up.sql`, `select ${seq}; --${" ".repeat(15_000_000)}`]),
    );
    await publishTo(bucket.source, files, { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const releases = providerOf(source, trust);
    const release = await releases.fetch(context, never);
    await expect(releases.bodies(release, release.migrations, never)).rejects.toMatchObject({
      code: "TOO_LARGE",
    });
    expect(requests).toHaveLength(3);
    expect((await releases.bodies(release, release.migrations.slice(0, 3), never)).size).toBe(3);
  });

  test("of one body above 16 MiB is TOO_LARGE when it is to be published", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const files = { "1_data.up.sql": `select 1; --${" ".repeat(17_000_000)}` };
    await expect(publishTo(bucket.source, files, { keys: [key] })).rejects.toMatchObject({
      code: "TOO_LARGE",
      fields: { migration: "1_data.up.sql" },
    });
  });
});

describe("a run that is given up", () => {
  test("stops bringing bodies, and asks for no further one", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, many(7), { keys: [key] });
    const stop = new AbortController();
    const { source, requests } = recorded(bucket.source);
    const impatient: Source = {
      ...source,
      read: (path, options, signal) => {
        if (path.startsWith("blobs/")) stop.abort(new Error("given up"));
        return source.read(path, options, signal);
      },
    };
    const releases = providerOf(impatient, trust);
    const release = await releases.fetch(context, stop.signal);
    await expect(releases.bodies(release, release.migrations, stop.signal)).rejects.toThrow("given up");
    expect(requests.filter((request) => request.startsWith("GET blobs/"))).toHaveLength(1);
  });
});
