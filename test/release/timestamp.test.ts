import { describe, expect, test } from "vitest";

import type { RunnerErrorCode } from "../../src/error.ts";
import { assertFresh, whyNotFresh } from "../../src/release/freshness.ts";
import { inspectRelease } from "../../src/release/review/inspect.ts";
import { layout } from "../../src/release/layout.ts";
import type { Release, ReleaseContext } from "../../src/release/release.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { maxTimestampHours, writeTimestamp } from "../../src/release/timestamp.ts";
import type { Timestamp } from "../../src/release/timestamp.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { vouch } from "../../src/release/publish/vouch.ts";
import type { VouchOptions } from "../../src/release/publish/vouch.ts";
import type { WritableSource } from "../../src/source/source.ts";
import { readStatus } from "../../src/status/status.ts";
import { createDatabase } from "../support/database.ts";
import {
  makeKey,
  never,
  overwrite,
  publishTo,
  readKey,
  recorded,
  signedLine,
  tempFolder,
  trustOf,
} from "../support/release.ts";
import type { TestKey } from "../support/release.ts";
import { targetOn } from "../support/target.ts";

const hourMs = 3_600_000;
const files = { "1_users.up.sql": "create table users (id int);" };
const more = { ...files, "2_items.up.sql": "create table items (id int);" };
const context: ReleaseContext = {
  highWaterMark: undefined,
  expected: undefined,
  now: new Date(),
  applied: () => Promise.resolve([]),
};

/** A prefix with one release, and a trust that wants a timestamp of it. */
async function world(threshold = 1) {
  const bucket = await tempFolder();
  const [key, clock, second] = [makeKey(), makeKey(), makeKey("ed25519")];
  const timestamp = { keys: [clock.public, second.public], threshold };
  const trust: Trust = { ...trustOf([key]), timestamp };
  const { digest } = await publishTo(bucket.source, files, { keys: [key] });
  const said = (change: Partial<Timestamp> = {}): Timestamp => ({
    stream: "orders",
    epoch: 1,
    version: 1,
    digest,
    issued: new Date(Date.now() - hourMs),
    expires: new Date(Date.now() + hourMs),
    ...change,
  });
  return {
    key,
    clock,
    second,
    trust,
    digest,
    said,
    source: bucket.source,
    /** puts whatever it is told where the timestamp is */
    put: (lines: readonly string[]) =>
      overwrite(bucket.source, layout.timestamp, Buffer.from(lines.map((line) => `${line}\n`).join(""))),
    vouch: (change: Partial<VouchOptions> = {}) =>
      vouch(
        {
          destination: bucket.source,
          stream: "orders",
          keys: [clock],
          trust,
          expiresInHours: 24,
          now: new Date(),
          ...change,
        },
        never,
      ),
    fetch: (change: Partial<ReleaseContext> = {}) => fetchFrom(bucket.source, trust, change),
    [Symbol.asyncDispose]: () => bucket[Symbol.asyncDispose](),
  };
}

function providerOf(source: WritableSource, trust: Trust) {
  return signedReleases({ source, stream: "orders", environment: "default", engine: "postgres", trust });
}

function fetchFrom(source: WritableSource, trust: Trust, change: Partial<ReleaseContext>): Promise<Release> {
  return providerOf(source, trust).fetch({ ...context, now: new Date(), ...change }, never);
}

function line(timestamp: Timestamp, key: TestKey): string {
  return signedLine(writeTimestamp(timestamp), key);
}

