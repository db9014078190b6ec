import { readFile, rm, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { makeWiring } from "../../src/bin/wire.ts";
import type { Files } from "../support/release.ts";
import { call } from "../cli/terminal.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { startProxy } from "../support/proxy.ts";
import { folderSource, makeKey, publishTo } from "../support/release.ts";
import { freePort } from "../support/server.ts";
import { folderWith, start } from "./program.ts";

const first = { "1_a.up.sql": "create table a ();", "1_a.down.sql": "drop table a;" };
const second = { ...first, "2_b.up.sql": "create table b ();", "2_b.down.sql": "drop table b;" };

/** A pod's surroundings: a bucket, a database and the file that the kubelet makes. */
async function makePod(database?: TestDatabase) {
  const owned = database ?? (await createDatabase());
  const key = makeKey();
  const folder = await folderWith({ "orders.pub": key.publicPem, "termination-log": "", "bucket/.keep": "" });
  const at = (name: string): string => join(folder, name);
  const variables = {
    DATABASE_URL: owned.url,
    LOCKKEEPER_STREAM: "orders",
    LOCKKEEPER_SOURCE: at("bucket"),
    LOCKKEEPER_TRUST: at("orders.pub"),
    LOCKKEEPER_TERMINATION_LOG: at("termination-log"),
  };
  const cli =
    (more: Readonly<Record<string, string>> = {}) =>
    (...argv: readonly string[]) =>
      call(argv, { variables: { ...variables, ...more }, wiring: makeWiring({ ...variables, ...more }) });
  return {
    database: owned,
    folder,
    variables,
    cli,
    run: cli(),
    publish: async (files: Files) =>
      (await publishTo(folderSource(at("bucket")), files, { keys: [key] })).digest,
    removeBucket: () => rm(at("bucket"), { recursive: true }),
    message: () => readFile(at("termination-log"), "utf8"),
  };
}

describe("lockkeeper init", () => {
  test("applies the newest release and says which it is; pinned and applied it needs neither bucket nor lease", async () => {
    const pod = await makePod();
    const digest = await pod.publish(second);
    const applied = await pod.run("init", "--output", "json");
    expect(applied.code).toBe(0);
    expect(JSON.parse(applied.stdout)).toMatchObject({ outcome: "applied", release: { digest }, to: "2" });
    expect(await pod.message()).toMatch(
      new RegExp(`^lockkeeper OK orders 0 -> 2 \\(2 done, [^)]+\\) release=${digest} run=orders\\.`),
    );
    expect(await pod.database.query("select trigger from lockkeeper.runs")).toEqual([{ trigger: "init" }]);

    await pod.removeBucket();
    await pod.database.query(
      "update lockkeeper.streams set holder = 'elsewhere', run_id = 'orders.X', expires_at = now() + interval '1 h'",
    );
    const again = await pod.run("init", "--release", digest);
    expect(again).toMatchObject({ code: 0, stdout: expect.stringContaining("nothing to do") });
    expect(again.stderr).toContain(digest);
    expect(await pod.message()).toBe(`lockkeeper OK orders 2 (nothing to do) release=${digest}\n`);
  });

  test("lets a pod of an older release start under a newer one, and after a rollback only that one", async () => {
    const pod = await makePod();
    const older = await pod.publish(first);
    expect(await pod.run("init", "--release", older)).toMatchObject({ code: 0 });
    const newer = await pod.publish(second);
    expect(await pod.run("init", "--release", newer)).toMatchObject({ code: 0 });
    const under = await pod.run("init", "--release", older, "--output", "json");
    expect(under.code).toBe(0);
    expect(JSON.parse(under.stdout)).toMatchObject({ outcome: "noop", has: `release ${older}`, to: "2" });
    expect(await pod.message()).toContain(`orders 2 (has release ${older}, and more since)`);

    expect(await pod.run("down")).toMatchObject({ code: 0 });
    expect(await pod.run("init", "--release", older)).toMatchObject({ code: 0 });
    const held = await pod.run("init", "--release", newer);
    expect(held).toMatchObject({ code: 22, stderr: expect.stringMatching(/^ *code: +HELD/m) });
    expect(await pod.message()).toMatch(
      /^lockkeeper FAILED orders: .*held at version "1".*; code=HELD exit=22 run=/,
    );
    const json = await pod.run("init", "--output", "json");
    expect([json.code, JSON.parse(json.stdout).error.exitCode]).toEqual([22, 22]);
    expect(await pod.database.query("select to_regclass('b') as b")).toEqual([{ b: null }]);
  });

  test("tries a broken release once, however often its pod starts, and says why each time", async () => {
    const pod = await makePod();
    await pod.database.query("create sequence tries");
    await pod.publish({ ...first, "2_bad.up.sql": "select nextval('tries');\nselect 1/0;" });
    expect(await pod.run("init")).toMatchObject({ code: 21 });
    expect(await pod.message()).toMatch(
      /^lockkeeper FAILED orders: .*2_bad\.up\.sql.*division by zero.*; database: at version 1 after 1 done.*code=MIGRATION_FAILED exit=21 run=orders\.\w+\n$/,
    );
    const tries = () => pod.database.query("select last_value from tries");
    const before = await tries();
    for (let start = 0; start < 3; start += 1) {
      expect(await pod.run("init")).toMatchObject({ code: 20 });
      expect(await pod.message()).toMatch(/division by zero.*code=FAILED_BEFORE exit=20/);
    }
    expect(await tries()).toEqual(before);
  });

  test(
    "waits for a server that is not up yet and one that is still starting, telling so, and then applies",
    { timeout: 60_000 },
    async () => {
      const pod = await makePod();
      await pod.publish(first);
      const upstream = new URL(pod.database.url);
      const port = await freePort();
      upstream.port = String(port);
      const running = start(["init", "--database-wait", "5m"], pod.folder, {
        ...pod.variables,
        DATABASE_URL: upstream.href,
      });
      while (!running.said().stderr.includes("nothing listens there")) await pause(20);
      // What PostgreSQL answers while it recovers: FATAL 57P03.
      const proxy = await startProxy(pod.database.url);
      let isStarting = true;
      const refused: unknown[] = [];
      const server = createServer((socket) => {
        socket.on("error", () => undefined);
        if (!isStarting) {
          const onward = new URL(proxy.url);
          const through = connect(Number(onward.port), onward.hostname);
          through.on("error", () => socket.destroy());
          socket.pipe(through).pipe(socket);
          return;
        }
        refused.push(socket);
        socket.once("data", () => socket.end(startingUp));
      });
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
      while (refused.length < 2) await pause(20);
      isStarting = false;
      expect(await running.ended).toBe(0);
      server.close();
      expect(await pod.database.query("select from a")).toEqual([]);
      expect(await pod.message()).toMatch(/^lockkeeper OK orders 0 -> 1/);
    },
  );

  test("does not wait for a password to become right, for a database to be made, or for a host to be allowed", async () => {
    const pod = await makePod();
    await pod.publish(first);
    for (const change of [
      (url: URL) => (url.password = "wrong"),
      (url: URL) => (url.pathname = "/absent"),
      (url: URL) => url.searchParams.set("sslmode", "verify-full"),
    ]) {
      const url = new URL(pod.database.url);
      change(url);
      const { code, stderr } = await pod.cli({ DATABASE_URL: url.href })("init");
      expect({ code, stderr }).toMatchObject({
        code: 31,
        stderr: expect.stringMatching(/^ *code: +DATABASE_(DENIED|TLS|UNAVAILABLE)/m),
      });
      expect(await pod.message()).toMatch(/^lockkeeper FAILED .* exit=31\n$/);
      expect(await pod.message()).not.toContain("wrong");
    }
  });

  test("gives up after --database-wait or the deadline with what it waited for", async () => {
    const pod = await makePod();
    await pod.publish(first);
    const away = pod.cli({ DATABASE_URL: "postgres://x@127.0.0.1:1/x" });
    for (const limit of [
      ["--database-wait", "0"],
      ["--deadline", "1ms"],
    ]) {
      expect(await away("init", ...limit)).toMatchObject({
        code: 31,
        stderr: expect.stringMatching(/^ *code: +DATABASE_UNAVAILABLE/m),
      });
    }
  });

  test("runs again where the connection is lost on the way", { timeout: 60_000 }, async () => {
    const pod = await makePod();
    const gate = await pod.database.connect();
    await gate.query("select pg_advisory_lock(42)");
    await pod.publish({ "1_slow.up.sql": "select pg_advisory_xact_lock(42); create table slow ();" });
    const proxy = await startProxy(pod.database.url);
    const running = start(["init"], pod.folder, { ...pod.variables, DATABASE_URL: proxy.url });
    const isThere = async () =>
      (
        await pod.database.query(
          "select from pg_locks where locktype = 'advisory' and objid = 42 and not granted and database = (select oid from pg_database where datname = current_database())",
        )
      ).length > 0;
    while (!(await isThere())) await pause(20);
    proxy.cut();
    await gate.query("select pg_advisory_unlock(42)");
    expect(await running.ended).toBe(0);
    expect(await pod.database.query("select from slow")).toEqual([]);
  });

  test("waits for a server that takes no writes yet, as in a failover, and for none with --database-wait 0", async () => {
    const pod = await makePod();
    await pod.publish(first);
    expect(await pod.run("init")).toMatchObject({ code: 0 });
    await pod.publish(second);
    const alter = (change: string) =>
      pod.database.query(`begin read write;
        do $$ begin execute format('alter database %I ${change}', current_database()); end $$;
        select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid();
        commit`);
    await alter("set default_transaction_read_only = on");
    const once = await pod.run("init", "--database-wait", "0");
    expect(once).toMatchObject({ code: 31, stderr: expect.stringContaining("DATABASE_READ_ONLY") });
    const running = start(["init"], pod.folder, pod.variables);
    while ((running.said().stderr.match(/^waiting: .*(read-only|no writes)/gm) ?? []).length < 3)
      await pause(20);
    await alter("reset default_transaction_read_only");
    expect({ code: await running.ended, ...running.said() }).toMatchObject({ code: 0 });
    expect(await pod.message()).toMatch(/^lockkeeper OK orders 1 -> 2 /);
  });

  test("stops at SIGTERM with 143 and says so; the next start goes on", { timeout: 60_000 }, async () => {
    const pod = await makePod();
    const gate = await pod.database.connect();
    await gate.query("select pg_advisory_lock(42)");
    await pod.publish({
      ...first,
      "2_slow.up.sql": "select pg_advisory_xact_lock(42); create table slow ();",
    });
    const running = start(["init"], pod.folder, pod.variables);
    const isThere = async () =>
      (
        await pod.database.query(
          "select from pg_locks where locktype = 'advisory' and objid = 42 and not granted and database = (select oid from pg_database where datname = current_database())",
        )
      ).length > 0;
    while (!(await isThere())) await pause(20);
    running.child.kill("SIGTERM");
    expect(await running.ended).toBe(143);
    expect(await pod.message()).toMatch(
      /^lockkeeper FAILED orders: stopped by SIGTERM; database: at version 1 after 1 done; 1 left; next: .*code=CANCELED exit=143/,
    );
    await gate.query("select pg_advisory_unlock(42)");
    expect(await pod.run("init")).toMatchObject({ code: 0 });
    expect(await pod.database.query("select from slow")).toEqual([]);
  });

  test("lets a pod with an older plain folder start, unless something of it was never applied", async () => {
    const pod = await makePod();
    const plain = pod.cli({ LOCKKEEPER_TRUST: "", LOCKKEEPER_SOURCE: "" });
    const older = await folderWith(first);
    const newer = await folderWith(second);
    expect(await plain("init", "--unsigned", "--source", newer)).toMatchObject({ code: 0 });
    const ahead = await plain("init", "--unsigned", "--source", older);
    expect(ahead).toMatchObject({ code: 0, stdout: expect.stringContaining("and more since") });
    await writeFile(join(older, "1_a.up.sql"), "create table another ();");
    expect(await plain("init", "--unsigned", "--source", older)).toMatchObject({ code: 20 });
    const odd = await folderWith({ "0_never.up.sql": "select 1;", ...first });
    expect(await plain("init", "--unsigned", "--source", odd)).toMatchObject({ code: 20 });
  });
});

/** An ErrorResponse of PostgreSQL's protocol. */
const startingUp = (() => {
  const fields = ["SFATAL", "VFATAL", "C57P03", "Mthe database system is starting up", ""];
  const body = Buffer.from(`${fields.join("\0")}\0`);
  const head = Buffer.alloc(5);
  head.write("E");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
})();
