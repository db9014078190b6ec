import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { createDatabase, type TestDatabase } from "../support/database.ts";
import { tempFolder } from "../support/release.ts";

/** Real processes of the command line, killed and frozen in the middle of their work; the lease is the real one of 15 s. */

const program = join(import.meta.dirname, "../../src/bin/cli.ts");
const started = new Set<ChildProcess>();
/** Made before the tests, because they run side by side: what a lease takes to expire they wait for together. */
const databases: TestDatabase[] = [];
const folders: AsyncDisposable[] = [];
beforeAll(async () => {
  for (let n = 0; n < 6; n += 1) databases.push(await createDatabase());
});
afterAll(async () => {
  for (const child of started) child.kill("SIGKILL");
  for (const folder of folders) await folder[Symbol.asyncDispose]();
});

interface Site {
  readonly database: TestDatabase;
  /** Starts the program on the database and its folder. */
  start(...verb: readonly string[]): { readonly child: ChildProcess; readonly ended: Promise<Ended> };
  waitFor(sql: string): Promise<void>;
}

interface Ended {
  readonly code: number | null;
  readonly result: {
    readonly outcome?: string;
    readonly error?: { readonly code: string } | null;
    readonly code?: string;
  };
}

async function site(prepared: string, files: Readonly<Record<string, string>>): Promise<Site> {
  const database = databases.pop();
  if (database === undefined) throw new TypeError("there is a database for each test");
  await database.query(prepared);
  const folder = await tempFolder(files);
  folders.push(folder);
  return {
    database,
    start(...verb) {
      const at = [
        "--source",
        folder.path,
        "--unsigned",
        "--stream",
        "orders",
        "--database",
        database.url,
        "--output",
        "json",
      ];
      const child = spawn(process.execPath, [program, ...verb, ...at], {
        cwd: folder.path,
        env: { PATH: process.env["PATH"], HOME: folder.path },
        stdio: ["ignore", "pipe", "ignore"],
      });
      started.add(child);
      let said = "";
      child.stdout.on("data", (text: Buffer) => (said += text.toString()));
      const ended = new Promise<Ended>((resolve) => {
        child.once("close", (code) =>
          resolve({ code, result: said === "" ? {} : (JSON.parse(said) as Ended["result"]) }),
        );
      });
      return { child, ended };
    },
    async waitFor(sql) {
      const observer = await database.connect();
      while ((await observer.query(sql)).rows.length === 0)
        await new Promise((resolve) => setTimeout(resolve, 50));
      await observer.end();
    },
  };
}

/** What keeps an index build, or a procedure, waiting in its middle until it is rolled back. */
const table =
  "CREATE TABLE t (a int); CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t VALUES (2); COMMIT; LOCK TABLE t; END $$";
const blocking = "BEGIN; INSERT INTO t VALUES (1)";
const built = {
  "1_index.up.sql": "CREATE INDEX CONCURRENTLY i ON t (a);\nCREATE TABLE after ();",
  "2_more.up.sql": "CREATE TABLE more ();",
};
const statement =
  "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/*lockkeeper:%' AND query ~ 'CREATE INDEX|CALL'";
const isWaiting = `SELECT 1 ${statement} AND state = 'active' AND wait_event_type = 'Lock'`;
const isGone = `SELECT 1 WHERE NOT EXISTS (SELECT ${statement} AND state = 'active')`;
const expire = "UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 s'";
const indexes =
  "SELECT i.relname AS name, x.indisvalid AS valid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = 't'::regclass";
const tables =
  "SELECT string_agg(tablename, ' ' ORDER BY tablename) AS t FROM pg_tables WHERE tablename IN ('after', 'more')";

