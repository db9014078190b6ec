import { describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { inspectRelease } from "../../src/release/review/inspect.ts";
import type { InspectOptions } from "../../src/release/review/inspect.ts";
import { writeHead } from "../../src/release/head.ts";
import { layout } from "../../src/release/layout.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import { readStoredRelease } from "../../src/release/review/stored-release.ts";
import type { Source } from "../../src/source/source.ts";
import {
  makeKey,
  makeKeys,
  manifestOf,
  never,
  overwrite,
  plant,
  publishTo,
  tempFolder,
  trustOf,
} from "../support/release.ts";

const files = { "1_users.up.sql": "create table users (id int);", "1_users.down.sql": "drop table users;" };
const more = {
  ...files,
  "1_users.down.sql": "drop table if exists users;",
  "2_email.up.sql": "alter table users add email text;",
};

function inspect(source: Source, options: Partial<InspectOptions> = {}) {
  return inspectRelease({ source, withBodies: false, now: new Date(), ...options }, never);
}

describe("an inspected release", () => {
  test("shows what it says, who signed it and what it changes", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const stranger = makeKey();
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const second = await publishTo(bucket.source, more, { keys: [key, stranger] });
    expect(await inspect(bucket.source, { trust, withBodies: true })).toMatchObject({
      digest: second.digest,
      place: "newest",
      isExpired: false,
      statement: { stream: "orders", version: 2, previous: first.digest, environments: ["default"] },
      signatures: [
        { keyId: key.id, kind: "ecdsa-p256", isTrusted: true },
        { keyId: stranger.id, kind: null, isTrusted: false },
      ],
      threshold: 1,
      verdict: { kind: "verified" },
      changes: {
        against: { kind: "release", digest: first.digest, version: 1, isTrusted: true },
        added: ["2_email.up.sql"],
        rewritten: [],
        downChanged: ["1_users.up.sql"],
      },
      bodies: { count: 3, bytes: Object.values(more).join("").length, misdescribed: [] },
    });
  });

  test("is shown without a trust, and then neither verified nor refused", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const first = await publishTo(bucket.source, files, { keys: [key] });
    await publishTo(bucket.source, more, { keys: [key] });
    expect(await inspect(bucket.source, { digest: first.digest })).toMatchObject({
      place: "older",
      verdict: { kind: "unknown" },
      threshold: null,
      changes: { against: { kind: "nothing", why: "first" }, added: ["1_users.up.sql"] },
      bodies: null,
      signatures: [{ keyId: key.id, isTrusted: false }],
    });
  });

  test("that a runner would refuse is shown with the reason", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, files, { keys: [key] });
    const cases = [
      [{ trust: trustOf([makeKey()]) }, "THRESHOLD"],
      [{ trust, environment: "production" }, "WRONG_ENVIRONMENT"],
      [{ trust, stream: "billing" }, "WRONG_STREAM"],
      [{ trust, engine: "mongodb" }, "WRONG_ENGINE"],
    ] as const;
    for (const [options, code] of cases) {
      expect((await inspect(bucket.source, options)).verdict).toMatchObject({
        kind: "refused",
        error: { code },
      });
    }
    const later = new Date(Date.now() + 91 * 86_400_000);
    expect(await inspect(bucket.source, { trust, now: later })).toMatchObject({
      isExpired: true,
      verdict: { kind: "verified" },
    });
  });

  test("names the migrations that it rewrites, and what stands in their place as new", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const one = { "1_users.up.sql": files["1_users.up.sql"] };
    const first = await plant(bucket.source, {
      manifest: manifestOf({ ...one, "2_bad.up.sql": "drop table orders;", "3_more.up.sql": "select 3;" }),
      keys: [key],
    });
    const manifest = manifestOf({ ...one, "2_good.up.sql": "select 2;", "3_more.up.sql": "select 3;" });
    await plant(bucket.source, { manifest, keys: [key], statement: { version: 2, previous: first } });
    expect((await inspect(bucket.source)).changes).toMatchObject({
      rewritten: ["2_bad.up.sql", "3_more.up.sql"],
      added: ["2_good.up.sql", "3_more.up.sql"],
    });
  });

  test("with a changed body is BLOB_DIGEST when bodies are asked for", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    await publishTo(bucket.source, files, { keys: [key] });
    await overwrite(
      bucket.source,
      layout.blob(sha256Hex(files["1_users.down.sql"])),
      Buffer.from("drop table orders;"),
    );
    await expect(inspect(bucket.source, { withBodies: true })).rejects.toMatchObject({ code: "BLOB_DIGEST" });
  });

  test("names each body of which it says what the file does not hold", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const indexes = "create index concurrently a on t (id);\n-- drop table t;\n";
    const { digest } = await publishTo(
      bucket.source,
      { ...more, "3_index.up.sql": indexes, "4_twin.up.sql": indexes },
      { keys: [key] },
    );
    const { manifest } = await readStoredRelease(bucket.source, digest, never);
    const show = async (changed: object, path: string) => {
      const migrations = manifest.migrations.map((one) =>
        one.path === path ? Object.assign({}, one, changed) : one,
      );
      await plant(bucket.source, { manifest: { ...manifest, migrations }, keys: [key] });
      return (await inspect(bucket.source, { trust, withBodies: true })).bodies?.misdescribed;
    };
    const hidden = [{ offset: indexes.indexOf("drop"), length: 12, kind: "once" }];
    expect(await show({}, "")).toEqual([]);
    for (const change of [{ statements: hidden }, { statements: [] }])
      expect(await show(change, "3_index.up.sql")).toEqual(["3_index.up.sql"]);
    expect(await show({ code: true }, "2_email.up.sql")).toEqual(["2_email.up.sql"]);
    expect(await show({ alone: false }, "2_email.up.sql")).toEqual(["2_email.up.sql"]);
  });

  test("that is not there is RELEASE_NOT_FOUND", async () => {
    await using bucket = await tempFolder();
    await expect(inspect(bucket.source)).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
    for (const digest of [`sha256:${"0".repeat(64)}`, "newest", "sha256:../../head.json"]) {
      await expect(inspect(bucket.source, { digest })).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
    }
  });
});

