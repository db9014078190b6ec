import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { continues, rewritten } from "../../src/plan/continuity.ts";
import { assertNotExpired } from "../../src/release/expiry.ts";
import { layout } from "../../src/release/layout.ts";
import { writeManifest } from "../../src/release/manifest.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import type { HighWaterMark, Release } from "../../src/release/release.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Trust } from "../../src/release/trust.ts";
import type { Source, WritableSource } from "../../src/source/source.ts";
import {
  makeKeys,
  manifestOf,
  never,
  overwrite,
  plant,
  publishTo,
  readKey,
  rechained,
  tempFolder,
  trustOf,
} from "../support/release.ts";

const files = {
  "0001_users.up.sql": "create table users (id int);",
  "0002_email.up.sql": "alter table users add email text;",
  "0003_items.up.sql": "create table items (id int);",
};

interface Judged {
  readonly environment?: string;
  readonly trust: Trust;
  readonly highWaterMark?: HighWaterMark | undefined;
  readonly expected?: string;
  readonly now?: Date;
}

/** All that a runner does before its first statement: fetch, verify, and bring every body. */
async function take(source: Source, judged: Judged): Promise<Release> {
  const releases = signedReleases({
    source,
    stream: "orders",
    environment: "default",
    engine: "postgres",
    ...judged,
  });
  const context = {
    highWaterMark: judged.highWaterMark,
    expected: judged.expected,
    now: judged.now ?? new Date(),
  };
  const release = await releases.fetch({ ...context, applied: () => Promise.resolve([]) }, never);
  await releases.bodies(release, release.migrations, never);
  return release;
}

/** The code with which it is refused; fails when it is taken. */
async function refusal(taking: Promise<unknown>): Promise<string> {
  const error = await taking.then(
    () => new Error("it was taken"),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RunnerError)) throw error;
  return error.code;
}

