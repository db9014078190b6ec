import { describe, expect, test } from "vitest";

import type { RunnerErrorCode } from "../../src/error.ts";
import { readHead } from "../../src/release/head.ts";
import { layout } from "../../src/release/layout.ts";
import { renewRelease } from "../../src/release/publish/renew.ts";
import type { RenewOptions, RenewResult } from "../../src/release/publish/renew.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import type { WritableSource } from "../../src/source/source.ts";
import {
  makeKey,
  manifestOf,
  never,
  overwrite,
  plant,
  publishTo,
  readKey,
  recorded,
  tempFolder,
  trustOf,
} from "../support/release.ts";
import type { TestKey } from "../support/release.ts";
import { plantRoot, rootText, rootTrust, signedRoot } from "../support/root.ts";

const dayMs = 86_400_000;
const files = { "1_users.up.sql": "create table users (id int);", "1_users.down.sql": "drop table users;" };
/** the middle of a day (UTC), so that an hour later is the same day */
const noon = new Date("2026-11-20T12:00:00Z");

function daysLater(days: number): Date {
  return new Date(noon.getTime() + days * dayMs);
}

function renew(
  destination: WritableSource,
  options: Pick<RenewOptions, "keys"> & Partial<RenewOptions>,
): Promise<RenewResult> {
  return renewRelease(
    { destination, stream: "orders", expiresInDays: 90, now: daysLater(50), ...options },
    never,
  );
}

/** A prefix with one release, published at noon for 90 days. */
async function world(keys: readonly [TestKey, ...TestKey[]] = [makeKey()], trust?: Trust) {
  const bucket = await tempFolder();
  const first = await publishTo(bucket.source, files, { keys, now: noon, ...(trust && { trust }) });
  return {
    source: bucket.source,
    first,
    head: async () => readHead(await readKey(bucket.source, layout.head)),
    fetch: (by: Trust, now: Date, environment = "default") =>
      signedReleases({
        source: bucket.source,
        stream: "orders",
        environment,
        engine: "postgres",
        trust: by,
      }).fetch(
        { highWaterMark: undefined, expected: undefined, now, applied: () => Promise.resolve([]) },
        never,
      ),
    [Symbol.asyncDispose]: () => bucket[Symbol.asyncDispose](),
  };
}

describe("a renewal", () => {
  test("is the next version of the same manifest with a new expiry, and writes one release and the head", async () => {
    const key = makeKey();
    await using w = await world([key]);
    const { source, requests } = recorded(w.source);
    const result = await renew(source, { keys: [key] });
    expect(result).toMatchObject({
      outcome: "published",
      version: 2,
      epoch: 1,
      environments: ["default"],
      chain: w.first.chain,
      expires: new Date("2027-04-09T00:00:00Z"),
    });
    expect(await w.head()).toMatchObject({ version: 2, digest: result.digest });
    expect(requests.filter((request) => request.startsWith("PUT"))).toEqual([
      `PUT ${layout.release(result.digest.slice(7))}`,
      `PUT ${layout.head}`,
    ]);
    const release = await w.fetch(trustOf([key]), daysLater(120));
    expect(release).toMatchObject({
      digest: result.digest,
      previous: w.first.digest,
      migrations: [{ version: "1" }],
    });
  });

  test("is not yet made while half of the time is left, by force it is, and a dry run writes nothing", async () => {
    const key = makeKey();
    await using w = await world([key]);
    const { source, requests } = recorded(w.source);
    const early = { keys: [key], now: daysLater(44) } as const;
    expect(await renew(source, early)).toMatchObject({
      outcome: "unchanged",
      digest: w.first.digest,
      version: 1,
    });
    const dry = await renew(source, { ...early, force: true, dryRun: true });
    expect(dry).toMatchObject({ outcome: "dry-run", version: 2 });
    expect(requests.filter((request) => request.startsWith("PUT"))).toEqual([]);
    expect(await renew(source, { ...early, force: true })).toMatchObject({
      outcome: "published",
      digest: dry.digest,
    });
  });

  test("from a schedule keeps a release alive all the year, by a new one each 45 days or so", async () => {
    const key = makeKey();
    await using w = await world([key]);
    const trust = trustOf([key]);
    for (let day = 0; day <= 365; day += 5) {
      const now = daysLater(day);
      await renew(w.source, { keys: [key], now });
      const { expires } = await w.fetch(trust, now);
      expect(expires?.getTime()).toBeGreaterThan(now.getTime() + 40 * dayMs);
    }
    expect((await w.head()).version).toBeLessThanOrEqual(10);
  });

  test("for a day is issued by the hour, so that nothing of so short a time is lost", async () => {
    const key = makeKey();
    await using w = await world([key]);
    const now = new Date("2026-11-22T23:40:00Z");
    const renewed = await renew(w.source, { keys: [key], now, expiresInDays: 1, force: true });
    expect(renewed.expires).toEqual(new Date("2026-11-23T23:00:00Z"));
    expect(await renew(w.source, { keys: [key], now, expiresInDays: 1 })).toMatchObject({
      outcome: "unchanged",
    });
  });

  test("is made for a release that has expired, and for other environments", async () => {
    const key = makeKey();
    await using w = await world([key]);
    const now = daysLater(200);
    await renew(w.source, { keys: [key], now, environments: ["staging", "production"] });
    expect(await w.fetch(trustOf([key]), now, "production")).toMatchObject({ rank: { version: 2 } });
    await expect(w.fetch(trustOf([key]), now)).rejects.toMatchObject({ code: "WRONG_ENVIRONMENT" });
  });

  test("by another key of the trust is made at once: so keys are changed", async () => {
    const [old, next] = [makeKey(), makeKey("ed25519")];
    await using w = await world([old]);
    const soon = daysLater(1);
    await expect(renew(w.source, { keys: [next], now: soon })).rejects.toMatchObject({
      code: "THRESHOLD",
      hint: expect.stringContaining("--trust"),
    });
    const both = trustOf([old, next]);
    const renewed = await renew(w.source, { keys: [next], now: soon, trust: both });
    expect(renewed).toMatchObject({ outcome: "published", signers: [next.id] });
    expect(await renew(w.source, { keys: [next], now: soon, trust: both })).toMatchObject({
      outcome: "unchanged",
    });
    expect(await w.fetch(trustOf([next]), soon)).toMatchObject({ digest: renewed.digest });
  });
});