describe.concurrent("a runner", () => {
  test(
    "killed while it builds an index: the server ends the build, and the next run begins it again by itself",
    { timeout: 180_000 },
    async () => {
      const { database, start, waitFor } = await site(table, built);
      const blocker = await database.connect();
      await blocker.query(blocking);
      const first = start("up");
      await waitFor(isWaiting);
      first.child.kill("SIGKILL");
      await first.ended;
      await waitFor(isGone);
      expect(await database.query(indexes)).toEqual([{ name: "i", valid: false }]);
      await blocker.query("ROLLBACK");
      await database.query(expire);
      expect(await start("up").ended).toMatchObject({ code: 0, result: { outcome: "applied" } });
      expect(await database.query(indexes)).toEqual([{ name: "i", valid: true }]);
      expect(await database.query(tables)).toEqual([{ t: "after more" }]);
    },
  );

  test(
    "killed when its index was built but it did not know: the next run goes on after it",
    { timeout: 180_000 },
    async () => {
      const { database, start, waitFor } = await site(table, built);
      const blocker = await database.connect();
      await blocker.query(blocking);
      const first = start("up");
      await waitFor(isWaiting);
      first.child.kill("SIGSTOP");
      await blocker.query("ROLLBACK");
      await waitFor(`${indexes} AND x.indisvalid`);
      await waitFor(isGone);
      first.child.kill("SIGKILL");
      await first.ended;
      await database.query(expire);
      expect(await start("up").ended).toMatchObject({ code: 0, result: { outcome: "applied" } });
      expect(await database.query(indexes)).toEqual([{ name: "i", valid: true }]);
      expect(await database.query(tables)).toEqual([{ t: "after more" }]);
    },
  );

  test(
    "killed in a procedure, of which nothing tells what it did: a person says so, and the next run goes on",
    { timeout: 180_000 },
    async () => {
      const { database, start, waitFor } = await site(table, {
        "1_call.up.sql": "-- lockkeeper: tx=none\nCALL p();\nCREATE TABLE after ();",
        "2_more.up.sql": "CREATE TABLE more ();",
      });
      const blocker = await database.connect();
      await blocker.query(blocking);
      const first = start("up");
      await waitFor(isWaiting);
      first.child.kill("SIGKILL");
      await first.ended;
      await waitFor(isGone);
      await blocker.query("ROLLBACK");
      await database.query(expire);
      for (const again of [1, 2]) {
        expect(await start("up").ended, `time ${again}`).toMatchObject({
          code: 22,
          result: {
            outcome: "needs_attention",
            error: { code: "NEEDS_ATTENTION", fields: { statement: 1 } },
          },
        });
      }
      expect(await start("repair", "--as", "applied", "--reason", "its row is there").ended).toMatchObject({
        code: 0,
      });
      expect(await start("up").ended).toMatchObject({ code: 0, result: { outcome: "applied" } });
      expect(await database.query("SELECT a FROM t")).toEqual([{ a: 2 }]);
      expect(await database.query(tables)).toEqual([{ t: "after more" }]);
    },
  );

  test(
    "frozen while it builds an index, and woken when another has taken over: it is built once, and the one that woke changes nothing",
    { timeout: 180_000 },
    async () => {
      const { database, start, waitFor } = await site(table, built);
      const blocker = await database.connect();
      await blocker.query(blocking);
      const first = start("up");
      await waitFor(isWaiting);
      first.child.kill("SIGSTOP");
      await database.query(expire);
      const second = start("up");
      await waitFor("SELECT 1 FROM lockkeeper.runs HAVING count(*) >= 1");
      await blocker.query("ROLLBACK");
      expect(await second.ended).toMatchObject({ code: 0, result: { outcome: "applied" } });
      first.child.kill("SIGCONT");
      expect(await first.ended).toMatchObject({ code: 30, result: { error: { code: "LEASE_LOST" } } });
      expect(await database.query(indexes)).toEqual([{ name: "i", valid: true }]);
      expect(await database.query(tables)).toEqual([{ t: "after more" }]);
    },
  );

  test(
    "frozen for longer than its lease changes nothing when it wakes, and each migration is done once",
    { timeout: 180_000 },
    async () => {
      const bodies = Array.from({ length: 30 }, (_, index) => [
        `${index + 1}_n.up.sql`,
        `INSERT INTO done VALUES (${index + 1}); SELECT pg_sleep(0.05);`,
      ]);
      const { database, start, waitFor } = await site(
        "CREATE TABLE done (n int)",
        Object.fromEntries(bodies) as Record<string, string>,
      );
      const first = start("up");
      await waitFor("SELECT 1 FROM done");
      first.child.kill("SIGSTOP");
      expect(await start("up").ended).toMatchObject({ code: 0 });
      first.child.kill("SIGCONT");
      expect(await first.ended).toMatchObject({ code: 30, result: { error: { code: "LEASE_LOST" } } });
      const done = await database.query<{ n: number }>("SELECT n FROM done ORDER BY n");
      expect(done.map(({ n }) => n)).toEqual(Array.from({ length: 30 }, (_, index) => index + 1));
      expect(
        await database.query(
          "SELECT count(*)::int AS n, count(DISTINCT seq)::int AS seqs FROM lockkeeper.history WHERE status = 'done'",
        ),
      ).toEqual([{ n: 30, seqs: 30 }]);
    },
  );

  test(
    "told to end by SIGTERM stops its statement, says what is left, and gives the lease back",
    { timeout: 60_000 },
    async () => {
      const { database, start, waitFor } = await site("CREATE TABLE done (n int)", {
        "1_a.up.sql": "INSERT INTO done VALUES (1);",
        "2_b.up.sql": "SELECT pg_sleep(300);",
      });
      const first = start("up");
      await waitFor(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
      );
      first.child.kill("SIGTERM");
      expect(await first.ended).toMatchObject({
        code: 143,
        result: { error: { code: "CANCELED" }, left: 1, done: [{ version: "1" }] },
      });
      expect(await database.query("SELECT holder FROM lockkeeper.streams")).toEqual([{ holder: null }]);
      expect(
        await database.query(
          "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        ),
      ).toEqual([]);
    },
  );
});