describe("a release whose trust wants a timestamp", () => {
  test("is fresh where the role vouches for it, by one more request at the same time as the others", async () => {
    await using w = await world();
    await w.put([line(w.said(), w.clock)]);
    const { source, requests } = recorded(w.source);
    const release = await fetchFrom(source, w.trust, {});
    expect(release.stale).toBeUndefined();
    expect(() => assertFresh(release, new Date())).not.toThrow();
    expect(requests).toHaveLength(4);
    expect(requests.slice(1, 3).toSorted()).toEqual([
      `GET ${layout.release(w.digest.slice(7))}`,
      `GET ${layout.timestamp}`,
    ]);
  });

  test("is not asked for one where the caller names the digest, nor where the trust has no such role", async () => {
    await using w = await world();
    const { source, requests } = recorded(w.source);
    const named = await fetchFrom(source, w.trust, { expected: w.digest });
    const without = await fetchFrom(source, { ...w.trust, timestamp: null }, {});
    expect([named.stale, without.stale]).toEqual([undefined, undefined]);
    expect(requests).not.toContain(`GET ${layout.timestamp}`);
  });

  test("may be newer than what was vouched for: it was published since", async () => {
    await using w = await world();
    await w.vouch();
    await publishTo(w.source, more, { keys: [w.key] });
    expect((await w.fetch()).stale).toBeUndefined();
  });

  test("is looked for again where a newer one was vouched for since the head was read", async () => {
    await using w = await world();
    const slow = providerOf(w.source, w.trust);
    await slow.head(never);
    const { digest } = await publishTo(w.source, more, { keys: [w.key] });
    await w.vouch();
    const release = await slow.fetch(context, never);
    expect(release).toMatchObject({ digest, rank: { version: 2 } });
    expect(release.stale).toBeUndefined();
  });

  test("is expired all the same when its own time is over", async () => {
    await using w = await world();
    const now = new Date(Date.now() + 91 * 24 * hourMs);
    await w.vouch({ now });
    expect(whyNotFresh(await w.fetch({ now }), now)).toMatchObject({ code: "RELEASE_EXPIRED" });
  });
});

describe("what is no word of the timestamp role", () => {
  const other = `sha256:${"0".repeat(64)}`;
  type World = Awaited<ReturnType<typeof world>>;
  const attacks: readonly (readonly [string, RunnerErrorCode, (w: World) => readonly string[]])[] = [
    ["nothing", "BUNDLE", () => []],
    ["rubbish", "JSON_SYNTAX", () => ["rubbish"]],
    [
      "one that expired, replayed",
      "TIMESTAMP_EXPIRED",
      (w) => [line(w.said({ expires: new Date(Date.now() - 1000) }), w.clock)],
    ],
    [
      "one of the future",
      "ISSUED_IN_FUTURE",
      (w) => [line(w.said({ issued: new Date(Date.now() + hourMs / 2) }), w.clock)],
    ],
    [
      "one that is to hold for ever",
      "VALIDITY",
      (w) => [line(w.said({ expires: new Date(Date.now() + (maxTimestampHours + 1) * hourMs) }), w.clock)],
    ],
    ["one of another stream", "WRONG_STREAM", (w) => [line(w.said({ stream: "billing" }), w.clock)]],
    ["one by a key of releases", "THRESHOLD", (w) => [line(w.said(), w.key)]],
    [
      "one by a stranger who claims to be the role's key",
      "THRESHOLD",
      (w) => [line(w.said(), { ...makeKey(), public: w.clock.public })],
    ],
    [
      "another release of the same version",
      "STALE_RELEASE",
      (w) => [line(w.said({ digest: other }), w.clock)],
    ],
    ["a newer version", "STALE_RELEASE", (w) => [line(w.said({ version: 2, digest: other }), w.clock)]],
    ["a newer epoch", "STALE_RELEASE", (w) => [line(w.said({ epoch: 2, digest: other }), w.clock)]],
    [
      "two lines that say different things",
      "PAYLOAD_DIFFERS",
      (w) => [line(w.said(), w.clock), line(w.said({ version: 2 }), w.second)],
    ],
    [
      "a line of the release key with other words before the good one",
      "PAYLOAD_DIFFERS",
      (w) => [line(w.said({ version: 2 }), w.key), line(w.said(), w.clock)],
    ],
    [
      "two releases in one statement",
      "SCHEMA",
      (w) => [
        signedLine(
          Buffer.from(
            writeTimestamp(w.said())
              .toString()
              .replace(/"release":"[^"]+"/, `"release":"${other}"`),
          ),
          w.clock,
        ),
      ],
    ],
    [
      "a field that is not of this format",
      "SCHEMA",
      (w) => [
        signedLine(
          Buffer.from(writeTimestamp(w.said()).toString().replace('"stream"', '"extra":1,"stream"')),
          w.clock,
        ),
      ],
    ],
    [
      "a field twice",
      "JSON_DUPLICATE",
      (w) => [
        signedLine(
          Buffer.from(writeTimestamp(w.said()).toString().replace('"stream"', '"\\u0073tream":"x","stream"')),
          w.clock,
        ),
      ],
    ],
    ["seventeen lines", "TOO_LARGE", (w) => Array.from({ length: 17 }, () => line(w.said(), w.clock))],
    ["an endless object", "TOO_LARGE", () => ["x".repeat(200_000)]],
  ];

  test.for(attacks)("%s: %s", async ([, code, lines]) => {
    await using w = await world();
    await w.put(lines(w));
    const release = await w.fetch();
    expect(release).toMatchObject({ digest: w.digest, stale: { code } });
    expect(() => assertFresh(release, new Date())).toThrow(expect.objectContaining({ code }));
    // whoever knows which release is wanted does not depend on it
    expect((await w.fetch({ expected: w.digest })).stale).toBeUndefined();
  });

  test("no object at all: TIMESTAMP_MISSING", async () => {
    await using w = await world();
    expect(await w.fetch()).toMatchObject({ stale: { code: "TIMESTAMP_MISSING" } });
  });

  test("an older release with the timestamp of the newer one: STALE_RELEASE", async () => {
    await using w = await world();
    const before = await readKey(w.source, layout.head);
    await publishTo(w.source, more, { keys: [w.key] });
    await w.vouch();
    await overwrite(w.source, layout.head, before);
    expect(await w.fetch()).toMatchObject({ rank: { version: 1 }, stale: { code: "STALE_RELEASE" } });
  });

  test("one key twice where two are asked for: THRESHOLD, and both keys are enough", async () => {
    await using w = await world(2);
    await w.put([line(w.said(), w.clock), line(w.said(), w.clock)]);
    expect(await w.fetch()).toMatchObject({ stale: { code: "THRESHOLD" } });
    await w.put([line(w.said(), w.clock), line(w.said(), w.second)]);
    expect((await w.fetch()).stale).toBeUndefined();
  });

  test("a release in its place, and it in the place of a release, although the key may sign both: PREDICATE_TYPE", async () => {
    await using w = await world();
    const both: Trust = { ...w.trust, timestamp: { keys: [w.key.public], threshold: 1 } };
    const release = await readKey(w.source, layout.release(w.digest.slice(7)));
    await overwrite(w.source, layout.timestamp, release);
    expect(await fetchFrom(w.source, both, {})).toMatchObject({ stale: { code: "PREDICATE_TYPE" } });
    await overwrite(w.source, layout.release(w.digest.slice(7)), Buffer.from(line(w.said(), w.key)));
    await expect(fetchFrom(w.source, both, {})).rejects.toMatchObject({ code: "PREDICATE_TYPE" });
  });

  test("a release that the role's key has signed: THRESHOLD, for it vouches for nothing else", async () => {
    await using w = await world();
    await using evil = await tempFolder();
    await publishTo(evil.source, files, { keys: [w.clock] });
    await expect(fetchFrom(evil.source, w.trust, {})).rejects.toMatchObject({ code: "THRESHOLD" });
  });
});

