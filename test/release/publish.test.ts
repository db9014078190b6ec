import { readFileSync } from "node:fs";
import { join } from "node:path";

import { describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { parserName } from "../../src/release/publish/compose.ts";
import { readHead } from "../../src/release/head.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import { layout } from "../../src/release/layout.ts";
import { publishRelease } from "../../src/release/publish/publish.ts";
import type { PublishEvent } from "../../src/release/publish/publish.ts";
import type { Release } from "../../src/release/release.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { readStoredRelease } from "../../src/release/review/stored-release.ts";
import type { StoredRelease } from "../../src/release/review/stored-release.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import type { Source, WritableSource } from "../../src/source/source.ts";
import {
  makeKey,
  makeKeys,
  never,
  overwrite,
  plant,
  manifestOf,
  publishTo,
  readKey,
  recorded,
  tempFolder,
  trustOf,
} from "../support/release.ts";

const files = {
  "1_users.up.sql": "create table users (id int);",
  "1_users.down.sql": "drop table users;",
  "2_email.up.sql": "alter table users add email text;",
};
const three = { ...files, "3_items.up.sql": "create index concurrently items on users (id);" };

async function fetchFrom(source: Source, trust: Trust, environment = "default"): Promise<Release> {
  const releases = signedReleases({ source, stream: "orders", environment, engine: "postgres", trust });
  const context = {
    highWaterMark: undefined,
    expected: undefined,
    now: new Date(),
    applied: () => Promise.resolve([]),
  };
  return releases.fetch(context, never);
}

describe("a publication", () => {
  test("is what a runner verifies, with the facts that the parser found", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const result = await publishTo(bucket.source, three, { keys: [key] });
    expect(result).toMatchObject({
      outcome: "published",
      published: true,
      epoch: 1,
      version: 1,
      migrations: 3,
      signers: [key.id],
    });
    const release = await fetchFrom(bucket.source, trust);
    expect(release).toMatchObject({
      kind: "signed",
      digest: result.digest,
      rank: { epoch: 1, version: 1 },
      signers: [key.id],
    });
    expect(release.migrations[0]).toMatchObject({
      path: "1_users.up.sql",
      tx: "one",
      alone: true,
      down: { path: "1_users.down.sql" },
    });
    expect(release.migrations[2]).toMatchObject({
      tx: "none",
      statements: [{ offset: 0, length: 45, kind: "create-index-concurrently" }],
    });
  });

  test("writes the head last, and every other object once and only if it is absent", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const { source, requests } = recorded(bucket.source);
    await publishTo(source, three, { keys: [key] });
    const written = requests.filter((request) => request.startsWith("PUT"));
    expect(written).toHaveLength(7);
    expect(written.at(-1)).toBe("PUT head.json");
    expect(written.at(-2)).toMatch(/^PUT releases\/sha256-[0-9a-f]{64}\.sigstore\.jsonl$/);
    expect(new Set(written).size).toBe(7);
  });

  test("uploads only what is new, and names the release before", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    const second = await publishTo(source, three, { keys: [key] });
    expect(second).toMatchObject({ version: 2, added: ["3_items.up.sql"], uploaded: 2, present: 0 });
    expect(requests.filter((request) => request.startsWith("PUT blobs/"))).toEqual([
      `PUT ${layout.blob(sha256Hex(three["3_items.up.sql"]))}`,
    ]);
    // it follows the first: taken by a database that knows the first, not by one that knows another
    const releases = signedReleases({
      source,
      stream: "orders",
      environment: "default",
      engine: "postgres",
      trust,
    });
    const context = { expected: undefined, now: new Date(), applied: () => Promise.resolve([]) };
    const mark = { epoch: 1, version: 1, digest: first.digest };
    expect((await releases.fetch({ ...context, highWaterMark: mark }, never)).digest).toBe(second.digest);
  });

  test("of the same files writes nothing", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const { source, requests } = recorded(bucket.source);
    expect(await publishTo(source, files, { keys: [key] })).toMatchObject({
      outcome: "unchanged",
      published: false,
      digest: first.digest,
      uploaded: 0,
    });
    expect(requests.filter((request) => request.startsWith("PUT"))).toEqual([]);
  });

  test("of the same files for other environments, with another key or after half its time is a new release", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const other = makeKey("ed25519");
    await publishTo(bucket.source, files, { keys: [key] });
    expect(await publishTo(bucket.source, files, { keys: [key], environments: ["staging"] })).toMatchObject({
      version: 2,
      uploaded: 0,
      present: 1,
    });
    expect(
      await publishTo(bucket.source, files, { keys: [key, other], environments: ["staging"] }),
    ).toMatchObject({ version: 3 });
    const now = new Date(Date.now() + 46 * 86_400_000);
    expect(
      await publishTo(bucket.source, files, { keys: [key], environments: ["staging"], now }),
    ).toMatchObject({ version: 4, added: [] });
  });

  test("continues where one that was cut off stopped", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const broken: WritableSource = {
      ...recorded(bucket.source).source,
      write: (path, bytes, condition, signal) =>
        path === layout.head
          ? Promise.reject(new Error("the network is gone"))
          : bucket.source.write(path, bytes, condition, signal),
    };
    await expect(publishTo(broken, three, { keys: [key] })).rejects.toThrow("the network is gone");
    expect(await bucket.source.read(layout.head, { maxBytes: 1000 }, never)).toBeUndefined();
    expect(await publishTo(bucket.source, three, { keys: [key] })).toMatchObject({
      outcome: "published",
      version: 1,
      present: 5,
      uploaded: 0,
    });
  });

  test("finds an object with other bytes than its name says", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    await overwrite(
      bucket.source,
      layout.blob(sha256Hex(files["2_email.up.sql"])),
      Buffer.from("drop table users;"),
    );
    await expect(publishTo(bucket.source, files, { keys: [key] })).rejects.toMatchObject({
      code: "BLOB_DIGEST",
    });
    expect(await bucket.source.read(layout.head, { maxBytes: 1000 }, never)).toBeUndefined();
  });

  test("as a dry run says what it would do and writes nothing", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const { source, requests } = recorded(bucket.source);
    const result = await publishTo(source, three, { keys: [key], dryRun: true });
    expect(result).toMatchObject({ outcome: "dry-run", published: false, version: 1, migrations: 3 });
    expect(requests).toEqual(["GET head.json"]);
  });

  test("tells what goes on", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const events: PublishEvent[] = [];
    await publishTo(bucket.source, files, { keys: [key], emit: (event) => events.push(event) });
    expect(events[0]).toEqual({ kind: "folder.read", migrations: 2, added: 2 });
    expect(events.slice(1)).toEqual([1, 2, 3, 4].map((done) => ({ kind: "object.done", done, total: 4 })));
  });

  test("names in its manifest the parser that is installed", () => {
    const { version } = JSON.parse(
      readFileSync(join(import.meta.dirname, "../../node_modules/libpg-query/package.json"), "utf8"),
    ) as { version: string };
    expect(parserName).toBe(`lockkeeper 1, libpg-query ${version}`);
  });

  test("with a corrected migration in place of a released one names the release before it, and follows the newest all the same", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const good = await publishTo(bucket.source, files, { keys: [key] });
    const bad = await publishTo(bucket.source, three, { keys: [key] });
    const corrected = { ...files, "3_items.up.sql": "create index items on users (id);" };
    await expect(publishTo(bucket.source, corrected, { keys: [key] })).rejects.toMatchObject({
      code: "CHANGED_FILE",
    });
    const events: PublishEvent[] = [];
    const emit = (event: PublishEvent): void => void events.push(event);
    const options = { keys: [key], follow: good.digest, emit } as const;
    const mended = await publishTo(bucket.source, corrected, options);
    expect(mended).toMatchObject({ published: true, epoch: 1, version: 3, added: ["3_items.up.sql"] });
    expect(events).toContainEqual({
      kind: "warning",
      message: expect.stringMatching(/^"3_items\.up\.sql" of the newest release is left out or replaced/),
    });
    expect(await fetchFrom(bucket.source, trust)).toMatchObject({
      previous: bad.digest,
      migrations: [{ version: "1" }, { version: "2" }, { version: "3" }],
    });
    expect(await publishTo(bucket.source, corrected, options)).toMatchObject({
      outcome: "unchanged",
      digest: mended.digest,
    });
  });

  test("with a corrected migration of the very first release continues none, and follows it all the same", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const corrected = { ...files, "2_email.up.sql": "alter table users add email text default '';" };
    await expect(publishTo(bucket.source, corrected, { keys: [key] })).rejects.toMatchObject({
      code: "CHANGED_FILE",
      hint: expect.stringContaining("none where it was the first"),
    });
    await expect(publishTo(bucket.source, corrected, { keys: [key], follow: "it" })).rejects.toMatchObject({
      code: "USAGE",
    });
    const mended = await publishTo(bucket.source, corrected, { keys: [key], follow: "none" });
    expect(mended).toMatchObject({ published: true, epoch: 1, version: 2 });
    expect(await fetchFrom(bucket.source, trust)).toMatchObject({ previous: first.digest });
  });
});