describe("a threshold of two", () => {
  const [alice, bob, mallory] = [makeKey(), makeKey("ed25519"), makeKey()];
  const trust = trustOf([alice, bob, mallory], { threshold: 2 });

  test("is met by two jobs that renew on one day without knowing of each other", async () => {
    await using w = await world([alice, bob], trust);
    const first = await renew(w.source, { keys: [alice], trust, now: daysLater(50) });
    expect(first).toMatchObject({ outcome: "unsigned", published: false, version: 2 });
    expect(await w.head()).toMatchObject({ version: 1 });
    const later = new Date(daysLater(50).getTime() + 3 * 3_600_000);
    expect(await renew(w.source, { keys: [alice], trust, now: later })).toMatchObject({
      outcome: "unsigned",
      digest: first.digest,
    });
    const second = await renew(w.source, { keys: [bob], trust, now: later });
    expect(second).toMatchObject({ outcome: "published", digest: first.digest });
    expect(await w.fetch(trust, later)).toMatchObject({ digest: first.digest, rank: { version: 2 } });
    // both find their own signature in the newest one now
    for (const key of [alice, bob])
      expect(await renew(w.source, { keys: [key], trust, now: later })).toMatchObject({
        outcome: "unchanged",
      });
  });

  test("is met by two jobs that renew at the same time", async () => {
    await using w = await world([alice, bob], trust);
    const results = await Promise.all(
      [alice, bob].map((key) => renew(w.source, { keys: [key], trust, now: daysLater(50) })),
    );
    expect(new Set(results.map(({ digest }) => digest)).size).toBe(1);
    expect(await w.head()).toMatchObject({ version: 2, digest: results[0]?.digest });
  });

  test("is asked of what is renewed: one stolen key and the bucket get no other signature", async () => {
    await using w = await world([alice, bob], trust);
    const evil = await plant(w.source, {
      manifest: manifestOf({ "1_evil.up.sql": "drop schema public cascade;" }),
      statement: { version: 2, previous: w.first.digest },
      keys: [mallory],
    });
    for (const now of [daysLater(50), new Date()]) {
      await expect(renew(w.source, { keys: [bob], trust, now, force: true })).rejects.toMatchObject({
        code: "THRESHOLD",
      });
    }
    expect(await w.head()).toMatchObject({ digest: evil });
    const releases = await w.source.list("releases/", never);
    expect(releases).toHaveLength(2);
  });
});

