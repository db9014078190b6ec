import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";
import { parse } from "yaml";

import { makeWiring } from "../../src/bin/wire.ts";
import { folderWith } from "../bin/program.ts";
import { call } from "../cli/terminal.ts";
import { createDatabase } from "../support/database.ts";
import { createMongoDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { golangMigrate } from "../support/peer.ts";
import { makeKey, publishTo, tempFolder } from "../support/release.ts";
import { pairs } from "./site.ts";

needs("golang-migrate");

/** A container whose image was golang-migrate and a script, and is ours now. */
async function makeContainer(files: Readonly<Record<string, string>>, given?: { readonly url: string }) {
  const database = await createDatabase();
  const url = given?.url ?? database.url;
  const folder = await folderWith(files);
  const site = { url, folder };
  const write = async (more: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(more)) await writeFile(join(folder, name), text);
  };
  const entry = (change: Readonly<Record<string, string>> = {}, ...argv: readonly string[]) => {
    const variables = { DATABASE_URL: url, MIGRATION_DIR: folder, MAX_RETRIES: "0", ...change };
    return call(["golang-migrate-entrypoint", ...argv], { variables, wiring: makeWiring(variables) });
  };
  return {
    database,
    site,
    folder,
    write,
    entry,
    theirs: (...args: string[]) => golangMigrate(site, ...args),
  };
}

const applied = (n: number) => ({ code: 0, stdout: expect.stringContaining(`is at ${n}`) });

