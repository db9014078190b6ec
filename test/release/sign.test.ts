import { describe, expect, test } from "vitest";

import { readEnvelopes } from "../../src/release/envelope.ts";
import { readHead } from "../../src/release/head.ts";
import { layout } from "../../src/release/layout.ts";
import { signRelease } from "../../src/release/sign.ts";
import type { SignOptions } from "../../src/release/sign.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { makeKey, never, overwrite, publishTo, readKey, tempFolder, trustOf } from "../support/release.ts";

const files = { "1_users.up.sql": "create table users (id int);" };
const more = { ...files, "2_email.up.sql": "alter table users add email text;" };
const [alice, bob, carol] = [makeKey(), makeKey("ed25519"), makeKey()];
const trust = trustOf([alice, bob, carol], { release: { production: { threshold: 2 } } });
const environments = ["staging", "production"];

/** A release that Alice has signed, and that waits for one more. */
async function waiting() {
  const bucket = await tempFolder();
  const { digest } = await publishTo(bucket.source, files, { keys: [alice], trust, environments });
  const sign = (options: Partial<SignOptions>) =>
    signRelease(
      { destination: bucket.source, stream: "orders", digest, keys: [bob], trust, ...options },
      never,
    );
  return { ...bucket, digest, sign };
}

describe("signing a release", () => {
  test("publishes it once the threshold is met", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({})).toEqual({
      digest: bucket.digest,
      version: 1,
      signers: [alice.id, bob.id],
      threshold: 2,
      published: true,
    });
    const releases = signedReleases({
      source: bucket.source,
      stream: "orders",
      environment: "production",
      engine: "postgres",
      trust,
    });
    const context = {
      highWaterMark: undefined,
      expected: undefined,
      now: new Date(),
      applied: () => Promise.resolve([]),
    };
    expect((await releases.fetch(context, never)).signers).toEqual([alice.id, bob.id]);
  });

  test("a second time with the same key adds nothing", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({ keys: [alice] })).toMatchObject({ signers: [alice.id], published: false });
    await bucket.sign({});
    await bucket.sign({});
    expect(readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))))).toHaveLength(
      2,
    );
  });

  test("by two people at once keeps both signatures", async () => {
    await using bucket = await waiting();
    const results = await Promise.all([bucket.sign({ keys: [bob] }), bucket.sign({ keys: [carol] })]);
    expect(results.map(({ published }) => published)).toEqual([true, true]);
    expect(readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))))).toHaveLength(
      3,
    );
    expect(readHead(await readKey(bucket.source, layout.head)).digest).toBe(bucket.digest);
  });

  test("with a key that the trust does not name publishes nothing", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({ keys: [makeKey()] })).toMatchObject({ signers: [alice.id], published: false });
  });

  test("of a release that another one has overtaken is SOURCE_CONFLICT", async () => {
    await using bucket = await waiting();
    await publishTo(bucket.source, more, { keys: [alice, bob], trust, environments });
    await expect(bucket.sign({})).rejects.toMatchObject({ code: "SOURCE_CONFLICT" });
  });

  test("of another stream, another digest or other bytes under its name is refused", async () => {
    await using bucket = await waiting();
    await expect(bucket.sign({ stream: "billing" })).rejects.toMatchObject({ code: "WRONG_STREAM" });
    await expect(bucket.sign({ digest: `sha256:${"0".repeat(64)}` })).rejects.toMatchObject({
      code: "RELEASE_NOT_FOUND",
    });
    await using other = await tempFolder();
    const { digest } = await publishTo(other.source, more, { keys: [alice] });
    const lines = await readKey(other.source, layout.release(digest.slice(7)));
    await overwrite(bucket.source, layout.release(bucket.digest.slice(7)), lines);
    await expect(bucket.sign({})).rejects.toMatchObject({ code: "UNEXPECTED_RELEASE" });
  });
});
