import { beforeAll, describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { writeHead } from "../../src/release/head.ts";
import { layout } from "../../src/release/layout.ts";
import { writeManifest } from "../../src/release/manifest.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import type { Release } from "../../src/release/release.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import type { Source, WritableSource } from "../../src/source/source.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import {
  type Files,
  makeKey,
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
import { refusedOn, runOn } from "./site.ts";

const files = {
  "0001_users.up.sql": "create table users (id int);",
  "0002_email.up.sql": "alter table users add email text;",
  "0003_items.up.sql": "create table items (id int);",
};

interface Judged {
  readonly environment?: string;
  readonly trust: Trust;
  readonly expected?: string;
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
    highWaterMark: undefined,
    expected: judged.expected,
    now: new Date(),
  };
  const release = await releases.fetch({ ...context, applied: () => Promise.resolve([]) }, never);
  await releases.bodies(release, release.migrations, never);
  return release;
}

/** Empty, and as empty after each attack: none may leave a table, a row of the history or word of a release. */
let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase({ endsWith: "file" });
});

/** The code with which a whole run is refused, on a database that is unchanged afterwards. */
async function refusal(source: Source, { expected, ...judged }: Judged): Promise<string> {
  return refusedOn(database, { source, ...judged }, { release: expected ?? null });
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
  test("1 a flipped byte of a body is BLOB_DIGEST", async () => {
    await using bucket = await published();
    const key = await blobOf(bucket.source, bucket.trust, 1);
    const bytes = await readKey(bucket.source, key);
    bytes[3] = (bytes[3] ?? 0) ^ 1;
    await overwrite(bucket.source, key, bytes);
    expect(await refusal(bucket.source, bucket)).toBe("BLOB_DIGEST");
  });

  test.for([
    ["shorter", (bytes: Buffer) => bytes.subarray(1)],
    ["longer", (bytes: Buffer) => Buffer.concat([bytes, Buffer.from(" ")])],
    ["much longer", (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(1 << 20, 0x20)])],
    ["empty", () => Buffer.alloc(0)],
  ] as const)("2 a body that is %s is BLOB_DIGEST", async ([, change]) => {
    await using bucket = await published();
    const key = await blobOf(bucket.source, bucket.trust, 0);
    await overwrite(bucket.source, key, change(await readKey(bucket.source, key)));
    expect(await refusal(bucket.source, bucket)).toBe("BLOB_DIGEST");
  });

  test("3 two bodies in each other's place are BLOB_DIGEST", async () => {
    await using bucket = await published();
    const [first, last] = [
      await blobOf(bucket.source, bucket.trust, 0),
      await blobOf(bucket.source, bucket.trust, 2),
    ];
    const [one, other] = [await readKey(bucket.source, first), await readKey(bucket.source, last)];
    await overwrite(bucket.source, first, other);
    await overwrite(bucket.source, last, one);
    expect(await refusal(bucket.source, bucket)).toBe("BLOB_DIGEST");
  });

  test("4 a manifest with two migrations swapped and hashed anew, but not signed, is MANIFEST_DIGEST", async () => {
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
    expect(await refusal(bucket.source, bucket)).toBe("MANIFEST_DIGEST");
  });

  test("8 a manifest cut off in the middle is MANIFEST_DIGEST", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    await plant(bucket.source, { manifest, keys: [bucket.key] });
    await overwrite(
      bucket.source,
      layout.manifest(digestOf(manifest)),
      writeManifest(manifest).subarray(0, 300),
    );
    expect(await refusal(bucket.source, bucket)).toBe("MANIFEST_DIGEST");
  });

  test("8 a manifest of another length than signed is MANIFEST_DIGEST, whatever its digest", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const manifestSize = writeManifest(manifest).length + 1;
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { manifestSize } });
    expect(await refusal(bucket.source, bucket)).toBe("MANIFEST_DIGEST");
  });

  test("9 the manifest of one release under another's name is MANIFEST_DIGEST", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const other = manifestOf({ ...files, "0004_more.up.sql": "select 1;" });
    await plant(bucket.source, { manifest, keys: [bucket.key] });
    await overwrite(bucket.source, layout.manifest(digestOf(manifest)), writeManifest(other));
    expect(await refusal(bucket.source, bucket)).toBe("MANIFEST_DIGEST");
  });

  test("18 a head held back does not matter to a caller who names the newest release", async () => {
    await using bucket = await published();
    const old = await readKey(bucket.source, layout.head);
    const more = { ...files, "0004_more.up.sql": "select 1;" };
    const { digest } = await publishTo(bucket.source, more, { keys: [bucket.key] });
    await overwrite(bucket.source, layout.head, old);
    expect((await take(bucket.source, { ...bucket, expected: digest })).migrations).toHaveLength(4);
  });

  test("18 a release held back, or another in its place, is not taken for the one that the caller names", async () => {
    await using bucket = await published();
    const missing = `sha256:${"0".repeat(64)}`;
    expect(await refusal(bucket.source, { ...bucket, expected: missing })).toBe("RELEASE_NOT_FOUND");
    const other = await readKey(bucket.source, layout.release(bucket.result.digest.slice(7)));
    await overwrite(bucket.source, layout.release("0".repeat(64)), other);
    expect(await refusal(bucket.source, { ...bucket, expected: missing })).toBe("UNEXPECTED_RELEASE");
  });

  test("a missing body, manifest, release or head is an error that says which", async () => {
    await using bucket = await published();
    const { key, trust } = bucket;
    await using empty = await tempFolder();
    expect(await refusal(empty.source, { trust })).toBe("RELEASE_NOT_FOUND");
    await plant(empty.source, { manifest: manifestOf(files), keys: [key] });
    // bodies are asked for side by side: which is missed first is chance
    await expect(take(empty.source, { trust })).rejects.toThrow(
      /"000\d_[a-z_]+\.up\.sql" is not in the source/,
    );
    expect(await refusal(empty.source, { trust })).toBe("SOURCE_NOT_FOUND");
  });
});