describe("lockkeeper golang-migrate-entrypoint", () => {
  test("takes the place of the real tool, which can take its place again, and so on", async () => {
    const { write, entry, theirs, database } = await makeContainer({
      ...pairs("1", "2"),
      "README.md": "# what golang-migrate passes over\n",
      "embed.go": "package migrations\n",
    });
    expect(await theirs("up")).toMatchObject({ code: 0 });
    await write(pairs("3"));
    const first = await entry();
    expect(first).toMatchObject(applied(3));
    expect(first.stderr).toContain("public.schema_migrations: 2 migrations taken over; kept in step");
    expect((await theirs("up")).stderr).toContain("no change");
    expect(await entry()).toMatchObject({ code: 0, stdout: expect.stringContaining("nothing to do") });

    // the old image is put back, and goes up and down; then ours again
    await write(pairs("4"));
    expect(await theirs("up")).toMatchObject({ code: 0 });
    expect((await entry()).stderr).toContain("1 migration taken over");
    expect(await theirs("down", "2")).toMatchObject({ code: 0 });
    expect(await entry()).toMatchObject(applied(4));
    expect(await database.query("select version::int as v, dirty from schema_migrations")).toEqual([
      { v: 4, dirty: false },
    ]);
    expect((await theirs("up")).stderr).toContain("no change");
  });

  test("begins on an empty database as golang-migrate does, many replicas at once, so that it can go on", async () => {
    const { entry, theirs, write, database } = await makeContainer(pairs("1", "2"));
    const ended = await Promise.all(Array.from({ length: 6 }, () => entry()));
    expect(ended.map(({ code, stderr }) => (code === 0 ? "" : stderr))).toEqual(ended.map(() => ""));
    expect(await theirs("version")).toMatchObject({ code: 0, stderr: expect.stringContaining("2") });
    await write(pairs("3"));
    expect(await theirs("up")).toMatchObject({ code: 0 });
    expect(await entry()).toMatchObject({ code: 0 });
    expect(await database.query("select seq from lockkeeper.history order by id")).toHaveLength(3);
  });

  test("waits for an older image that is at work no longer than its deadline", async () => {
    const { entry, theirs, write, database } = await makeContainer(pairs("1"));
    expect(await theirs("up")).toMatchObject({ code: 0 });
    await write({ "2_slow.up.sql": "select pg_sleep(600);", "2_slow.down.sql": "select 1;" });
    const working = theirs("up");
    const sleeping = "from pg_stat_activity where query like 'select pg_sleep(600)%' and state = 'active'";
    while ((await database.query(`select pid ${sleeping}`)).length === 0) await pause(20);
    expect(await entry({}, "--deadline", "2s")).toMatchObject({
      code: 30,
      stderr: expect.stringContaining("golang-migrate holds its lock"),
    });
    await database.query(`select pg_terminate_backend(pid) ${sleeping}`);
    expect((await working).code).not.toBe(0);
  });

  test("leaves golang-migrate's table as it is with --keep-in-step off", async () => {
    const { entry, theirs, write, database } = await makeContainer(pairs("1"));
    expect(await theirs("up")).toMatchObject({ code: 0 });
    await write(pairs("2"));
    const both = await Promise.all([entry({}, "--keep-in-step", "off"), entry({}, "--keep-in-step", "off")]);
    expect(both.map(({ code }) => code)).toEqual([0, 0]);
    expect(await database.query("select version::int as v from schema_migrations")).toEqual([{ v: 1 }]);
  });

  test("forces nothing: a dirty database stays dirty until a person has looked, and is told what to do", async () => {
    const { entry, theirs, write, database } = await makeContainer({
      ...pairs("1"),
      "2_two.up.sql": "create table half (); select 1/0;",
    });
    expect((await theirs("up")).code).toBe(1);
    const refused = await entry();
    expect(refused).toMatchObject({ code: 20, stderr: expect.stringMatching(/code: +ADOPTION/) });
    expect(refused.stderr).toContain("stopped in the middle of version 2 (dirty)");
    expect(refused.stderr).toMatch(/next: .*migrate force 2.*dirty = false in public\.schema_migrations/);
    expect(await database.query("select version::int as v, dirty from schema_migrations")).toEqual([
      { v: 2, dirty: true },
    ]);
    await database.query("update schema_migrations set version = 1, dirty = false");
    await write({ "2_two.up.sql": "create table whole ();" });
    expect(await entry()).toMatchObject(applied(2));

    // dirty again, by the old image
    await write({ "3_three.up.sql": "select 1/0;" });
    expect((await theirs("up")).code).toBe(1);
    expect(await entry()).toMatchObject({ code: 20, stderr: expect.stringMatching(/version 3 \(dirty\)/) });
  });

  test("goes up to TARGET_VERSION, never down to it by itself, and down with --allow-down", async () => {
    const { entry, theirs } = await makeContainer(pairs("1", "2", "3"));
    expect(await entry({ TARGET_VERSION: "2" })).toMatchObject(applied(2));
    expect(await entry({ TARGET_VERSION: "000002" })).toMatchObject({ code: 0 });
    const lower = await entry({ TARGET_VERSION: "1" });
    expect(lower).toMatchObject({ code: 0, stderr: expect.stringContaining("nothing goes down by itself") });
    expect((await theirs("version")).stderr).toContain("2");
    expect(await entry({ TARGET_VERSION: "1" }, "--allow-down")).toMatchObject({ code: 0 });
    expect((await theirs("version")).stderr).toContain("1");
    expect(await entry({ TARGET_VERSION: "9" })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("UNKNOWN_VERSION"),
    });
  });

  test("takes golang-migrate's URL as it is: its drivers' names, its table, its time-out", async () => {
    const { entry, database, folder } = await makeContainer(pairs("1"));
    await database.query("create schema app");
    const quoted = `x-migrations-table=${encodeURIComponent('"app"."steps"')}&x-migrations-table-quoted=1`;
    const url = (scheme: string, own: string) =>
      `${database.url.replace(/^postgres(ql)?/, scheme)}${database.url.includes("?") ? "&" : "?"}${own}`;
    const theirs = await golangMigrate({ url: url("postgres", quoted), folder }, "up");
    expect(theirs).toMatchObject({ code: 0 });
    await writeFile(join(folder, "2_slow.up.sql"), "select pg_sleep(600);");
    const own = `${quoted}&x-statement-timeout=200&x-multi-statement=true`;
    expect(await entry({ DATABASE_URL: url("pgx5", own) })).toMatchObject({
      code: 21,
      stderr: expect.stringMatching(/57014|timeout/),
    });
    expect(await database.query("select version::int as v, dirty from app.steps")).toEqual([
      { v: 1, dirty: false },
    ]);
    expect(await entry({ DATABASE_URL: url("pgx5", "x-lock-strategy=table") })).toMatchObject({ code: 2 });
  });

  test("waits MAX_RETRIES times RETRY_INTERVAL for a database that is not there, and lets an older image start", async () => {
    const { entry, folder } = await makeContainer(pairs("1", "2"));
    const away = await entry({
      DATABASE_URL: "postgres://x@127.0.0.1:1/x",
      MAX_RETRIES: "2",
      RETRY_INTERVAL: "1",
    });
    expect(away).toMatchObject({
      code: 31,
      stderr: expect.stringMatching(/^waiting: .*nothing listens there/m),
    });
    expect(await entry()).toMatchObject(applied(2));
    await rm(join(folder, "2_t2.up.sql"));
    await rm(join(folder, "2_t2.down.sql"));
    expect(await entry()).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("all of the folder, and more since"),
    });
  });

  test("is refused for production, after a signed release, and for variables that make no sense", async () => {
    const { entry, site } = await makeContainer(pairs("1"));
    expect(await entry({}, "--environment", "Production")).toMatchObject({
      code: 20,
      stderr: expect.stringContaining("UNSIGNED_REFUSED"),
    });
    for (const change of [
      { DATABASE_URL: "" },
      { MAX_RETRIES: "many" },
      { RETRY_INTERVAL: "soon" },
      { TARGET_VERSION: "latest" },
      { DATABASE_URL: "postgres://me:sesame@h/d?x-unknown=1" },
    ]) {
      const { code, stderr } = await entry(change);
      expect({ change, code }).toEqual({ change, code: 2 });
      expect(stderr).not.toContain("sesame");
    }
    await using bucket = await tempFolder();
    const key = makeKey();
    await publishTo(bucket.source, pairs("1"), { keys: [key] });
    await writeFile(join(bucket.path, "k.pub"), key.publicPem);
    const signed = { DATABASE_URL: site.url, LOCKKEEPER_STREAM: "orders" };
    const up = ["up", "--source", bucket.path, "--trust", join(bucket.path, "k.pub")];
    expect(await call(up, { variables: signed, wiring: makeWiring(signed) })).toMatchObject({ code: 0 });
    expect(await entry({ LOCKKEEPER_STREAM: "orders" })).toMatchObject({
      code: 20,
      stderr: expect.stringContaining("UNSIGNED_REFUSED"),
    });
  });
});

