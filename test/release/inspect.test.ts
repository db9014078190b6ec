import { describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { inspectRelease } from "../../src/release/inspect.ts";
import type { InspectOptions } from "../../src/release/inspect.ts";
import { layout } from "../../src/release/layout.ts";
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
      bodies: { count: 3, bytes: Object.values(more).join("").length },
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

  test("names the migrations that it rewrites", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const manifest = manifestOf({ "1_users.up.sql": "drop table users;" });
    await plant(bucket.source, { manifest, keys: [key], statement: { version: 2, previous: first.digest } });
    expect((await inspect(bucket.source)).changes).toMatchObject({
      rewritten: ["1_users.up.sql"],
      added: [],
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

  test("that is not there is RELEASE_NOT_FOUND", async () => {
    await using bucket = await tempFolder();
    await expect(inspect(bucket.source)).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
    for (const digest of [`sha256:${"0".repeat(64)}`, "newest", "sha256:../../head.json"]) {
      await expect(inspect(bucket.source, { digest })).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
    }
  });
});
