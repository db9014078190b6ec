import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, onTestFinished, test } from "vitest";

import { converge } from "../../src/converge.ts";
import { noKnownRoots } from "../../src/release/trust/anchor.ts";
import type { TrustAnchor } from "../../src/release/trust/anchor.ts";
import { inspectRelease } from "../../src/release/review/inspect.ts";
import { layout } from "../../src/release/layout.ts";
import { readHead, writeHead } from "../../src/release/head.ts";
import { makeRoot } from "../../src/release/root/root.ts";
import { managedTrust } from "../../src/release/root/root-trust.ts";
import { signRelease } from "../../src/release/review/sign.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { planRun } from "../../src/runner.ts";
import { readStatus } from "../../src/status/status.ts";
import { createDatabase } from "../support/database.ts";
import {
  makeKey,
  manifestOf,
  never,
  overwrite,
  plant,
  publishTo,
  readKey,
  tempFolder,
  trustOf,
} from "../support/release.ts";
import { plantRoot, rootText, rootTrust, signedRoot } from "../support/root.ts";
import type { RootWish } from "../support/root.ts";
import { leaseOptions } from "../support/steps.ts";
import { targetOn } from "../support/target.ts";
import type { TestTarget } from "../support/target.ts";

// A managed root with everything real: keys, a folder as the bucket, PostgreSQL. TUF's names tell which scenario is meant.

const [rootKey, oldKey, newKey] = [makeKey(), makeKey(), makeKey("ed25519")];
const first: RootWish = { rootKeys: [rootKey], releaseKeys: [oldKey] };
const second: RootWish = { ...first, version: 2, releaseKeys: [newKey] };
const one = { "1_a.up.sql": "CREATE TABLE a ();" };
const two = { ...one, "2_b.up.sql": "CREATE TABLE b ();" };

/** A bucket with the first release, and runners on a database, which pin the first root unless said otherwise. */
async function start() {
  const bucket = await tempFolder();
  onTestFinished(() => bucket[Symbol.asyncDispose]());
  const database = await createDatabase();
  const open = (trust: TrustAnchor = rootTrust(first), url = database.url): Promise<TestTarget> =>
    targetOn(
      url,
      signedReleases({
        source: bucket.source,
        stream: "orders",
        environment: "default",
        engine: "postgres",
        trust,
      }),
    );
  const published = await publishTo(bucket.source, one, { keys: [oldKey], trust: rootTrust(first) });
  return {
    bucket,
    database,
    open,
    digest: published.digest,
    rotate: (wish: RootWish = second) =>
      plantRoot(bucket.source, wish.version ?? 0, signedRoot(rootText(wish), [rootKey])),
    withhold: async (version: number) => {
      await rm(join(bucket.path, layout.root(version)));
      await rm(join(bucket.path, layout.rootBundles(version)));
    },
  };
}

const asked = { signal: never, emit: () => undefined, now: () => new Date() };
const rootVersion = async ({ driver }: TestTarget) => (await driver.state("orders", never)).rootVersion;