describe("what the release before says of bodies", () => {
  const indexed = {
    "1_index.up.sql":
      "create index concurrently a on t (id);\n-- drop table t;\ncreate index concurrently b on t (id);",
  };
  /** A release of the same file that runs a comment of it and leaves its statements out. */
  function misdescribe({ manifest }: StoredRelease): Manifest {
    const offset = indexed["1_index.up.sql"].indexOf("drop");
    const statements = [{ offset, length: "drop table t".length, kind: "once" }] as const;
    const migrations = manifest.migrations.map((one) => Object.assign({}, one, { statements }));
    return { ...manifest, migrations };
  }

  test.each([
    { who: "one signer of the two that are needed", knows: 2, needs: 2 },
    { who: "nobody but a signer that the trust has dropped", knows: 1, needs: 1 },
  ])("is found again where $who signed it", async ({ knows, needs }) => {
    await using bucket = await tempFolder();
    const [stolen, ...good] = [makeKey(), makeKey(), makeKey()] as const;
    const keys = good.slice(0, needs);
    const { digest } = await publishTo(bucket.source, indexed, { keys: [stolen] });
    const first = await readStoredRelease(bucket.source, digest, never);
    const honest = first.manifest.migrations[0]?.statements;
    await plant(bucket.source, { manifest: misdescribe(first), statement: { version: 2 }, keys: [stolen] });
    const trust = trustOf(knows === 2 ? [stolen, ...keys] : keys, { threshold: needs });
    const earlier = { keys: [stolen.public], identities: [], keyless: null };
    const events: PublishEvent[] = [];
    const result = await publishTo(bucket.source, indexed, {
      keys,
      trust: { ...trust, earlier },
      emit: (event) => events.push(event),
    });
    expect(events).toContainEqual({
      kind: "warning",
      message: expect.stringContaining("only the order of its migrations is kept") as string,
    });
    expect(result).toMatchObject({ outcome: "published", version: 3 });
    const { migrations } = await fetchFrom(bucket.source, trust);
    expect(honest).toHaveLength(2);
    expect(migrations[0]?.statements).toEqual(honest);
  });

  test("is taken over where the signers that are needed signed it", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const { digest } = await publishTo(bucket.source, indexed, { keys: [key] });
    const lying = misdescribe(await readStoredRelease(bucket.source, digest, never));
    await plant(bucket.source, { manifest: lying, statement: { version: 2 }, keys: [key] });
    const more = { ...indexed, "2_more.up.sql": "select 2;" };
    await publishTo(bucket.source, more, { keys: [key], trust });
    const { migrations } = await fetchFrom(bucket.source, trust);
    expect(migrations[0]?.statements).toEqual(lying.migrations[0]?.statements);
  });
});