/** A fresh prefix with one published release of `files`. */
async function published() {
  const { key, trust } = makeKeys();
  const folder = await tempFolder();
  const result = await publishTo(folder.source, files, { keys: [key] });
  return {
    key,
    trust,
    source: folder.source,
    result,
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

async function blobOf(source: WritableSource, trust: Trust, index: number): Promise<string> {
  const release = await take(source, { trust });
  return layout.blob(release.migrations[index]?.sha256 ?? "");
}

/** The manifest with one migration replaced. */
function altered(manifest: Manifest, index: number, change: object): Manifest {
  return {
    ...manifest,
    migrations: manifest.migrations.map((migration, at) =>
      at === index ? Object.assign({}, migration, change) : migration,
    ),
  };
}

describe("a tampered bucket", () => {
  test("attack 1: a flipped byte of a body is BLOB_DIGEST", async () => {
    await using bucket = await published();
    const key = await blobOf(bucket.source, bucket.trust, 1);
    const bytes = await readKey(bucket.source, key);
    bytes[3] = (bytes[3] ?? 0) ^ 1;
    await overwrite(bucket.source, key, bytes);
    expect(await refusal(take(bucket.source, bucket))).toBe("BLOB_DIGEST");
  });

  test.for([
    ["shorter", (bytes: Buffer) => bytes.subarray(1)],
    ["longer", (bytes: Buffer) => Buffer.concat([bytes, Buffer.from(" ")])],
    ["much longer", (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(1 << 20, 0x20)])],
    ["empty", () => Buffer.alloc(0)],
  ] as const)("attack 2: a body that is %s is BLOB_DIGEST", async ([, change]) => {
    await using bucket = await published();
    const key = await blobOf(bucket.source, bucket.trust, 0);
    await overwrite(bucket.source, key, change(await readKey(bucket.source, key)));
    expect(await refusal(take(bucket.source, bucket))).toBe("BLOB_DIGEST");
  });

  test("attack 3: two bodies in each other's place are BLOB_DIGEST", async () => {
    await using bucket = await published();
    const [first, last] = [
      await blobOf(bucket.source, bucket.trust, 0),
      await blobOf(bucket.source, bucket.trust, 2),
    ];
    const [one, other] = [await readKey(bucket.source, first), await readKey(bucket.source, last)];
    await overwrite(bucket.source, first, other);
    await overwrite(bucket.source, last, one);
    expect(await refusal(take(bucket.source, bucket))).toBe("BLOB_DIGEST");
  });

  test("attack 4: a manifest with two migrations swapped and hashed anew, but not signed, is MANIFEST_DIGEST", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const [first, second, third] = manifest.migrations;
    const swapped = rechained({
      ...manifest,
      migrations: [second, first, third].flatMap((migration, index) =>
        migration === undefined ? [] : [Object.assign({}, migration, { seq: index + 1 })],
      ),
    });
    await plant(bucket.source, { manifest, keys: [bucket.key] });
    await overwrite(bucket.source, layout.manifest(digestOf(manifest)), writeManifest(swapped));
    expect(await refusal(take(bucket.source, bucket))).toBe("MANIFEST_DIGEST");
  });

  test("attack 8: a manifest cut off in the middle is MANIFEST_DIGEST", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    await plant(bucket.source, { manifest, keys: [bucket.key] });
    await overwrite(
      bucket.source,
      layout.manifest(digestOf(manifest)),
      writeManifest(manifest).subarray(0, 300),
    );
    expect(await refusal(take(bucket.source, bucket))).toBe("MANIFEST_DIGEST");
  });

  test("attack 8: a manifest of another length than signed is MANIFEST_DIGEST, whatever its digest", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const manifestSize = writeManifest(manifest).length + 1;
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { manifestSize } });
    expect(await refusal(take(bucket.source, bucket))).toBe("MANIFEST_DIGEST");
  });

  test("attack 9: the manifest of one release under another's name is MANIFEST_DIGEST", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const other = manifestOf({ ...files, "0004_more.up.sql": "select 1;" });
    await plant(bucket.source, { manifest, keys: [bucket.key] });
    await overwrite(bucket.source, layout.manifest(digestOf(manifest)), writeManifest(other));
    expect(await refusal(take(bucket.source, bucket))).toBe("MANIFEST_DIGEST");
  });

  test("attack 18: a head held back does not matter to a caller who names the newest release", async () => {
    await using bucket = await published();
    const old = await readKey(bucket.source, layout.head);
    const more = { ...files, "0004_more.up.sql": "select 1;" };
    const { digest } = await publishTo(bucket.source, more, { keys: [bucket.key] });
    await overwrite(bucket.source, layout.head, old);
    expect((await take(bucket.source, { ...bucket, expected: digest })).migrations).toHaveLength(4);
  });

  test("attack 18: a release held back, or another in its place, is not taken for the one that the caller names", async () => {
    await using bucket = await published();
    const missing = `sha256:${"0".repeat(64)}`;
    expect(await refusal(take(bucket.source, { ...bucket, expected: missing }))).toBe("RELEASE_NOT_FOUND");
    const other = await readKey(bucket.source, layout.release(bucket.result.digest.slice(7)));
    await overwrite(bucket.source, layout.release("0".repeat(64)), other);
    expect(await refusal(take(bucket.source, { ...bucket, expected: missing }))).toBe("UNEXPECTED_RELEASE");
  });

  test("a missing body, manifest, release or head is an error that says which", async () => {
    await using bucket = await published();
    const { key, trust } = bucket;
    await using empty = await tempFolder();
    expect(await refusal(take(empty.source, { trust }))).toBe("RELEASE_NOT_FOUND");
    await plant(empty.source, { manifest: manifestOf(files), keys: [key] });
    // bodies are asked for side by side: which is missed first is chance
    await expect(take(empty.source, { trust })).rejects.toThrow(
      /"000\d_[a-z_]+\.up\.sql" is not in the source/,
    );
    expect(await refusal(take(empty.source, { trust }))).toBe("SOURCE_NOT_FOUND");
  });
});

