import { gzipSync } from "node:zlib";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { mapConcurrently } from "../../src/release/concurrent.ts";
import { layout } from "../../src/release/layout.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import type { ReleaseContext } from "../../src/release/release.ts";
import { renewRelease } from "../../src/release/publish/renew.ts";
import { publishRoot } from "../../src/release/root/root-publish.ts";
import { signRelease } from "../../src/release/review/sign.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { vouch } from "../../src/release/publish/vouch.ts";
import { findWaiting } from "../../src/release/review/waiting.ts";
import { openSource } from "../../src/source/open.ts";
import { sourceLimits } from "../../src/source/source.ts";
import { startGcs, startS3 } from "../support/bucket.ts";
import type { BucketServer } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { makeKey, makeKeys, never, publishTo, recorded, trustOf } from "../support/release.ts";
import type { Files, TestKey } from "../support/release.ts";
import { pinned, rootText, rootTrust, signedRoot } from "../support/root.ts";

const context: ReleaseContext = {
  highWaterMark: undefined,
  expected: undefined,
  now: new Date(),
  applied: () => Promise.resolve([]),
};

/** More than the 1,000 keys of one page of a listing. */
const many = steps(1_100);

const servers = {
  versitygw: () => startS3("versitygw"),
  "fake-gcs-server": () => startGcs(),
} as const;