describe("a publication is refused", () => {
  test("as OUT_OF_ORDER for a version below the highest released one, or appends it with allowLate", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(
      bucket.source,
      { "10_a.up.sql": "select 10;", "20_b.up.sql": "select 20;" },
      { keys: [key] },
    );
    const late = { "10_a.up.sql": "select 10;", "15_late.up.sql": "select 15;", "20_b.up.sql": "select 20;" };
    await expect(publishTo(bucket.source, late, { keys: [key] })).rejects.toMatchObject({
      code: "OUT_OF_ORDER",
      message: '"15_late.up.sql" came after the last release reached version "20"',
    });
    await publishTo(bucket.source, late, { keys: [key], allowLate: true });
    expect((await fetchFrom(bucket.source, trust)).migrations.map(({ version }) => version)).toEqual([
      "10",
      "20",
      "15",
    ]);
    await publishTo(bucket.source, { ...late, "21_c.up.sql": "select 21;" }, { keys: [key] });
    expect((await fetchFrom(bucket.source, trust)).migrations.map(({ version }) => version)).toEqual([
      "10",
      "20",
      "15",
      "21",
    ]);
  });

  test("as CHANGED_FILE or HISTORY_REWRITTEN where a released file is another or gone", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    await publishTo(bucket.source, files, { keys: [key] });
    const changed = { ...files, "2_email.up.sql": "alter table users add mail text;" };
    await expect(publishTo(bucket.source, changed, { keys: [key] })).rejects.toMatchObject({
      code: "CHANGED_FILE",
      fields: { migration: "2_email.up.sql" },
    });
    const gone = { "1_users.up.sql": files["1_users.up.sql"] };
    await expect(publishTo(bucket.source, gone, { keys: [key] })).rejects.toMatchObject({
      code: "HISTORY_REWRITTEN",
      message: '"2_email.up.sql" is gone from the folder, but the last release has it',
    });
  });

  test("not for a corrected down file", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, files, { keys: [key] });
    const corrected = { ...files, "1_users.down.sql": "drop table if exists users;" };
    expect(await publishTo(bucket.source, corrected, { keys: [key] })).toMatchObject({
      version: 2,
      added: [],
      uploaded: 2,
    });
    expect((await fetchFrom(bucket.source, trust)).migrations[0]?.down?.sha256).toBe(
      sha256Hex("drop table if exists users;"),
    );
  });

  test.for([
    ["SQL_SYNTAX", "creat table t ();"],
    ["SQL_OPEN", "select 'open"],
    ["TRANSACTION_CONTROL", "select 1; commit; select 2;"],
    ["EMPTY_MIGRATION", " \n"],
  ] as const)("as %s for a body that must not run", async ([code, content]) => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    await expect(
      publishTo(bucket.source, { "1_bad.up.sql": content }, { keys: [key] }),
    ).rejects.toMatchObject({
      code,
      fields: { migration: "1_bad.up.sql" },
    });
    expect(await bucket.source.list("", never)).toEqual([]);
  });

  test("as WRONG_STREAM or WRONG_ENGINE under the prefix of another stream or engine", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    await publishTo(bucket.source, files, { keys: [key], stream: "billing" });
    await expect(publishTo(bucket.source, files, { keys: [key] })).rejects.toMatchObject({
      code: "WRONG_STREAM",
    });
    await expect(publishTo(bucket.source, files, { keys: [makeKey()] })).rejects.toMatchObject({
      code: "WRONG_STREAM",
    });
    await expect(
      publishTo(bucket.source, files, { keys: [key], stream: "billing", engine: "mongodb" }),
    ).rejects.toMatchObject({ code: "WRONG_ENGINE" });
  });

  test("as THRESHOLD where nobody known signed the release before, whose order would be signed", async () => {
    await using bucket = await tempFolder();
    const [ours, theirs] = [makeKey(), makeKey()];
    await plant(bucket.source, {
      manifest: manifestOf({ "2_b.up.sql": "select 2;", "1_a.up.sql": "select 1;" }),
      keys: [theirs],
    });
    const both = { "1_a.up.sql": "select 1;", "2_b.up.sql": "select 2;" };
    await expect(publishTo(bucket.source, both, { keys: [ours] })).rejects.toMatchObject({
      code: "THRESHOLD",
      hint: "name the public keys of the earlier signers with --trust",
    });
    expect(
      await publishTo(bucket.source, both, { keys: [ours], trust: trustOf([ours, theirs]) }),
    ).toMatchObject({ version: 2 });
  });

  test("as USAGE where it leaves out a newest release that nobody known signed, without a new epoch", async () => {
    await using bucket = await tempFolder();
    const [key, thief] = [makeKey(), makeKey()];
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const statement = { version: 7, previous: first.digest };
    await plant(bucket.source, { manifest: manifestOf(three), keys: [thief], statement });
    await expect(
      publishTo(bucket.source, files, { keys: [key], follow: first.digest }),
    ).rejects.toMatchObject({ code: "USAGE", hint: "publish with --epoch 2" });
    expect(
      await publishTo(bucket.source, files, { keys: [key], follow: first.digest, epoch: 2 }),
    ).toMatchObject({ published: true, epoch: 2, version: 1, migrations: 2 });
  });

  test("as USAGE with a stream or an environment that no runner could name", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    for (const options of [{ stream: "bad name" }, { stream: "a*/b" }, { environments: ["../x"] }]) {
      await expect(publishTo(bucket.source, files, { keys: [key], ...options })).rejects.toMatchObject({
        code: "USAGE",
      });
    }
    expect(await bucket.source.list("", never)).toEqual([]);
  });

  test("as VALIDITY for longer than the trust allows, and as USAGE for a lower epoch", async () => {
    await using bucket = await tempFolder();
    const { key } = makeKeys();
    const trust = trustOf([key], { release: { production: { maxValidityDays: 30 } } });
    const environments = ["staging", "production"];
    await expect(publishTo(bucket.source, files, { keys: [key], trust, environments })).rejects.toMatchObject(
      { code: "VALIDITY" },
    );
    await publishTo(bucket.source, files, { keys: [key], epoch: 3 });
    await expect(publishTo(bucket.source, three, { keys: [key], epoch: 2 })).rejects.toMatchObject({
      code: "USAGE",
    });
  });
});

