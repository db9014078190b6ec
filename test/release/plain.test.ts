import { appendFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { describe, expect, test } from "vitest";

import { sha256Hex } from "../../src/migration/checksum.ts";
import { emptyChain, nextChain } from "../../src/release/chain.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import type { PlainOptions } from "../../src/release/folder/plain.ts";
import type { AppliedMigration, Release, ReleaseContext } from "../../src/release/release.ts";
import type { Source } from "../../src/source/source.ts";
import { never, recorded, tempFolder } from "../support/release.ts";

const files = {
  "1_users.up.sql": "create table users (id int);",
  "1_users.down.sql": "drop table users;",
  "2_email.up.sql": "alter table users add email text;",
  "10_items.up.sql": "create table items (id int);",
};

function providerOf(source: Source, options: Partial<PlainOptions> = {}) {
  return plainReleases({
    source,
    stream: "orders",
    environment: "default",
    engine: "postgres",
    allowLate: false,
    ...options,
  });
}

function contextOf(
  applied: readonly AppliedMigration[] = [],
  rest: Partial<ReleaseContext> = {},
): ReleaseContext {
  return {
    highWaterMark: undefined,
    expected: undefined,
    now: new Date(),
    applied: () => Promise.resolve(applied),
    ...rest,
  };
}

async function fetchFrom(
  source: Source,
  applied: readonly AppliedMigration[] = [],
  options: Partial<PlainOptions> = {},
): Promise<Release> {
  return providerOf(source, options).fetch(contextOf(applied), never);
}

describe("a plain folder", () => {
  test("is a release in the order of its versions, with the chain of its files", async () => {
    await using folder = await tempFolder(files);
    const release = await fetchFrom(folder.source);
    expect(release.migrations.map(({ seq, path }) => [seq, path])).toEqual([
      [1, "1_users.up.sql"],
      [2, "2_email.up.sql"],
      [3, "10_items.up.sql"],
    ]);
    let chain = emptyChain("orders");
    for (const [index, path] of (
      ["1_users.up.sql", "2_email.up.sql", "10_items.up.sql"] as const
    ).entries()) {
      chain = nextChain(chain, {
        seq: index + 1,
        path,
        sha256: sha256Hex(files[path]),
        size: files[path].length,
      });
      expect(release.migrations[index]?.chain).toBe(chain);
    }
    expect(release).toMatchObject({ kind: "plain", digest: `plain:${chain}`, signers: [], warnings: [] });
    expect(release.migrations[0]?.down?.sha256).toBe(sha256Hex(files["1_users.down.sql"]));
  });

  test("is read once: the bytes that were checked are the ones that run", async () => {
    await using folder = await tempFolder(files);
    const { source, requests } = recorded(folder.source);
    const releases = providerOf(source, { directions: "up" });
    const release = await releases.fetch(contextOf(), never);
    const bodies = await releases.bodies(release, release.migrations, never);
    expect(requests).toEqual(["LIST ", "GET 1_users.up.sql", "GET 2_email.up.sql", "GET 10_items.up.sql"]);
    expect(bodies.get(sha256Hex(files["10_items.up.sql"]))?.toString()).toBe(files["10_items.up.sql"]);
  });

  test("brings down bodies where a run may go down", async () => {
    await using folder = await tempFolder(files);
    const all = await fetchFrom(folder.source);
    const { source, requests } = recorded(folder.source);
    const releases = providerOf(source);
    const release = await releases.fetch(contextOf(all.migrations), never);
    const down = release.migrations.flatMap((migration) => migration.down ?? []);
    expect(
      (await releases.bodies(release, down, never)).get(sha256Hex(files["1_users.down.sql"]))?.toString(),
    ).toBe("drop table users;");
    expect(requests.filter((request) => request.includes("down"))).toHaveLength(1);
  });

  test("keeps the names and order under which migrations were applied", async () => {
    await using folder = await tempFolder(files);
    const [first, second, third] = (await fetchFrom(folder.source)).migrations;
    if (!first || !second || !third) throw new Error("three files were written");
    const applied = [first, second];
    await rename(join(folder.path, "2_email.up.sql"), join(folder.path, "002_mail.up.sql"));
    const release = await fetchFrom(folder.source, applied);
    expect(release.migrations.map(({ path, chain }) => [path, chain])).toEqual(
      [first, second, third].map(({ path, chain }) => [path, chain]),
    );
    expect(release.warnings).toEqual([
      '"002_mail.up.sql" was applied under the name "2_email.up.sql" and keeps it',
    ]);
  });

  test("goes on where a checkpoint stood for its first migration, also without the checkpoint's file", async () => {
    await using folder = await tempFolder({
      "V1__users.sql": "create table users (id int);",
      "B1__users.sql": "create table users (id int); insert into users values (1);",
      "V2__email.sql": "alter table users add email text;",
    });
    const { migrations } = await fetchFrom(folder.source);
    const [first] = migrations;
    if (first?.checkpoint === undefined) throw new Error("V1 has a checkpoint");
    const { path, sha256 } = first.checkpoint;
    const applied = [{ ...first, path, sha256, origin: "checkpoint" }];
    const chains = migrations.map(({ chain }) => chain);
    const chainsNow = async () =>
      (await fetchFrom(folder.source, applied)).migrations.map(({ chain }) => chain);
    expect(await chainsNow()).toEqual(chains);
    await rm(join(folder.path, "B1__users.sql"));
    expect(await chainsNow()).toEqual(chains);
    // The database's chain is of the migration itself: the run sees by it that the file has changed.
    await appendFile(join(folder.path, "V1__users.sql"), " -- note");
    expect((await chainsNow())[0]).not.toBe(chains[0]);
  });

  test("with a file changed since it was applied is CHANGED_FILE with both checksums", async () => {
    await using folder = await tempFolder(files);
    const { migrations } = await fetchFrom(folder.source);
    await appendFile(join(folder.path, "2_email.up.sql"), " -- note");
    const before = sha256Hex(files["2_email.up.sql"]);
    const after = sha256Hex(`${files["2_email.up.sql"]} -- note`);
    await expect(fetchFrom(folder.source, migrations)).rejects.toMatchObject({
      code: "CHANGED_FILE",
      message: `"2_email.up.sql" is not what the database has: was sha256:${before}, is sha256:${after}`,
      fields: { migration: "2_email.up.sql" },
    });
  });

  test("with a file changed into nonsense is still CHANGED_FILE", async () => {
    await using folder = await tempFolder(files);
    const { migrations } = await fetchFrom(folder.source);
    await writeFile(join(folder.path, "2_email.up.sql"), "this is /* no SQL");
    await expect(fetchFrom(folder.source, migrations)).rejects.toMatchObject({ code: "CHANGED_FILE" });
  });

  test("that lacks an applied file in the middle is HISTORY_REWRITTEN, and one that ends earlier is DATABASE_AHEAD", async () => {
    await using folder = await tempFolder(files);
    const { migrations } = await fetchFrom(folder.source);
    await rm(join(folder.path, "2_email.up.sql"));
    await expect(fetchFrom(folder.source, migrations)).rejects.toMatchObject({
      code: "HISTORY_REWRITTEN",
      fields: { migration: "2_email.up.sql" },
    });
    await writeFile(join(folder.path, "2_email.up.sql"), files["2_email.up.sql"]);
    await rm(join(folder.path, "10_items.up.sql"));
    await expect(fetchFrom(folder.source, migrations)).rejects.toMatchObject({
      code: "DATABASE_AHEAD",
      message: '"10_items.up.sql" is applied, but the folder ends at version "2"',
    });
  });

  test("with a version lower than the highest applied one is OUT_OF_ORDER, or has it at the end with allowLate", async () => {
    await using folder = await tempFolder(files);
    const { migrations } = await fetchFrom(folder.source);
    await writeFile(join(folder.path, "3_late.up.sql"), "select 3;");
    await writeFile(join(folder.path, "11_last.up.sql"), "select 11;");
    await expect(fetchFrom(folder.source, migrations)).rejects.toMatchObject({
      code: "OUT_OF_ORDER",
      message: '"3_late.up.sql" came after the database reached version "10"',
    });
    const late = await fetchFrom(folder.source, migrations, { allowLate: true });
    expect(late.migrations.map(({ version }) => version)).toEqual(["1", "2", "10", "3", "11"]);
    // once applied there, it stays there
    await writeFile(join(folder.path, "12_next.up.sql"), "select 12;");
    const later = await fetchFrom(folder.source, late.migrations.slice(0, 4));
    expect(later.migrations.map(({ version }) => version)).toEqual(["1", "2", "10", "3", "11", "12"]);
  });

  test.for([
    ["an empty file", "", "EMPTY_MIGRATION"],
    ["a file of white space", "\n \t\r\n", "EMPTY_MIGRATION"],
    ["an open comment", "select 1; /* never closed", "SQL_OPEN"],
    ["a COMMIT in the middle", "select 1; commit; select 2;", "TRANSACTION_CONTROL"],
    ["bytes that are not UTF-8", Buffer.from([0x73, 0xff]), "ENCODING"],
  ] as const)(
    "with %s to apply is refused, and taken where it was applied long ago",
    async ([, content, code]) => {
      await using folder = await tempFolder({ ...files, "11_bad.up.sql": content });
      await expect(fetchFrom(folder.source)).rejects.toMatchObject({
        code,
        fields: { migration: "11_bad.up.sql" },
      });
      const good = await tempFolder({ ...files, "11_bad.up.sql": "select 1;" });
      const { migrations } = await fetchFrom(good.source);
      await good[Symbol.asyncDispose]();
      const applied = migrations.map((migration) =>
        migration.version === "11" ? Object.assign({}, migration, { sha256: sha256Hex(content) }) : migration,
      );
      expect((await fetchFrom(folder.source, applied)).migrations).toHaveLength(4);
    },
  );

  test("with a bad down file goes up, and is refused when that file is to run", async () => {
    await using folder = await tempFolder({ ...files, "2_email.down.sql": "drop table users; /*" });
    const releases = providerOf(folder.source);
    const release = await releases.fetch(contextOf(), never);
    await releases.bodies(release, release.migrations, never);
    const down = release.migrations.flatMap((migration) => migration.down ?? []);
    await expect(releases.bodies(release, down, never)).rejects.toMatchObject({ code: "SQL_OPEN" });
  });

  test("is UNSIGNED_REFUSED in production and where a signed release was begun", async () => {
    await using folder = await tempFolder(files);
    await expect(fetchFrom(folder.source, [], { environment: "production" })).rejects.toMatchObject({
      code: "UNSIGNED_REFUSED",
    });
    const highWaterMark = { epoch: 1, version: 1, digest: `sha256:${"0".repeat(64)}` };
    await expect(
      providerOf(folder.source).fetch(contextOf([], { highWaterMark }), never),
    ).rejects.toMatchObject({ code: "UNSIGNED_REFUSED" });
  });

  test("that is not the one the caller expects is UNEXPECTED_RELEASE", async () => {
    await using folder = await tempFolder(files);
    const { digest } = await fetchFrom(folder.source);
    const releases = providerOf(folder.source);
    expect((await releases.fetch(contextOf([], { expected: digest }), never)).digest).toBe(digest);
    await writeFile(join(folder.path, "11_more.up.sql"), "select 1;");
    await expect(releases.fetch(contextOf([], { expected: digest }), never)).rejects.toMatchObject({
      code: "UNEXPECTED_RELEASE",
    });
  });

  test("says which files it left alone", async () => {
    await using folder = await tempFolder({ ...files, "README.md": "read me" });
    expect((await fetchFrom(folder.source)).warnings).toEqual(['not migrations, so left alone: "README.md"']);
  });
});

describe("a plain folder that changes while it is read", () => {
  /** A source whose listing promises one thing and whose reads bring another. */
  function shifting(source: Source, change: { size?: number; gone?: boolean }): Source {
    return {
      ...source,
      url: source.url,
      list: async (prefix, signal) =>
        (await source.list(prefix, signal)).map(({ key, size, version }) => ({
          key,
          size: size + (change.size ?? 0),
          version,
        })),
      read: (key, options, signal) =>
        change.gone === true ? Promise.resolve(undefined) : source.read(key, options, signal),
    };
  }

  test("with a body of another length than listed is TRUNCATED", async () => {
    await using folder = await tempFolder(files);
    await expect(fetchFrom(shifting(folder.source, { size: 1 }))).rejects.toMatchObject({
      code: "TRUNCATED",
    });
  });

  test("with a file gone since the listing is SOURCE_CHANGED", async () => {
    await using folder = await tempFolder(files);
    await expect(fetchFrom(shifting(folder.source, { gone: true }))).rejects.toMatchObject({
      code: "SOURCE_CHANGED",
    });
  });

  test("is pinned: a file written between checksum and run is SOURCE_CHANGED, never run", async () => {
    await using folder = await tempFolder(files);
    const { migrations } = await fetchFrom(folder.source);
    const releases = providerOf(folder.source);
    const release = await releases.fetch(contextOf(migrations), never);
    // applied up bodies are not kept, so `redo` reads this one again
    await writeFile(join(folder.path, "2_email.up.sql"), files["2_email.up.sql"].replace("email", "other"));
    const redone = release.migrations.filter(({ version }) => version === "2");
    await expect(releases.bodies(release, redone, never)).rejects.toMatchObject({ code: "SOURCE_CHANGED" });
  });

  test("under one and the same pin, which no honest store does, is SOURCE_CHANGED too", async () => {
    await using folder = await tempFolder(files);
    const { migrations } = await fetchFrom(folder.source);
    let isLying = false;
    const liar: Source = {
      ...recorded(folder.source).source,
      read: async (key, options, signal) => {
        const object = await folder.source.read(key, options, signal);
        if (isLying) object?.bytes.fill(0x20);
        return object;
      },
    };
    const releases = providerOf(liar);
    const release = await releases.fetch(contextOf(migrations), never);
    isLying = true;
    await expect(releases.bodies(release, release.migrations, never)).rejects.toMatchObject({
      code: "SOURCE_CHANGED",
    });
  });

  test("and is abandoned stops asking", async () => {
    await using folder = await tempFolder(files);
    const stop = new AbortController();
    const { source, requests } = recorded(folder.source);
    stop.abort(new Error("no longer wanted"));
    await expect(providerOf(source).fetch(contextOf(), stop.signal)).rejects.toThrow("no longer wanted");
    expect(requests.filter((request) => request.startsWith("GET"))).toEqual([]);
  });
});