describe("an environment that asks for more", () => {
  const [ci, alice, bob] = [makeKey(), makeKey(), makeKey()];
  const trust = trustOf([ci, alice, bob], { release: { production: { threshold: 2 } } });

  test("does not get by a renewal what only another one's signers have signed", async () => {
    await using w = await world([alice, bob], trust);
    await plant(w.source, {
      manifest: manifestOf({ "1_evil.up.sql": "drop schema public cascade;" }),
      statement: { version: 2, previous: w.first.digest, environments: ["staging"] },
      keys: [ci],
    });
    const asked = { keys: [alice, bob], trust, now: new Date(), force: true } as const;
    for (const environments of [["production"], ["staging", "production"]])
      await expect(renew(w.source, { ...asked, environments })).rejects.toMatchObject({ code: "THRESHOLD" });
    expect(await renew(w.source, asked)).toMatchObject({ environments: ["staging"], version: 3 });
  });

  test("gets by a renewal what those that it trusts have signed for another one", async () => {
    await using w = await world([alice, bob], trust);
    const renewed = await renew(w.source, { keys: [alice, bob], trust, environments: ["production"] });
    expect(await w.fetch(trust, daysLater(50), "production")).toMatchObject({ digest: renewed.digest });
  });
});

describe("a key that a root has withdrawn", () => {
  test("gets no other signature where the bucket withholds that root from whoever renews, and they demand it", async () => {
    const [rootKey, stolen, next] = [makeKey(), makeKey(), makeKey()];
    const first = { rootKeys: [rootKey], releaseKeys: [stolen] };
    await using w = await world([stolen]);
    const second = rootText({ ...first, version: 2, releaseKeys: [next] });
    const renewing = (minRootVersion: number) =>
      renew(w.source, { keys: [next], trust: rootTrust(first, { minRootVersion }), now: daysLater(50) });
    await expect(renewing(2)).rejects.toMatchObject({ code: "ROOT_ROLLBACK" });
    await plantRoot(w.source, 2, signedRoot(second, [rootKey]));
    for (const demanded of [1, 2])
      await expect(renewing(demanded)).rejects.toMatchObject({ code: "THRESHOLD" });
    expect(await w.source.list("releases/", never)).toHaveLength(1);
  });
});

describe("what is not renewed", () => {
  test("is what its runners would refuse; nothing is written", async () => {
    const key = makeKey();
    const trust = trustOf([key]);
    await using w = await world([key]);
    const refused: readonly (readonly [Partial<RenewOptions>, RunnerErrorCode])[] = [
      [{ trust: { ...trust, revoked: new Set([w.first.digest]) } }, "RELEASE_REVOKED"],
      [{ trust: { ...trust, minVersion: 2 } }, "RELEASE_REVOKED"],
      [{ trust: { ...trust, epoch: 2 } }, "WRONG_EPOCH"],
      [{ trust: trustOf([makeKey()]) }, "THRESHOLD"],
      [{ stream: "billing" }, "WRONG_STREAM"],
      [{ expected: `sha256:${"0".repeat(64)}` }, "UNEXPECTED_RELEASE"],
      [{ trust, expiresInDays: 401 }, "VALIDITY"],
      [{ environments: [] }, "USAGE"],
      [{ environments: ["a b"] }, "USAGE"],
    ];
    for (const [change, code] of refused)
      await expect(renew(w.source, { keys: [key], ...change }), code).rejects.toMatchObject({ code });
    const two = [key, makeKey()] as const;
    await expect(renew(w.source, { keys: two })).rejects.toMatchObject({ code: "THRESHOLD" });
    expect(await w.source.list("releases/", never)).toHaveLength(1);
    expect(await w.head()).toMatchObject({ version: 1 });
  });

  test("is a prefix where nothing was published", async () => {
    await using bucket = await tempFolder();
    await expect(renew(bucket.source, { keys: [makeKey()] })).rejects.toMatchObject({
      code: "RELEASE_NOT_FOUND",
    });
  });

  test("is a release whose manifest was exchanged: MANIFEST_DIGEST", async () => {
    const key = makeKey();
    await using w = await world([key]);
    const [manifest] = await w.source.list("manifests/", never);
    await overwrite(w.source, manifest?.key ?? "", Buffer.from("{}"));
    await expect(renew(w.source, { keys: [key] })).rejects.toMatchObject({ code: "MANIFEST_DIGEST" });
  });

  test("is the older of two when somebody publishes meanwhile: SOURCE_CONFLICT, and the next try renews the newer", async () => {
    const key = makeKey();
    await using w = await world([key]);
    let isFirst = true;
    const raced: WritableSource = {
      ...w.source,
      write: async (name, bytes, condition, signal) => {
        if (isFirst) {
          isFirst = false;
          const more = { ...files, "2_items.up.sql": "create table items ();" };
          await publishTo(w.source, more, { keys: [key], now: daysLater(49) });
        }
        return w.source.write(name, bytes, condition, signal);
      },
    };
    await expect(renew(raced, { keys: [key] })).rejects.toMatchObject({ code: "SOURCE_CONFLICT" });
    expect(await renew(raced, { keys: [key], force: true })).toMatchObject({
      outcome: "published",
      version: 3,
      migrations: 2,
    });
  });
});