describe.for(["versitygw", "fake-gcs-server"] as const)("releases in %s", (name) => {
  needs(name);
  let server: BucketServer;
  beforeAll(async () => (server = await servers[name]()));
  afterAll(() => server.stop());

  test("follow a root to new keys, and ask for each of its versions once", async () => {
    const bucket = await server.createBucket();
    const { source, requests } = recorded(await openSource(`${bucket}/orders`, server.options));
    const [root, old, next] = [makeKey(), makeKey(), makeKey()];
    const first = { rootKeys: [root], releaseKeys: [old] };
    const trust = rootTrust(first);
    const publish = (files: Files, key: TestKey) => publishTo(source, files, { keys: [key], trust });
    await publish(steps(1), old);
    const file = signedRoot(rootText({ ...first, version: 2, releaseKeys: [next] }), [root]);
    const twice = [1, 2].map(() =>
      publishRoot({ destination: source, pinned: pinned(first), file, now: new Date() }, never),
    );
    expect((await Promise.all(twice)).map(({ root: { version } }) => version)).toEqual([2, 2]);
    expect(await publish(steps(2), next)).toMatchObject({ outcome: "published", version: 2 });
    requests.length = 0;
    const of = { source, stream: "orders", environment: "default", engine: "postgres", trust } as const;
    const release = await signedReleases(of).fetch(context, never);
    expect(release.root).toMatchObject({
      version: 2,
      files: [{ version: 2, document: String(file.document) }],
    });
    expect(requests.filter((request) => request.includes("root/"))).toEqual([
      `GET ${layout.root(2)}`,
      `GET ${layout.rootBundles(2)}`,
      `GET ${layout.root(3)}`,
    ]);
  });

  test("are renewed by two at once, and vouched for by two at once", async () => {
    const bucket = await server.createBucket();
    const source = await openSource(`${bucket}/orders`, server.options);
    const [alice, bob, clock] = [makeKey(), makeKey(), makeKey()];
    const timestamp = { keys: [clock.public], threshold: 1 };
    const trust: Trust = { ...trustOf([alice, bob], { threshold: 2 }), timestamp };
    await publishTo(source, steps(1), { keys: [alice, bob], trust });
    const of = { destination: source, stream: "orders", trust, now: new Date() };
    const renewals = await Promise.all(
      [alice, bob].map((key) => renewRelease({ ...of, keys: [key], expiresInDays: 300, force: true }, never)),
    );
    expect(new Set(renewals.map(({ digest }) => digest)).size).toBe(1);
    expect(renewals.some(({ published }) => published)).toBe(true);
    await Promise.all([1, 2].map(() => vouch({ ...of, keys: [clock], expiresInHours: 24 }, never)));
    const read = { source, stream: "orders", environment: "default", engine: "postgres", trust } as const;
    const release = await signedReleases(read).fetch({ ...context, now: new Date() }, never);
    expect(release).toMatchObject({ rank: { version: 2 }, digest: renewals[0]?.digest });
    expect(release.stale).toBeUndefined();
  });

  test("are published and brought whole with four requests", async () => {
    const bucket = await server.createBucket();
    const { source, requests } = recorded(await openSource(`${bucket}/team/orders`, server.options));
    const { key, trust } = makeKeys();
    // Four times as many as a runner asks for at once.
    const some = steps(4 * sourceLimits.concurrency);
    expect(await publishTo(source, some, { keys: [key] })).toMatchObject({
      published: true,
      migrations: 128,
      uploaded: 130,
    });
    requests.length = 0;
    const releases = signedReleases({
      source,
      stream: "orders",
      environment: "default",
      engine: "postgres",
      trust,
    });
    await releases.head(never);
    const release = await releases.fetch(context, never);
    const bodies = await releases.bodies(release, release.migrations, never);
    expect(requests).toHaveLength(4);
    expect(release.migrations.map(({ sha256 }) => bodies.get(sha256)?.toString())).toEqual(
      Object.values(some),
    );
  });

  test("wait for a second signer, are found, and are published by two who sign at once", async () => {
    const bucket = await server.createBucket();
    const destination = await openSource(`${bucket}/team/orders`, server.options);
    const [alice, bob, carol] = [makeKey(), makeKey("ed25519"), makeKey()];
    const trust = trustOf([alice, bob, carol], { threshold: 3 });
    const files = { "1_t.up.sql": "select 1;" };
    const { digest } = await publishTo(destination, files, { keys: [alice], trust });
    const { releases } = await findWaiting(destination, never);
    expect(releases.map((one) => one.digest)).toEqual([digest]);
    const now = new Date();
    await Promise.all(
      [bob, carol].map((key) => signRelease({ destination, digest, keys: [key], trust, now }, never)),
    );
    expect(await signRelease({ destination, digest, keys: [], trust, now }, never)).toMatchObject({
      signers: expect.arrayContaining([alice.id, bob.id, carol.id]) as string[],
      published: true,
    });
    expect((await findWaiting(destination, never)).releases).toEqual([]);
  });

  test("are plain too: every page of the listing, and each body as it was listed", async () => {
    const bucket = await server.createBucket();
    const url = `${bucket}/plain`;
    await mapConcurrently(Object.entries(many), 32, never, ([path, content]) =>
      server.put(url, path, Buffer.from(content)),
    );
    const source = await openSource(url, server.options);
    const releases = plainReleases({
      source,
      stream: "orders",
      environment: "default",
      engine: "postgres",
      allowLate: false,
    });
    const release = await releases.fetch(context, never);
    expect(release.migrations.map(({ path }) => path)).toEqual(Object.keys(many));
    expect((await releases.bodies(release, release.migrations, never)).size).toBe(1_100);
  });

  test("attack 36: with a body stored as gzip are BLOB_DIGEST: nobody inflates it", async () => {
    const bucket = await server.createBucket();
    const source = await openSource(`${bucket}/orders`, server.options);
    const { key, trust } = makeKeys();
    const body = "create table users (id int);";
    await publishTo(source, { "1_users.up.sql": body }, { keys: [key] });
    await server.put(`${bucket}/orders`, layout.blob(sha256Hex(body)), gzipSync(body), {
      contentEncoding: "gzip",
    });
    const releases = signedReleases({
      source,
      stream: "orders",
      environment: "default",
      engine: "postgres",
      trust,
    });
    const release = await releases.fetch(context, never);
    await expect(releases.bodies(release, release.migrations, never)).rejects.toMatchObject({
      code: "BLOB_DIGEST",
    });
  });

  test("are published by one of two at once, and the other is told to run again", async () => {
    const bucket = await server.createBucket();
    const source = await openSource(`${bucket}/orders`, server.options);
    const { key, trust } = makeKeys();
    const rivals = ["select 1;", "select 2;"].map((body, index) =>
      publishTo(source, { [`${index + 1}_rival.up.sql`]: body }, { keys: [key] }),
    );
    const outcomes = await Promise.allSettled(rivals);
    const won = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value.digest] : []));
    const lost = outcomes.flatMap((outcome) =>
      outcome.status === "rejected" ? [outcome.reason as unknown] : [],
    );
    // one after the other is possible as well: then the second finds the first one's file gone from its folder
    expect(won).toHaveLength(1);
    expect(lost).toMatchObject([
      { code: expect.stringMatching(/^(SOURCE_CONFLICT|HISTORY_REWRITTEN)$/) as string },
    ]);
    const releases = signedReleases({
      source,
      stream: "orders",
      environment: "default",
      engine: "postgres",
      trust,
    });
    expect((await releases.fetch(context, never)).digest).toBe(won[0]);
  });
});

/** `count` files, each of them a migration of its own. */
function steps(count: number): Readonly<Record<string, string>> {
  const numbers = Array.from({ length: count }, (_, index) => index + 1);
  return Object.fromEntries(
    numbers.map((number) => [`${String(number).padStart(6, "0")}_step.up.sql`, `select ${number};`]),
  );
}
