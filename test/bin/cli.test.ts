import { spawn } from "node:child_process";
import { describe, expect, onTestFinished, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { createIssuer } from "../support/token.ts";
import { folderWith, program, run, start } from "./program.ts";

/** Version 2 waits for a lock that the test holds. */
const waiting = {
  "m/1_before.up.sql": "create table before (id int);",
  "m/1_before.down.sql": "drop table before;",
  "m/2_waiting.up.sql": "select pg_advisory_xact_lock(42); create table behind (id int);",
  "m/2_waiting.down.sql": "drop table behind;",
};

async function hold(database: TestDatabase): Promise<{ reached(): Promise<void>; release(): Promise<void> }> {
  const client = await database.connect();
  await client.query("select pg_advisory_lock(42)");
  const waiters = `select from pg_locks where locktype = 'advisory' and objid = 42 and not granted
    and database = (select oid from pg_database where datname = current_database())`;
  return {
    reached: () => expect.poll(async () => (await client.query(waiters)).rowCount).toBe(1),
    release: async () => void (await client.query("select pg_advisory_unlock(42)")),
  };
}

describe("an interrupted run", () => {
  test.for(["SIGINT", "SIGTERM"] as const)(
    "by %s stops, keeps what is done, says what is left and exits as shells expect of it; the next one goes on",
    async (signal) => {
      const database = await createDatabase();
      const folder = await folderWith(waiting);
      const held = await hold(database);
      const variables = { DATABASE_URL: database.url };
      const up = ["up", "--source", "m", "--unsigned"];
      const running = start(up, folder, variables);
      await held.reached();
      running.child.kill(signal);
      expect(await running.ended).toBe(signal === "SIGINT" ? 130 : 143);
      const { stderr } = running.said();
      expect(stderr).toContain("stopping at the next safe point");
      expect(stderr).toContain(`error: stopped by ${signal}`);
      expect(stderr).toMatch(/database: at version 1 .*1 left/);
      expect(stderr).toContain("code:     CANCELED");
      await held.release();
      const next = await run(up, folder, variables);
      expect(next).toMatchObject({ code: 0, stdout: expect.stringContaining("1 migration done") });
      expect(await database.query("select to_regclass('behind') is not null as there")).toEqual([
        { there: true },
      ]);
    },
  );

  test("ends at once by a second signal", async () => {
    const database = await createDatabase();
    const folder = await folderWith(waiting);
    const held = await hold(database);
    const running = start(["up", "--source", "m", "--unsigned"], folder, { DATABASE_URL: database.url });
    await held.reached();
    // stopped, it finds both signals waiting when it goes on
    running.child.kill("SIGSTOP");
    running.child.kill("SIGINT");
    running.child.kill("SIGTERM");
    running.child.kill("SIGCONT");
    expect([130, 143]).toContain(await running.ended);
  });
});

describe("a run that was killed in the middle of a statement outside a transaction", () => {
  test(
    "needs attention: exit 22, told by status, decided by repair, and then it goes on",
    { timeout: 120_000 },
    async () => {
      const database = await createDatabase();
      // Nothing in the database tells what a procedure that commits by itself has done.
      const folder = await folderWith({
        "m/1_t.up.sql": `create table t (id int);
          create procedure p() language plpgsql as $$ begin insert into t values (2); commit; lock table t; insert into t values (3); end $$;`,
        "m/1_t.down.sql": "drop procedure p; drop table t;",
        "m/2_p.up.sql": "-- lockkeeper: tx=none lock_timeout=0\ninsert into t values (1);\ncall p();\n",
        "m/2_p.down.sql": "delete from t;",
      });
      const variables = { DATABASE_URL: database.url };
      const plain = ["--source", "m", "--unsigned"];
      expect(await run(["up", "1", ...plain], folder, variables)).toMatchObject({ code: 0 });
      const reader = await database.connect();
      const calling = `select from pg_stat_activity where query like '%call p()%' and pid <> pg_backend_pid()
      and datname = current_database() and state = 'active'`;
      const callers = async (): Promise<number> => (await database.query(calling)).length;
      await reader.query("begin; select from t");
      const killed = start(["up", ...plain], folder, variables);
      await expect.poll(callers, { timeout: 60_000 }).toBe(1);
      killed.child.kill("SIGKILL");
      await killed.ended;
      await reader.query("commit");
      await expect.poll(callers, { timeout: 60_000 }).toBe(0);

      const stuck = await run(["up", ...plain], folder, variables);
      expect(stuck).toMatchObject({ code: 22, stderr: expect.stringContaining("code:     NEEDS_ATTENTION") });
      expect(stuck.stderr).toContain("lockkeeper repair --as applied|not-applied");
      const status = await run(["status", ...plain], folder, variables);
      expect(status.stdout).toMatch(/^attention +2_p\.up\.sql \(up\), 1 of 2 statements done/m);

      const rows = await database.query("select from t where id = 3");
      const found = rows.length === 1 ? "applied" : "not-applied";
      const repaired = await run(
        ["repair", "--as", found, "--reason", "looked into t", ...plain],
        folder,
        variables,
      );
      expect(repaired).toMatchObject({
        code: 0,
        stdout: expect.stringContaining(`statement 2 of 2 counts as ${found}`),
      });
      expect(await run(["up", ...plain], folder, variables)).toMatchObject({ code: 0 });
      expect(await run(["version"], folder, variables)).toMatchObject({ stdout: "2\n" });
      const history = await run(["history"], folder, variables);
      expect(history.stdout).toMatch(/\(repair\).*looked into t/);
      expect(await database.query("select count(*)::int as n from t where id = 1")).toEqual([{ n: 1 }]);
      expect(await database.query("select count(*)::int as n from t where id = 3")).toEqual([{ n: 1 }]);
    },
  );
});

describe("the program", () => {
  test("ends quietly when its reader goes away", async () => {
    const folder = await folderWith({});
    const running = start(["completion", "bash"], folder);
    running.child.stdout.destroy();
    expect(await running.ended).toBe(0);
    expect(running.said().stderr).toBe("");
  });

  test("shows a bar on a terminal and takes it away, and colours the result", async () => {
    const database = await createDatabase();
    const folder = await folderWith(waiting);
    const held = await hold(database);
    // a terminal, by the tool that records them
    const [recorder, command] = ["script", [process.execPath, program, "up", "--source", "m", "--unsigned"]];
    const child = spawn(
      recorder,
      process.platform === "darwin"
        ? ["-q", "/dev/null", ...command]
        : ["-qec", command.map((word) => `'${word}'`).join(" "), "/dev/null"],
      {
        cwd: folder,
        env: { PATH: process.env["PATH"], HOME: folder, TERM: "xterm", DATABASE_URL: database.url },
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    onTestFinished(() => void child.kill("SIGKILL"));
    let shown = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (shown += text));
    const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
    await expect.poll(() => shown).toMatch(/\[[#-]{24}\] \d\/2 /);
    await held.release();
    expect(await ended).toBe(0);
    expect(shown).toContain("\r\u001b[2K");
    expect(shown).toContain("\u001b[32m2 migrations done");
  });
});

describe("serve", () => {
  test("takes a signed release over HTTP, asked by trigger, and stops with exit 0", async () => {
    const database = await createDatabase();
    const issuer = await createIssuer();
    const folder = await folderWith({
      "migrations/1_users.up.sql": "create table users (id int);",
      "migrations/1_users.down.sql": "drop table users;",
      "jwks.json": issuer.jwks,
      token: `${await issuer.token()}\n`,
      stranger: `${await issuer.token({ sub: "stranger" })}\n`,
      "policy.json": issuer.policy("orders-dev"),
      database: `${database.url}\n`,
      "lockkeeper.yaml": `
version: 1
listen: 127.0.0.1:0
policy: policy.json
trust: { dev: { keys: [orders.pub] } }
targets:
  orders-dev:
    engine: postgres
    stream: orders
    source: bucket
    trust: dev
    database: { urlFile: database }
`,
    });
    expect(await run(["keygen", "--out", "orders"], folder)).toMatchObject({ code: 0 });
    const published = await run(
      ["publish", "migrations", "bucket", "--stream", "orders", "--key", "orders", "--output", "json"],
      folder,
    );
    const { digest } = JSON.parse(published.stdout) as { digest: string };
    const server = start(["serve"], folder);
    const listening = /lockkeeper listens on (\S+)/;
    await expect.poll(() => server.said().stderr).toMatch(listening);
    const url = listening.exec(server.said().stderr)?.[1] ?? "";
    expect((await fetch(`${url}/health/ready`)).status).toBe(200);

    const trigger = ["trigger", "--url", url, "--target", "orders-dev", "--release", digest, "--token-file"];
    expect(await run([...trigger, "token"], folder)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("succeeded, applied"),
    });
    expect(await run([...trigger, "stranger"], folder)).toMatchObject({ code: 23 });
    expect(await database.query("select to_regclass('users') is not null as there")).toEqual([
      { there: true },
    ]);
    expect(await run(["version", "--target", "orders-dev"], folder)).toMatchObject({
      code: 0,
      stdout: "1\n",
    });

    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(0);
    const said = `${server.said().stdout}${server.said().stderr}`;
    expect(said).toContain('"event":"server.stopped"');
    expect(said).not.toContain(
      new URL(database.url).password === "" ? "\u0000" : `:${new URL(database.url).password}@`,
    );
  });

  test("tells what is missing before it listens", async () => {
    const folder = await folderWith({
      "lockkeeper.yaml":
        'version: 1\ntargets: { a: { engine: postgres, stream: a, source: x, database: { url: "postgres://h/a" } } }\n',
    });
    expect(await run(["serve"], folder)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("policy is missing"),
    });
    expect(await run(["serve", "--config", "nowhere.yaml"], folder)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("nowhere.yaml cannot be read (ENOENT)"),
    });
  });
});