describe("a runner with a pinned root", () => {
  // TUF: test_root_rotation, test_targets_role_removal
  test("follows it to new release keys, and remembers it in the database", async () => {
    const { bucket, open, rotate, withhold } = await start();
    const target = await open();
    expect(await target.run()).toMatchObject({ status: "succeeded", done: [{ version: "1" }] });
    expect(await rootVersion(target)).toBe(1);

    await rotate();
    const refused = await publishTo(bucket.source, two, { keys: [oldKey], trust: rootTrust(first) });
    expect(refused).toMatchObject({ outcome: "unsigned", published: false });
    // the new key continues what the old one signed
    const published = await publishTo(bucket.source, two, { keys: [newKey], trust: rootTrust(first) });
    expect(published).toMatchObject({ outcome: "published", version: 2 });
    expect(await target.run()).toMatchObject({ status: "succeeded", done: [{ version: "2" }] });
    expect(await rootVersion(target)).toBe(2);
    expect(await target.driver.roots("orders", never)).toMatchObject([{ version: 2 }]);

    // attack A4: whoever has the old key, and the bucket, withholds the root that withdrew it
    await withhold(2);
    await plant(bucket.source, {
      manifest: manifestOf({ ...two, "3_evil.up.sql": "CREATE TABLE evil ();" }),
      statement: { version: 3, previous: published.digest },
      keys: [oldKey],
    });
    expect(await target.run()).toMatchObject({ status: "failed", error: { code: "THRESHOLD" } });
    expect((await readStatus(target, asked)).problem?.code).toBe("THRESHOLD");
    await expect(planRun({ goal: { kind: "latest" }, release: null }, target, asked)).rejects.toMatchObject({
      code: "THRESHOLD",
    });
    // a deployment that was forgotten, and still pins the old key itself
    const forgotten = await open(trustOf([oldKey]));
    expect(await forgotten.run()).toMatchObject({ status: "failed", error: { code: "ROOT_ROLLBACK" } });
    expect((await target.driver.state("orders", never)).position.version).toBe("2");
  });

  test("that never saw the root which is withheld refuses all by minRootVersion", async () => {
    const { open, rotate } = await start();
    const demanding = await open(rootTrust(first, { minRootVersion: 2 }));
    expect(await demanding.run()).toMatchObject({ status: "failed", error: { code: "ROOT_ROLLBACK" } });
    await rotate({ ...second, releaseKeys: [oldKey] });
    expect(await demanding.run()).toMatchObject({ status: "succeeded", done: [{ version: "1" }] });
  });

  // TUF: test_*_fast_forward_recovery
  test("attack 19: recovers from a stolen key's highest version by a new epoch", async () => {
    const { bucket, open, rotate, digest } = await start();
    const target = await open();
    await target.run();
    const stolen = await plant(bucket.source, {
      manifest: manifestOf(one),
      statement: { version: Number.MAX_SAFE_INTEGER, previous: digest },
      keys: [oldKey],
    });
    expect(await target.run()).toMatchObject({ status: "succeeded" });
    expect((await target.driver.state("orders", never)).highWaterMark?.version).toBe(Number.MAX_SAFE_INTEGER);

    await rotate({ ...second, epoch: 2, revoked: [stolen] });
    const trust = rootTrust(first);
    await expect(publishTo(bucket.source, two, { keys: [newKey], trust })).rejects.toMatchObject({
      code: "RELEASE_REVOKED",
    });
    const published = await publishTo(bucket.source, two, { keys: [newKey], trust, follow: digest });
    expect(published).toMatchObject({ outcome: "published", epoch: 2, version: 1 });
    expect(await target.run()).toMatchObject({ status: "succeeded", done: [{ version: "2" }] });

    // back to the release before, and to the other epoch with a key that counts
    await overwrite(bucket.source, layout.head, writeHead({ epoch: 1, version: 1, digest }));
    expect(await target.run()).toMatchObject({ status: "failed", error: { code: "THRESHOLD" } });
    await plant(bucket.source, {
      manifest: manifestOf(two),
      statement: { version: Number.MAX_SAFE_INTEGER },
      keys: [newKey],
    });
    expect(await target.run()).toMatchObject({ status: "failed", error: { code: "WRONG_EPOCH" } });
  });

  // TUF: test_targets_rollback, test_repository_substitutes_target_file
  test("takes no older release, and no other body, though the root trusts their signer", async () => {
    const { bucket, open, digest } = await start();
    const target = await open();
    await publishTo(bucket.source, two, { keys: [oldKey], trust: rootTrust(first) });
    const body = layout.blob(sha256Hex(Buffer.from(two["2_b.up.sql"])));
    const right = await readKey(bucket.source, body);
    await overwrite(bucket.source, body, Buffer.from("CREATE TABLE e ();"));
    expect(await target.run()).toMatchObject({ status: "failed", error: { code: "BLOB_DIGEST" }, done: [] });
    await overwrite(bucket.source, body, right);
    expect(await target.run()).toMatchObject({
      status: "succeeded",
      done: [{ version: "1" }, { version: "2" }],
    });
    await overwrite(bucket.source, layout.head, writeHead({ epoch: 1, version: 1, digest }));
    expect(await target.run()).toMatchObject({ status: "failed", error: { code: "ROLLBACK" } });
  });

  test("goes on from a new root of a higher version, whatever an old one's thieves have published", async () => {
    const { bucket, open, rotate } = await start();
    const target = await open();
    await rotate({ ...second, releaseKeys: [oldKey] });
    await target.run();
    expect(await rootVersion(target)).toBe(2);
    const again: RootWish = { version: 100, rootKeys: [newKey], releaseKeys: [newKey, oldKey] };
    await publishTo(bucket.source, two, { keys: [newKey], trust: rootTrust(again) });
    const moved = await open(rootTrust(again));
    expect(await moved.run()).toMatchObject({ status: "succeeded", done: [{ version: "2" }] });
    expect(await rootVersion(moved)).toBe(100);
    expect(await target.run({ goal: { kind: "version", version: "1", allow: "both" } })).toMatchObject({
      error: { code: "ROOT_ROLLBACK" },
    });
  });

  test("judges its root again under the lease", async () => {
    const { open, rotate } = await start();
    const target = await open();
    const other = await open();
    const late = await target.driver.withLease(leaseOptions(), async (session) => {
      const running = target.run();
      while (!target.events.some(({ kind }) => kind === "lease.waiting")) await pause(20);
      await rotate();
      const state = await session.state();
      await session.begin({
        highWaterMark: null,
        root: { version: 2, files: [] },
        releaseDigest: "sha256:".padEnd(71, "0"),
        fromVersion: state.position.version,
        toVersion: null,
        steps: 0,
      });
      return { running };
    });
    expect(await late.running).toMatchObject({
      status: "failed",
      error: { code: "ROOT_ROLLBACK" },
      done: [],
    });
    expect(await rootVersion(other)).toBe(2);
  });

  test("remembers a newer root also where nothing is pending", async () => {
    const { open, rotate } = await start();
    const target = await open();
    await target.run();
    await rotate({ ...second, releaseKeys: [oldKey] });
    expect(await target.run()).toMatchObject({ outcome: "noop" });
    expect(await rootVersion(target)).toBe(1);
    const goal = { kind: "steps", direction: "up", count: 1 } as const;
    expect(await target.run({ goal })).toMatchObject({ status: "succeeded", done: [] });
    expect(await rootVersion(target)).toBe(2);
  });

  test("whose newest root has expired changes nothing, and does not mind what is up to date", async () => {
    const { bucket, open, rotate } = await start();
    const target = await open();
    await target.run();
    await rotate({ ...second, expires: "2020-01-01T00:00:00Z" });
    expect(await target.run()).toMatchObject({ status: "succeeded", done: [] });
    const head = readHead(await readKey(bucket.source, layout.head));
    await plant(bucket.source, {
      manifest: manifestOf(two),
      statement: { version: 2, previous: head.digest },
      keys: [newKey],
    });
    expect(await target.run()).toMatchObject({ status: "failed", error: { code: "ROOT_EXPIRED" } });
  });
});