describe("what a release is compared with", () => {
  const [alice, bob] = [makeKey(), makeKey("ed25519")];
  const trust = trustOf([alice, bob], { release: { production: { threshold: 2 } } });
  const environments = ["production", "staging"];

  test("is never one that its first signer made up: what is hidden in that counts as new", async () => {
    await using bucket = await tempFolder();
    const good = await publishTo(bucket.source, files, { keys: [alice, bob], environments });
    const evil = { "2_evil.up.sql": "drop table users;" };
    const forged = manifestOf({ "1_users.up.sql": files["1_users.up.sql"], ...evil });
    const before = await plant(bucket.source, {
      manifest: forged,
      keys: [alice],
      statement: { version: 2, previous: good.digest, environments: ["staging"] },
    });
    const offered = await plant(bucket.source, {
      manifest: manifestOf({
        "1_users.up.sql": files["1_users.up.sql"],
        ...evil,
        "3_harmless.up.sql": "select 1;",
      }),
      keys: [alice],
      statement: { version: 3, previous: before, environments },
    });
    await overwrite(bucket.source, layout.head, writeHead({ epoch: 1, version: 1, digest: good.digest }));
    expect(await inspect(bucket.source, { trust, digest: offered })).toMatchObject({
      place: "waiting",
      environment: "production",
      threshold: 2,
      verdict: { kind: "refused", error: { code: "THRESHOLD" } },
      changes: {
        against: { kind: "release", digest: good.digest, version: 1, isTrusted: true },
        added: ["2_evil.up.sql", "3_harmless.up.sql"],
      },
    });
    // and without anything that can be believed, everything is new
    await overwrite(bucket.source, layout.head, writeHead({ epoch: 1, version: 2, digest: before }));
    expect((await inspect(bucket.source, { trust, digest: offered })).changes).toMatchObject({
      against: { kind: "nothing", why: "untrusted" },
      added: ["1_users.up.sql", "2_evil.up.sql", "3_harmless.up.sql"],
    });
  });

  test("shows repeatables, checkpoints and environments that are new, other or gone", async () => {
    await using bucket = await tempFolder();
    const body = (path: string, sha256: string) =>
      ({ path, sha256: sha256.repeat(64), size: 1, tx: "one", alone: true, locks: [] }) as const;
    const base = manifestOf({ "1_users.up.sql": files["1_users.up.sql"] });
    const withBodies = (repeatable: Manifest["repeatable"], checkpoint: string): Manifest => ({
      ...base,
      repeatable,
      migrations: base.migrations.map((migration) =>
        Object.assign({}, migration, { checkpoint: body("C1.sql", checkpoint) }),
      ),
    });
    const first = await plant(bucket.source, {
      manifest: withBodies([body("R__a.sql", "a"), body("R__b.sql", "b")], "c"),
      keys: [alice],
      statement: { environments: ["staging"] },
    });
    await plant(bucket.source, {
      manifest: withBodies([body("R__b.sql", "d"), body("R__c.sql", "e")], "f"),
      keys: [alice],
      statement: { version: 2, previous: first, environments: ["production"] },
    });
    expect((await inspect(bucket.source)).changes).toEqual({
      against: { kind: "release", digest: first, version: 1, epoch: 1, isTrusted: null },
      added: [],
      rewritten: [],
      downChanged: [],
      checkpointChanged: ["1_users.up.sql"],
      repeatableChanged: ["R__b.sql", "R__c.sql"],
      repeatableGone: ["R__a.sql"],
      environmentsAdded: ["production"],
      environmentsGone: ["staging"],
    });
  });

  test("is told to be wrong by its chain before anybody adds a signature to it", async () => {
    await using bucket = await tempFolder();
    const right = manifestOf({ "1_users.up.sql": "select 1;", "2_email.up.sql": "select 2;" });
    const manifest = { ...right, migrations: right.migrations.toReversed() };
    await plant(bucket.source, { manifest, keys: [alice], statement: { environments } });
    expect((await inspect(bucket.source)).verdict).toMatchObject({ kind: "refused", error: { code: "SEQ" } });
    expect((await inspect(bucket.source, { trust })).verdict).toMatchObject({
      kind: "refused",
      error: { code: "SEQ" },
    });
  });
});