describe("a release signed by a buggy or a hostile signer", () => {
  const manifest = manifestOf(files);

  test.for([
    ["a number twice", altered(manifest, 1, { seq: 1 }), "SEQ"],
    ["a number left out", rechained(altered(manifest, 2, { seq: 4 })), "SEQ"],
    ["a chain of other bytes", altered(manifest, 1, { chain: "0".repeat(64) }), "CHAIN"],
    ["a size that the chain does not have", altered(manifest, 0, { size: 1 }), "CHAIN"],
  ] as const)("attack 5: %s is refused", async ([, wrong, code]) => {
    await using bucket = await published();
    await plant(bucket.source, { manifest: wrong, keys: [bucket.key] });
    expect(await refusal(take(bucket.source, bucket))).toBe(code);
  });

  test("attack 6: the last migration dropped under the old head of the chain is CHAIN_HEAD", async () => {
    await using bucket = await published();
    const shorter = { ...manifest, migrations: manifest.migrations.slice(0, 2) };
    const chain = { length: 3, head: manifest.migrations[2]?.chain ?? "" };
    await plant(bucket.source, { manifest: shorter, keys: [bucket.key], statement: { chain } });
    expect(await refusal(take(bucket.source, bucket))).toBe("CHAIN_HEAD");
  });

  test("attack 7: a migration under another name is CHAIN", async () => {
    await using bucket = await published();
    await plant(bucket.source, {
      manifest: altered(manifest, 0, { path: "0001_drop.up.sql" }),
      keys: [bucket.key],
    });
    expect(await refusal(take(bucket.source, bucket))).toBe("CHAIN");
  });

  test("attack 12: a release of another stream is WRONG_STREAM, in its statement and in its manifest", async () => {
    await using bucket = await published();
    await plant(bucket.source, {
      manifest: manifestOf(files, "billing"),
      keys: [bucket.key],
      statement: { stream: "billing" },
    });
    expect(await refusal(take(bucket.source, bucket))).toBe("WRONG_STREAM");
    await plant(bucket.source, { manifest: manifestOf(files, "billing"), keys: [bucket.key] });
    expect(await refusal(take(bucket.source, bucket))).toBe("WRONG_STREAM");
  });

  test("attack 13: a release for staging is WRONG_ENVIRONMENT in production", async () => {
    await using bucket = await published();
    await plant(bucket.source, {
      manifest,
      keys: [bucket.key],
      statement: { environments: ["staging", "production-eu"] },
    });
    expect(await refusal(take(bucket.source, { ...bucket, environment: "production" }))).toBe(
      "WRONG_ENVIRONMENT",
    );
  });

  test("a release for another engine is WRONG_ENGINE", async () => {
    await using bucket = await published();
    await plant(bucket.source, { manifest: { ...manifest, engine: "mongodb" }, keys: [bucket.key] });
    expect(await refusal(take(bucket.source, bucket))).toBe("WRONG_ENGINE");
  });

  test.for([["base", { base: { length: 1, chain: "0".repeat(64) } }]] as const)(
    "the field %s, which this version cannot honour, is RELEASE_UNSUPPORTED",
    async ([, field]) => {
      await using bucket = await published();
      await plant(bucket.source, { manifest: withFields(manifest, field), keys: [bucket.key] });
      expect(await refusal(take(bucket.source, bucket))).toBe("RELEASE_UNSUPPORTED");
    },
  );
});