describe("an application that starts", () => {
  test("follows a root that it pins", async () => {
    const { bucket, database, rotate } = await start();
    await rotate();
    await publishTo(bucket.source, two, { keys: [newKey], trust: rootTrust(first) });
    const options = { source: bucket.path, stream: "orders", database: database.url };
    expect(await converge({ ...options, trust: { root: rootText(first) } })).toMatchObject({
      outcome: "applied",
      done: [{ version: "1" }, { version: "2" }],
    });
    const demanding = { root: JSON.stringify(rootText(first)), minRootVersion: 3 };
    await publishTo(bucket.source, { ...two, "3_c.up.sql": "CREATE TABLE c ();" }, { keys: [newKey] });
    await expect(converge({ ...options, trust: demanding })).rejects.toMatchObject({ code: "ROOT_ROLLBACK" });
  });
});

describe("trust by a root", () => {
  const question = { stream: "orders", environment: "default", known: noKnownRoots, now: new Date() };

  test("is of the newest root, for one stream and environment", async () => {
    await using bucket = await tempFolder();
    await plantRoot(
      bucket.source,
      2,
      signedRoot(rootText({ ...second, epoch: 3, minVersion: 4, timestampKeys: [oldKey] }), [rootKey]),
    );
    const { trust, root } = await rootTrust(first).resolve({ ...question, source: bucket.source }, never);
    expect(trust).toMatchObject({ kind: "fixed", epoch: 3, minVersion: 4, rule: { threshold: 1 } });
    expect(trust.keys.map(({ id }) => id)).toEqual([newKey.id]);
    expect(trust.timestamp?.keys.map(({ id }) => id)).toEqual([oldKey.id]);
    expect(root).toMatchObject({ version: 2, files: [{ version: 2 }] });
    for (const other of [{ environment: "production" }, { stream: "billing" }]) {
      await expect(
        rootTrust(first).resolve({ ...question, ...other, source: bucket.source }, never),
      ).rejects.toMatchObject({ code: "TRUST_INVALID" });
    }
  });

  test("may differ between environments, and a release for both needs the signers of both", async () => {
    await using bucket = await tempFolder();
    const text = rootText(first);
    const [rule] = text.roles.release;
    text.keys[newKey.id] = { type: "ed25519", pem: newKey.publicPem };
    text.roles.release.push({
      ...(rule ?? expect.fail("there is a rule")),
      environments: ["production"],
      keys: [oldKey.id, newKey.id],
      threshold: 2,
    });
    const root = makeRoot(text, "the root");
    const trust = managedTrust({ root, minRootVersion: 1, trustDomains: new Map() });
    const environments = ["default", "production"];
    const made = await publishTo(bucket.source, one, { keys: [oldKey], trust, environments });
    expect(made).toMatchObject({ outcome: "unsigned" });
    const { digest } = made;
    const sign = signRelease(
      {
        destination: bucket.source,
        stream: "orders",
        digest,
        keys: [newKey],
        trust,
        bundles: [],
        now: new Date(),
      },
      never,
    );
    expect(await sign).toMatchObject({ published: true });
    for (const [environment, threshold] of [
      ["default", 1],
      ["production", 2],
    ] as const) {
      const options = { source: bucket.source, withBodies: false, now: new Date(), trust, environment };
      expect(await inspectRelease(options, never)).toMatchObject({
        verdict: { kind: "verified" },
        threshold,
      });
    }
    const staging = publishTo(bucket.source, one, { keys: [oldKey], trust, environments: ["staging"] });
    await expect(staging).rejects.toMatchObject({ code: "TRUST_INVALID" });
  });

  test("in a workload whose Sigstore instance is not known here is TRUST_INVALID", async () => {
    await using bucket = await tempFolder();
    const text = rootText(second);
    text.keys["oidc:ci"] = {
      type: "sigstore",
      trustDomain: "private",
      issuer: "https://i",
      san: "https://s",
    };
    text.roles.release[0]?.keys.push("oidc:ci");
    await plantRoot(bucket.source, 2, signedRoot(text, [rootKey]));
    await expect(
      rootTrust(first).resolve({ ...question, source: bucket.source }, never),
    ).rejects.toMatchObject({ code: "TRUST_INVALID", fields: { trustDomain: "private" } });
  });

  test("that fails is the verdict on a release, which is shown all the same", async () => {
    await using bucket = await tempFolder();
    await publishTo(bucket.source, one, { keys: [oldKey], trust: rootTrust(first) });
    const options = { source: bucket.source, withBodies: false, now: new Date(), trust: rootTrust(first) };
    expect(await inspectRelease(options, never)).toMatchObject({
      verdict: { kind: "verified" },
      threshold: 1,
    });
    await plantRoot(bucket.source, 2, signedRoot(rootText(second), [oldKey]));
    expect(await inspectRelease(options, never)).toMatchObject({
      verdict: { kind: "refused", error: { code: "ROOT_THRESHOLD" } },
      signatures: [{ isTrusted: false }],
    });
  });
});