describe("a release signed by a buggy or a hostile signer", () => {
  const manifest = manifestOf(files);

  test.for([
    ["a number twice", altered(manifest, 1, { seq: 1 }), "SEQ"],
    ["a number left out", rechained(altered(manifest, 2, { seq: 4 })), "SEQ"],
    ["a chain of other bytes", altered(manifest, 1, { chain: "0".repeat(64) }), "CHAIN"],
    ["a size that the chain does not have", altered(manifest, 0, { size: 1 }), "CHAIN"],
  ] as const)("5 %s is refused", async ([, wrong, code]) => {
    await using bucket = await published();
    await plant(bucket.source, { manifest: wrong, keys: [bucket.key] });
    expect(await refusal(bucket.source, bucket)).toBe(code);
  });

  test("6 the last migration dropped under the old head of the chain is CHAIN_HEAD", async () => {
    await using bucket = await published();
    const shorter = { ...manifest, migrations: manifest.migrations.slice(0, 2) };
    const chain = { length: 3, head: manifest.migrations[2]?.chain ?? "" };
    await plant(bucket.source, { manifest: shorter, keys: [bucket.key], statement: { chain } });
    expect(await refusal(bucket.source, bucket)).toBe("CHAIN_HEAD");
  });

  test("7 a migration under another name is CHAIN", async () => {
    await using bucket = await published();
    await plant(bucket.source, {
      manifest: altered(manifest, 0, { path: "0001_drop.up.sql" }),
      keys: [bucket.key],
    });
    expect(await refusal(bucket.source, bucket)).toBe("CHAIN");
  });

  test("12 a release of another stream is WRONG_STREAM, in its statement and in its manifest", async () => {
    await using bucket = await published();
    await plant(bucket.source, {
      manifest: manifestOf(files, "billing"),
      keys: [bucket.key],
      statement: { stream: "billing" },
    });
    expect(await refusal(bucket.source, bucket)).toBe("WRONG_STREAM");
    await plant(bucket.source, { manifest: manifestOf(files, "billing"), keys: [bucket.key] });
    expect(await refusal(bucket.source, bucket)).toBe("WRONG_STREAM");
  });

  test("13 a release for staging is WRONG_ENVIRONMENT in production", async () => {
    await using bucket = await published();
    await plant(bucket.source, {
      manifest,
      keys: [bucket.key],
      statement: { environments: ["staging", "production-eu"] },
    });
    expect(await refusal(bucket.source, { ...bucket, environment: "production" })).toBe("WRONG_ENVIRONMENT");
  });

  test("a release for another engine is WRONG_ENGINE", async () => {
    await using bucket = await published();
    await plant(bucket.source, { manifest: { ...manifest, engine: "mongodb" }, keys: [bucket.key] });
    expect(await refusal(bucket.source, bucket)).toBe("WRONG_ENGINE");
  });

  test.for([["base", { base: { length: 1, chain: "0".repeat(64) } }]] as const)(
    "the field %s, which this version cannot honour, is RELEASE_UNSUPPORTED",
    async ([, field]) => {
      await using bucket = await published();
      await plant(bucket.source, { manifest: withFields(manifest, field), keys: [bucket.key] });
      expect(await refusal(bucket.source, bucket)).toBe("RELEASE_UNSUPPORTED");
    },
  );
});