describe("vouching", () => {
  test("names the newest release, and again and again", async () => {
    await using w = await world();
    expect(await w.vouch()).toMatchObject({ digest: w.digest, version: 1, signers: [w.clock.id] });
    const first = await readKey(w.source, layout.timestamp);
    await Promise.all([w.vouch(), w.vouch({ keys: [w.second] }), w.vouch()]);
    expect(await readKey(w.source, layout.timestamp)).not.toEqual(first);
    expect((await w.fetch()).stale).toBeUndefined();
  });

  test("replaces rubbish, and a timestamp of the role's key for another stream", async () => {
    await using w = await world();
    const newer = { version: 9, digest: `sha256:${"1".repeat(64)}` };
    for (const lines of [
      ["rubbish"],
      [line(w.said({ stream: "billing", ...newer }), w.clock)],
      [line(w.said(newer), makeKey())],
    ]) {
      await w.put(lines);
      await w.vouch();
      expect((await w.fetch()).stale).toBeUndefined();
    }
  });

  test("does not take back what was vouched for, also after its time", async () => {
    await using w = await world();
    const before = await readKey(w.source, layout.head);
    await publishTo(w.source, more, { keys: [w.key] });
    await w.vouch({ now: new Date(Date.now() - 30 * hourMs) });
    const there = await readKey(w.source, layout.timestamp);
    await overwrite(w.source, layout.head, before);
    await expect(w.vouch()).rejects.toMatchObject({
      code: "STALE_RELEASE",
      fields: { version: 1, vouchedVersion: 2 },
    });
    expect(await readKey(w.source, layout.timestamp)).toEqual(there);
  });

  test("is refused for a release that its runners would refuse, and nothing is written", async () => {
    await using w = await world();
    const two: Trust = { ...w.trust, rule: { threshold: 2, maxValidityDays: 400 } };
    const refused: readonly (readonly [Partial<VouchOptions>, RunnerErrorCode])[] = [
      [{ trust: { ...trustOf([makeKey()]), timestamp: w.trust.timestamp } }, "THRESHOLD"],
      [{ trust: { ...two, keys: [...two.keys, makeKey().public] } }, "THRESHOLD"],
      [{ trust: { ...w.trust, revoked: new Set([w.digest]) } }, "RELEASE_REVOKED"],
      [{ stream: "billing" }, "WRONG_STREAM"],
      [{ expected: `sha256:${"0".repeat(64)}` }, "UNEXPECTED_RELEASE"],
      [{ keys: [w.key] }, "USAGE"],
      [{ trust: trustOf([w.key]) }, "USAGE"],
      [{ expiresInHours: maxTimestampHours + 1 }, "VALIDITY"],
    ];
    for (const [change, code] of refused) await expect(w.vouch(change), code).rejects.toMatchObject({ code });
    expect(await w.source.list("", never)).not.toContainEqual(
      expect.objectContaining({ key: layout.timestamp }),
    );
  });

  test("needs an earlier publication, and two keys where the role asks for two", async () => {
    await using w = await world(2);
    await using empty = await tempFolder();
    await expect(w.vouch({ destination: empty.source })).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
    await expect(w.vouch()).rejects.toMatchObject({ code: "USAGE", fields: { counted: 1, threshold: 2 } });
    await w.vouch({ keys: [w.clock, w.second] });
    expect((await w.fetch()).stale).toBeUndefined();
  });
});