describe("the head", () => {
  test("waits until the threshold of every environment is met", async () => {
    await using bucket = await tempFolder();
    const [alice, bob] = [makeKey(), makeKey()];
    const trust = trustOf([alice, bob], { release: { production: { threshold: 2 } } });
    const one = await publishTo(bucket.source, files, {
      keys: [alice],
      trust,
      environments: ["staging", "production"],
    });
    expect(one).toMatchObject({ outcome: "unsigned", published: false, uploaded: 4 });
    expect(await bucket.source.read(layout.head, { maxBytes: 1000 }, never)).toBeUndefined();
    expect(
      await publishTo(bucket.source, files, { keys: [alice], trust, environments: ["staging"] }),
    ).toMatchObject({ published: true });
    await publishTo(bucket.source, files, {
      keys: [alice, bob],
      trust,
      environments: ["staging", "production"],
    });
    expect((await fetchFrom(bucket.source, trust, "production")).signers).toEqual([alice.id, bob.id]);
  });

  test("does not count a key that the trust does not name", async () => {
    await using bucket = await tempFolder();
    const [alice, stranger] = [makeKey(), makeKey()];
    expect(
      await publishTo(bucket.source, files, { keys: [stranger], trust: trustOf([alice]) }),
    ).toMatchObject({ outcome: "unsigned" });
  });

  test("is won by one of two publishers at once, and the other is told to run again", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    await publishTo(bucket.source, files, { keys: [key] });
    // both read the same head before either moves it
    let waiting = 0;
    const { promise: bothRead, resolve } = Promise.withResolvers<void>();
    const meeting: WritableSource = {
      ...recorded(bucket.source).source,
      write: async (path, bytes, condition, signal) => {
        if (path === layout.head && ++waiting === 2) resolve();
        if (path === layout.head) await bothRead;
        return bucket.source.write(path, bytes, condition, signal);
      },
    };
    const rivals = ["select 3;", "select 4;"].map((body, index) =>
      publishTo(meeting, { ...files, [`${index + 3}_rival.up.sql`]: body }, { keys: [key] }),
    );
    const outcomes = await Promise.allSettled(rivals);
    const won = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    const lost = outcomes.flatMap((outcome) =>
      outcome.status === "rejected" ? [outcome.reason as unknown] : [],
    );
    expect(won).toHaveLength(1);
    expect(lost).toMatchObject([
      { code: "SOURCE_CONFLICT", retryable: true, hint: expect.any(String) as string },
    ]);
    expect(readHead(await readKey(bucket.source, layout.head))).toEqual({
      epoch: 1,
      version: 2,
      digest: won[0]?.digest,
    });
    expect((await fetchFrom(bucket.source, trust)).digest).toBe(won[0]?.digest);
  });

  test("moved by a twin to the very same release is a success for both", async () => {
    await using bucket = await tempFolder();
    const { key, trust } = makeKeys();
    const now = new Date();
    const twins = await Promise.all([1, 2].map(() => publishTo(bucket.source, files, { keys: [key], now })));
    expect(new Set(twins.map(({ digest }) => digest)).size).toBe(1);
    expect((await fetchFrom(bucket.source, trust)).digest).toBe(twins[0]?.digest);
  });
});

test("publishing takes the signal of its caller", async () => {
  await using bucket = await tempFolder();
  await using folder = await tempFolder(files);
  const { key } = makeKeys();
  const stop = new AbortController();
  stop.abort(new Error("no longer wanted"));
  const publishing = publishRelease(
    {
      folder: folder.source,
      destination: bucket.source,
      stream: "orders",
      engine: "postgres",
      environments: ["default"],
      expiresInDays: 90,
      keys: [key],
      allowLate: false,
      now: new Date(),
      emit: () => {},
    },
    stop.signal,
  );
  await expect(publishing).rejects.toThrow("no longer wanted");
  expect(await bucket.source.list("", never)).toEqual([]);
});