describe("a release out of its time", () => {
  test("17 a release issued in the future is ISSUED_IN_FUTURE, with five minutes for clocks", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const soon = (minutes: number) => new Date(Math.floor(Date.now() / 1000 + minutes * 60) * 1000);
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { issued: soon(6) } });
    expect(await refusal(bucket.source, bucket)).toBe("ISSUED_IN_FUTURE");
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { issued: soon(4) } });
    expect((await fetchOnly(bucket.source, bucket.trust)).kind).toBe("signed");
  });

  test("a release that is valid for longer than the trust allows, or for no time, is VALIDITY", async () => {
    await using bucket = await published();
    const manifest = manifestOf(files);
    const trust = trustOf([bucket.key], { release: { default: { maxValidityDays: 30 } } });
    expect(await refusal(bucket.source, { trust })).toBe("VALIDITY");
    const issued = new Date(0);
    await plant(bucket.source, { manifest, keys: [bucket.key], statement: { issued, expires: issued } });
    expect(await refusal(bucket.source, { trust: bucket.trust })).toBe("VALIDITY");
  });

  test("a release that the trust has revoked, or that lies below its lowest version, is RELEASE_REVOKED", async () => {
    await using bucket = await published();
    const revoked = trustOf([bucket.key], { revoked: { releases: [bucket.result.digest] } });
    expect(await refusal(bucket.source, { trust: revoked })).toBe("RELEASE_REVOKED");
    expect(await refusal(bucket.source, { trust: trustOf([bucket.key], { minVersion: 2 }) })).toBe(
      "RELEASE_REVOKED",
    );
  });
});

/** Two migrations of release 1 in the bucket and applied; `publish` adds to the bucket alone. */
async function applied() {
  const bucket = await published();
  const database = await createDatabase();
  expect(await runOn(database, bucket)).toMatchObject({ status: "succeeded", to: { length: 3 } });
  return {
    ...bucket,
    database,
    publish: (more: Files, rest: object = {}) =>
      publishTo(bucket.source, { ...files, ...more }, { keys: [bucket.key], ...rest }),
    refusal: (request?: Parameters<typeof refusedOn>[2]) => refusedOn(database, bucket, request),
    run: () => runOn(database, bucket),
  };
}

const more = { "0004_more.up.sql": "create table more (id int);" };