describe("a run", () => {
  test(
    "without a timestamp changes nothing, but for a caller who names the release; with nothing pending it is well and not fresh",
    { timeout: 60_000 },
    async () => {
      await using w = await world();
      const database = await createDatabase();
      const target = await targetOn(database.url, providerOf(w.source, w.trust));
      const options = { signal: never, now: () => new Date() };
      const refused = await target.run();
      expect(refused).toMatchObject({
        status: "failed",
        outcome: "refused",
        fresh: false,
        error: { code: "TIMESTAMP_MISSING" },
      });
      expect(await database.query("select to_regclass('users') as users")).toEqual([{ users: null }]);
      expect(await readStatus(target, options)).toMatchObject({
        fresh: false,
        stale: { code: "TIMESTAMP_MISSING" },
        pending: [{ version: "1" }],
        problem: null,
      });

      expect(await target.run({ release: w.digest })).toMatchObject({ outcome: "applied", fresh: true });
      // nothing to do and nothing looked at
      expect(await target.run()).toMatchObject({ status: "succeeded", outcome: "noop", fresh: null });
      // a release without news is looked at, and recorded
      const again = await publishTo(w.source, files, { keys: [w.key], expiresInDays: 365 });
      const noop = await target.run();
      expect(noop).toMatchObject({
        status: "succeeded",
        outcome: "noop",
        fresh: false,
        release: { digest: again.digest },
      });
      expect(target.events).toContainEqual({
        kind: "warning",
        message: expect.stringContaining("TIMESTAMP_MISSING"),
      });
      await w.vouch();
      expect(await readStatus(target, options)).toMatchObject({ fresh: true, stale: null, pending: [] });
    },
  );
});

describe("looking at a release", () => {
  test("tells whether it is vouched for, as a run would find it", async () => {
    await using w = await world();
    const look = (digest?: string) =>
      inspectRelease({ source: w.source, trust: w.trust, digest, withBodies: false, now: new Date() }, never);
    expect(await look()).toMatchObject({
      verdict: { kind: "verified" },
      stale: { code: "TIMESTAMP_MISSING" },
    });
    expect(await look(w.digest)).toMatchObject({ stale: null });
    await w.vouch();
    expect(await look()).toMatchObject({ stale: null });
  });
});