describe("an older release", () => {
  test("attack 10: a signed release below the high-water mark is ROLLBACK", async () => {
    await using bucket = await published();
    const old = await readKey(bucket.source, layout.head);
    const newer = await publishTo(
      bucket.source,
      { ...files, "0004_more.up.sql": "select 1;" },
      { keys: [bucket.key] },
    );
    await overwrite(bucket.source, layout.head, old);
    const highWaterMark = { epoch: 1, version: 2, digest: newer.digest };
    expect(await refusal(take(bucket.source, { ...bucket, highWaterMark }))).toBe("ROLLBACK");
    expect(
      await refusal(take(bucket.source, { ...bucket, highWaterMark, expected: bucket.result.digest })),
    ).toBe("ROLLBACK");
  });

  test("attack 11: another release with the version of the mark is EQUIVOCATION", async () => {
    await using bucket = await published();
    const highWaterMark = { epoch: 1, version: 1, digest: `sha256:${"1".repeat(64)}` };
    expect(await refusal(take(bucket.source, { ...bucket, highWaterMark }))).toBe("EQUIVOCATION");
    expect(
      (
        await take(bucket.source, {
          ...bucket,
          highWaterMark: { epoch: 1, version: 1, digest: bucket.result.digest },
        })
      ).kind,
    ).toBe("signed");
  });

  test("attack 11: a release that follows another one than the mark is EQUIVOCATION, but may leave some out", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    await plant(bucket.source, {
      manifest,
      keys: [bucket.key],
      statement: { version: 2, previous: `sha256:${"2".repeat(64)}` },
    });
    const highWaterMark = { epoch: 1, version: 1, digest: bucket.result.digest };
    expect(await refusal(take(bucket.source, { ...bucket, highWaterMark }))).toBe("EQUIVOCATION");
    await plant(bucket.source, {
      manifest,
      keys: [bucket.key],
      statement: { version: 3, previous: `sha256:${"2".repeat(64)}` },
    });
    expect((await take(bucket.source, { ...bucket, highWaterMark })).rank).toEqual({ epoch: 1, version: 3 });
  });

  test("attack 14: an applied migration edited in a newer, rightly signed release is HISTORY_REWRITTEN", async () => {
    await using bucket = await published();
    const edited = manifestOf({ ...files, "0002_email.up.sql": "drop table users;" });
    await plant(bucket.source, {
      manifest: edited,
      keys: [bucket.key],
      statement: { version: 2, previous: bucket.result.digest },
    });
    const release = await fetchOnly(bucket.source, bucket.trust);
    expect(
      continues(release, { length: 3, chain: manifestOf(files).migrations[2]?.chain ?? "", version: "0003" }),
    ).toBe(false);
    expect(rewritten(release, [])).toMatchObject({ code: "HISTORY_REWRITTEN" });
  });

  test("attack 15: a history longer than the manifest is HISTORY_REWRITTEN", async () => {
    await using bucket = await published();
    const release = await take(bucket.source, bucket);
    expect(
      continues(release, { length: 4, chain: release.migrations[2]?.chain ?? "", version: "0004" }),
    ).toBe(false);
  });

  test("attack 16: an expired release is fetched, and refused as RELEASE_EXPIRED only where something is pending", async () => {
    await using bucket = await published();
    const now = new Date(Date.now() + 91 * 86_400_000);
    const release = await take(bucket.source, { ...bucket, now });
    expect(() => assertNotExpired(release, now)).toThrow(
      expect.objectContaining({ code: "RELEASE_EXPIRED" }),
    );
    expect(() => assertNotExpired(release, new Date())).not.toThrow();
  });

  test("attack 17: a release issued in the future is ISSUED_IN_FUTURE, with five minutes for clocks", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const soon = (minutes: number) => new Date(Math.floor(Date.now() / 1000 + minutes * 60) * 1000);
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { issued: soon(6) } });
    expect(await refusal(take(bucket.source, bucket))).toBe("ISSUED_IN_FUTURE");
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { issued: soon(4) } });
    expect((await fetchOnly(bucket.source, bucket.trust)).kind).toBe("signed");
  });

  test("a release that is valid for longer than the trust allows, or for no time, is VALIDITY", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const trust = trustOf([bucket.key], { release: { default: { maxValidityDays: 30 } } });
    expect(await refusal(take(bucket.source, { trust }))).toBe("VALIDITY");
    const issued = new Date(0);
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { issued, expires: issued } });
    expect(await refusal(take(bucket.source, { trust: bucket.trust }))).toBe("VALIDITY");
  });

  test("attack 19: after a stolen key used up the versions, the next epoch recovers", async () => {
    await using bucket = await published();
    const thief = makeKeys();
    const stolen = {
      manifest: manifestOf(files),
      keys: [thief.key],
      statement: { version: Number.MAX_SAFE_INTEGER },
    };
    const digest = await plant(bucket.source, stolen);
    const highWaterMark = { epoch: 1, version: Number.MAX_SAFE_INTEGER, digest };
    const recovered = await publishTo(
      bucket.source,
      { ...files, "0004_more.up.sql": "select 1;" },
      {
        keys: [bucket.key],
        epoch: 2,
        follow: bucket.result.digest,
      },
    );
    expect(recovered).toMatchObject({ published: true, epoch: 2, version: 1, migrations: 4 });
    const release = await take(bucket.source, { ...bucket, highWaterMark });
    expect(release.rank).toEqual({ epoch: 2, version: 1 });
  });

  test("a release that the trust has revoked, or that lies below its lowest version, is RELEASE_REVOKED", async () => {
    await using bucket = await published();
    const revoked = trustOf([bucket.key], { revoked: { releases: [bucket.result.digest] } });
    expect(await refusal(take(bucket.source, { trust: revoked }))).toBe("RELEASE_REVOKED");
    expect(await refusal(take(bucket.source, { trust: trustOf([bucket.key], { minVersion: 2 }) }))).toBe(
      "RELEASE_REVOKED",
    );
  });
});

async function fetchOnly(source: Source, trust: Trust): Promise<Release> {
  const releases = signedReleases({
    source,
    stream: "orders",
    environment: "default",
    engine: "postgres",
    trust,
  });
  const context = {
    highWaterMark: undefined,
    expected: undefined,
    now: new Date(),
    applied: () => Promise.resolve([]),
  };
  return releases.fetch(context, never);
}

function digestOf(manifest: Manifest): string {
  return sha256Hex(writeManifest(manifest));
}

function withFields(manifest: Manifest, fields: object): Buffer {
  return Buffer.from(JSON.stringify({ ...JSON.parse(writeManifest(manifest).toString()), ...fields }));
}