describe("a database that knows a release", () => {
  test("10 an older signed release, at the head or named by its digest, is ROLLBACK", async () => {
    await using site = await applied();
    const old = await readKey(site.source, layout.head);
    await site.publish(more);
    expect(await site.run()).toMatchObject({ outcome: "applied", to: { length: 4 } });
    await overwrite(site.source, layout.head, old);
    expect(await site.refusal()).toBe("ROLLBACK");
    expect(await site.refusal({ release: site.result.digest })).toBe("ROLLBACK");
  });

  test("11 another release with the same version is EQUIVOCATION", async () => {
    await using site = await applied();
    await plant(site.source, { manifest: manifestOf({ ...files, ...more }), keys: [site.key] });
    expect(await site.refusal()).toBe("EQUIVOCATION");
    const head = { epoch: 1, version: 1, digest: site.result.digest };
    await overwrite(site.source, layout.head, writeHead(head));
    expect(await site.run()).toMatchObject({ status: "succeeded", outcome: "noop" });
  });

  test("11 a release that follows another one than the known is EQUIVOCATION, but may leave some out", async () => {
    await using site = await applied();
    await site.publish(more);
    const { migrations } = await take(site.source, site);
    const manifest = { ...manifestOf(files), migrations };
    const previous = `sha256:${"2".repeat(64)}`;
    await plant(site.source, { manifest, keys: [site.key], statement: { version: 2, previous } });
    expect(await site.refusal()).toBe("EQUIVOCATION");
    await plant(site.source, { manifest, keys: [site.key], statement: { version: 3, previous } });
    expect(await site.run()).toMatchObject({ outcome: "applied", release: { version: 3 } });
  });

  test("14 an applied migration edited in a newer, rightly signed release is HISTORY_REWRITTEN", async () => {
    await using site = await applied();
    await plant(site.source, {
      manifest: manifestOf({ ...files, "0002_email.up.sql": "drop table users;", ...more }),
      keys: [site.key],
      statement: { version: 2, previous: site.result.digest },
    });
    expect(await site.refusal()).toBe("HISTORY_REWRITTEN");
  });

  test("15 a rightly signed release that is shorter than the history is HISTORY_REWRITTEN", async () => {
    await using site = await applied();
    const { migrations, ...rest } = manifestOf(files);
    await plant(site.source, {
      manifest: { ...rest, migrations: migrations.slice(0, 2) },
      keys: [site.key],
      statement: { version: 2, previous: site.result.digest },
    });
    expect(await site.refusal()).toBe("HISTORY_REWRITTEN");
  });

  test("16 an expired release with something pending is RELEASE_EXPIRED, and with nothing pending a success that is not fresh", async () => {
    await using site = await applied();
    const daysAgo = (days: number) => new Date(Math.floor(Date.now() / 1000 - days * 86_400) * 1000);
    const past = { issued: daysAgo(60), expires: daysAgo(1), previous: site.result.digest };
    const same = await plant(site.source, {
      manifest: manifestOf(files),
      keys: [site.key],
      statement: { ...past, version: 2 },
    });
    expect(await site.run()).toMatchObject({ status: "succeeded", done: [], fresh: false });
    await plant(site.source, {
      manifest: manifestOf({ ...files, ...more }),
      keys: [site.key],
      statement: { ...past, version: 3, previous: same },
    });
    expect(await site.refusal()).toBe("RELEASE_EXPIRED");
  });

  test("19 after a stolen key used up the versions, the next epoch recovers", async () => {
    await using site = await applied();
    const thief = makeKey();
    const stolen = trustOf([site.key, thief]);
    const version = Number.MAX_SAFE_INTEGER;
    await plant(site.source, { manifest: manifestOf(files), keys: [thief], statement: { version } });
    await site.database.query("UPDATE lockkeeper.streams SET version = $1, release = $2", [
      version,
      `sha256:${"3".repeat(64)}`,
    ]);
    const honest = await site.publish(more, { epoch: 2, follow: site.result.digest });
    expect(honest).toMatchObject({ published: true, epoch: 2, version: 1, migrations: 4 });
    expect(await runOn(site.database, { source: site.source, trust: stolen })).toMatchObject({
      outcome: "applied",
      to: { length: 4 },
    });
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