describe("infra/moving-over.md", () => {
  test("names every variable that the entry point reads, and no other", async () => {
    const root = join(import.meta.dirname, "../..");
    const page = await readFile(join(root, "infra/moving-over.md"), "utf8");
    const section = /### By another image alone\n([^]*?)\n## /.exec(page)?.[1] ?? "";
    const named = [...section.matchAll(/^\| (`[A-Z_`, ]+`) \|/gm)].flatMap(([, cell = ""]) =>
      [...cell.matchAll(/`([A-Z_]+)`/g)].map(([, name]) => name),
    );
    const source = await readFile(join(root, "src/cli/golang-migrate-variables.ts"), "utf8");
    const read = [...source.matchAll(/\bread\("([A-Z_]+)"\)/g)].map(([, name]) => name);
    expect(new Set(named)).toEqual(new Set(read));
    const [yaml = ""] = [...section.matchAll(/```yaml\n([^]*?)```/g)].map(([, text]) => text);
    expect(parse(yaml)).toMatchObject({ initContainers: [{ args: ["golang-migrate-entrypoint"] }] });
  });
});

describe("on MongoDB", () => {
  needs("mongodb");

  const make = (n: number) => ({
    [`${n}_c${n}.up.json`]: JSON.stringify([{ create: `c${n}` }]),
    [`${n}_c${n}.down.json`]: JSON.stringify([{ drop: `c${n}` }]),
  });

  test("takes over, keeps the number true, and begins as golang-migrate does", async () => {
    const database = await createMongoDatabase();
    const { entry, theirs, write } = await makeContainer(make(1), database);
    expect(await entry()).toMatchObject(applied(1));
    expect(await theirs("version")).toMatchObject({ code: 0, stderr: expect.stringContaining("1") });
    await write(make(2));
    expect(await theirs("up")).toMatchObject({ code: 0, stderr: expect.stringContaining("2/u") });
    await write(make(3));
    expect(await entry()).toMatchObject(applied(3));
    expect((await theirs("up")).stderr).toContain("no change");
  });
});
