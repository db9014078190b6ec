import { execFileSync } from "node:child_process";
import { chownSync, mkdirSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, ownPostgres, type PostgresServer } from "../../support/database.ts";
import { needs, notRun } from "../../support/parts.ts";
import { startPgBouncer } from "../../support/pgbouncer.ts";
import { startProxy } from "../../support/proxy.ts";
import { plainUser, serverFolder } from "../../support/server.ts";
import {
  leaseOptions,
  never,
  settings,
  shortTimes,
  statementStep,
  transactionSteps,
} from "../../support/steps.ts";

async function open(url: string, options: Parameters<typeof openDriver>[1] = {}): Promise<Driver> {
  const driver = await openDriver(url, options);
  onTestFinished(() => driver.close());
  return driver;
}

function withChange(url: string, change: (url: URL) => void): string {
  const changed = new URL(url);
  change(changed);
  return changed.href;
}

/** What asking for the state, and taking the lease, are answered with. */
async function refusals(url: string): Promise<readonly unknown[]> {
  const driver = await open(url);
  const failures = [
    await driver.state("orders", never).catch((error: unknown) => error),
    await driver.withLease(leaseOptions(), () => Promise.resolve("taken")).catch((error: unknown) => error),
  ];
  expect(
    JSON.stringify(
      failures.map((failure) =>
        failure instanceof Error
          ? [failure.message, Reflect.get(failure, "hint"), Reflect.get(failure, "fields")]
          : failure,
      ),
    ),
  ).not.toContain("s3cret");
  return failures;
}

describe("a database that cannot be used", () => {
  const cases: [title: string, change: (url: URL) => void, code: string][] = [
    ["a wrong password", (url) => (url.password = "s3cret"), "DATABASE_DENIED"],
    ["no password", (url) => (url.password = ""), "DATABASE_DENIED"],
    [
      "a user that does not exist",
      (url) => ((url.username = "nobody"), (url.password = "s3cret")),
      "DATABASE_DENIED",
    ],
    ["a database that does not exist", (url) => (url.pathname = "/nowhere"), "DATABASE_DENIED"],
    ["TLS where the server has none", (url) => (url.search = "?sslmode=require"), "DATABASE_TLS"],
    ["a host that does not exist", (url) => (url.hostname = "nowhere.invalid"), "DATABASE_UNAVAILABLE"],
  ];
  test.for(cases)("because of %s is named by code, without the password", async ([, change, code]) => {
    const { url } = await createDatabase();
    expect(await refusals(withChange(url, change))).toMatchObject([{ code }, { code }]);
  });

  test("because nothing listens there is named by code", async () => {
    // A port that no server is ever given by chance.
    expect(await refusals("postgres://u:s3cret@127.0.0.1:1/d")).toMatchObject([
      { code: "DATABASE_UNAVAILABLE", message: expect.stringContaining("nothing listens") as string },
      { code: "DATABASE_UNAVAILABLE" },
    ]);
  });

  test("because it does not answer is given up in time", async () => {
    const proxy = await startProxy((await createDatabase()).url);
    proxy.stall(true);
    const began = performance.now();
    expect(await refusals(`${proxy.url}?connect_timeout=1`)).toMatchObject([
      { code: "DATABASE_UNAVAILABLE" },
      { code: "DATABASE_UNAVAILABLE" },
    ]);
    // 2 s; two of the 10 s that hold otherwise would be 20.
    expect(performance.now() - began).toBeLessThan(19_000);
  });

  test("is waited for no longer than the caller wants", async () => {
    const proxy = await startProxy((await createDatabase()).url);
    proxy.stall(true);
    const driver = await open(proxy.url);
    const stop = new AbortController();
    const enough = new Error("enough");
    const asked = driver.state("orders", stop.signal).catch((error: unknown) => error);
    while (proxy.connections() === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    stop.abort(enough);
    expect(await asked).toMatchObject({ code: "DATABASE_UNAVAILABLE", cause: enough });
  });

  test.for(["ALTER DATABASE x SET default_transaction_read_only = on", "read-only from the start"])(
    "because it takes no writes: %s",
    async (how) => {
      const database = await createDatabase();
      if (how.startsWith("ALTER")) {
        const driver = await open(database.url);
        await driver.withLease(leaseOptions(), () => Promise.resolve());
      }
      await database.query(`ALTER DATABASE ${database.name} SET default_transaction_read_only = on`);
      const driver = await open(database.url);
      expect((await driver.state("orders", never)).exists).toBe(how.startsWith("ALTER"));
      await expect(driver.withLease(leaseOptions(), () => Promise.resolve())).rejects.toMatchObject({
        code: "DATABASE_READ_ONLY",
      });
      await expect(driver.unlock("orders", "t.x", "why", never)).rejects.toMatchObject({
        code: "UNKNOWN_RUN",
      });
    },
  );

  test("because it became read-only in the middle is named so for the body, too", async () => {
    const database = await createDatabase();
    const driver = await open(database.url);
    const { failure } = await driver.withLease(leaseOptions(), async (session) =>
      session.applyInTransactions(
        await transactionSteps([
          { path: "1_a.up.sql", up: "SET LOCAL transaction_read_only = on; CREATE TABLE a ();" },
        ]),
        settings,
      ),
    );
    expect(failure).toMatchObject({ code: "DATABASE_READ_ONLY" });
  });

  test("by a role that may not create a schema is denied, until a person has made it", async () => {
    const database = await createDatabase();
    const role = `r_${database.name}`;
    await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 's3cret'`);
    onTestFinished(() =>
      database
        .query(`DROP OWNED BY ${role} CASCADE`)
        .then(() => database.query(`DROP ROLE ${role}`))
        .then(() => undefined),
    );
    const url = withChange(database.url, (to) => ((to.username = role), (to.password = "s3cret")));
    const driver = await open(url);
    expect((await driver.state("orders", never)).exists).toBe(false);
    await expect(driver.withLease(leaseOptions(), () => Promise.resolve())).rejects.toMatchObject({
      code: "DATABASE_DENIED",
      hint: expect.stringContaining("schema lockkeeper") as string,
    });
    await database.query(`CREATE SCHEMA lockkeeper AUTHORIZATION ${role}`);
    expect(await driver.withLease(leaseOptions(), (session) => Promise.resolve(session.token))).toBe(1);
  });

  test("because its disk is full is named so, and nothing is half done", async (context) => {
    const folder = serverFolder("tiny", true);
    const user = plainUser();
    const place = path.join(folder, "disk");
    mkdirSync(place);
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", place], { stdio: "pipe" });
    } catch {
      // What follows needs a disk that is really full.
      notRun(context, "a file system of its own (run the tests as root on Linux)");
    }
    onTestFinished(() => void execFileSync("umount", ["-l", place]));
    if (user !== undefined) chownSync(place, user.uid, user.gid);
    const server = await ownPostgres({});
    const database = await createDatabase({ server });
    const admin = await database.connect();
    await admin.query(`CREATE TABLESPACE tiny LOCATION '${place}'`);
    const driver = await open(database.url);
    const steps = await transactionSteps([
      { path: "1_a.up.sql", up: "CREATE TABLE a ();" },
      {
        path: "2_b.up.sql",
        up: "CREATE TABLE b TABLESPACE tiny AS SELECT repeat('x', 900) AS x FROM generate_series(1, 10000);",
      },
    ]);
    const { done, failure } = await driver.withLease(leaseOptions(), (session) =>
      session.applyInTransactions(steps, settings),
    );
    expect(done).toHaveLength(1);
    expect(failure).toMatchObject({
      code: "DATABASE_FULL",
      fields: { sqlstate: "53100", migration: "2_b.up.sql" },
    });
    expect((await driver.state("orders", never)).unfinished).toMatchObject({ seq: 2, status: "failed" });
    expect(await database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).toEqual([
      { tablename: "a" },
    ]);
  });

  test("through a password that is never printed: no message of any failure holds it", async () => {
    const driver = await open("postgres://u:s3cret@127.0.0.1:1/d?password=s3cret");
    expect(driver.url).toBe("postgres://u@127.0.0.1:1/d");
    const failure = await driver.state("orders", never).catch((error: unknown) => error);
    const seen = new Set<unknown>();
    for (let at: unknown = failure; at instanceof Error && !seen.has(at); at = at.cause) {
      seen.add(at);
      expect(`${at.message} ${at.stack ?? ""}`).not.toContain("s3cret");
    }
  });
});

describe("TLS", () => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await ownPostgres({ tls: { hostname: "db.example" } });
  });
  const cases: [mode: string, root: boolean, code: string | undefined][] = [
    ["disable", false, "DATABASE_DENIED"],
    ["allow", false, undefined],
    ["prefer", false, undefined],
    ["require", false, undefined],
    ["require", true, undefined],
    ["verify-ca", true, undefined],
    ["verify-ca", false, "DATABASE_TLS"],
    ["verify-full", true, "DATABASE_TLS"],
    ["verify-full", false, "DATABASE_TLS"],
  ];
  test.for(cases)("sslmode %s with a root %s: %s", async ([mode, root, code]) => {
    const url = withChange(server.url, (to) => {
      to.searchParams.set("sslmode", mode);
      if (root) to.searchParams.set("sslrootcert", server.caFile ?? "");
    });
    const driver = await open(url);
    const state = driver.state("orders", never);
    if (code === undefined) expect(await state).toMatchObject({ exists: false });
    else await expect(state).rejects.toMatchObject({ code });
  });

  test("without a mode a server on loopback that insists is met with TLS", async () => {
    expect(await (await open(server.url)).state("orders", never)).toMatchObject({ exists: false });
  });

  test("verify-full is content with the right name", async () => {
    const good = await ownPostgres({ tls: {} });
    const url = withChange(good.url, (to) => {
      to.searchParams.set("sslmode", "verify-full");
      to.searchParams.set("sslrootcert", good.caFile ?? "");
    });
    expect(await (await open(url)).state("orders", never)).toMatchObject({ exists: false });
  });
});

describe("through PgBouncer in transaction mode", () => {
  needs("pgbouncer");

  test("with one connection to the server a run is refused with the reason, and holds up nobody", async () => {
    const database = await createDatabase();
    const pooler = await startPgBouncer(database.url, { poolSize: 1 });
    const driver = await open(pooler.url);
    await expect(driver.withLease(leaseOptions(), () => Promise.resolve())).rejects.toMatchObject({
      code: "POOL_TOO_SMALL",
      fields: { needed: 2 },
    });
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test("with two bodies in transactions run, and those outside are refused with the reason", async () => {
    const database = await createDatabase();
    const pooler = await startPgBouncer(database.url, { poolSize: 2 });
    const driver = await open(pooler.url, { times: shortTimes });
    await driver.withLease(leaseOptions(), async (session) => {
      const slow = await transactionSteps([
        { path: "1_a.up.sql", up: "CREATE TABLE a (b int); SELECT pg_sleep(1)" },
      ]);
      expect((await session.applyInTransactions(slow, settings)).failure).toBeNull();
      const outside = await statementStep("CREATE INDEX CONCURRENTLY i ON a (b)");
      await expect(session.applyStatements(outside, settings, () => undefined)).rejects.toMatchObject({
        code: "POOL_TOO_SMALL",
        fields: { needed: 3 },
      });
    });
    expect(await driver.history("orders", {}, never)).toHaveLength(1);
  });

  test("with three a concurrent index is built", async () => {
    const database = await createDatabase();
    await database.query("CREATE TABLE a (b int)");
    const pooler = await startPgBouncer(database.url, { poolSize: 3 });
    const driver = await open(pooler.url, { times: shortTimes });
    const outside = await statementStep(
      "CREATE INDEX CONCURRENTLY i ON a (b);\nALTER TABLE a ADD c int;\nDROP INDEX CONCURRENTLY i;",
    );
    await driver.withLease(leaseOptions(), (session) =>
      session.applyStatements(outside, settings, () => undefined),
    );
    expect(await driver.history("orders", {}, never)).toMatchObject([{ status: "done", statementsDone: 3 }]);
  });

  test("settings that a body outside transactions needs are refused, and taken past the pooler", async () => {
    const database = await createDatabase();
    await database.query("CREATE SCHEMA app; CREATE TABLE app.a (b int)");
    const pooler = await startPgBouncer(database.url, { poolSize: 4 });
    const outside = await statementStep("SET search_path = app;\nCREATE INDEX CONCURRENTLY i ON a (b);");
    const driver = await open(pooler.url);
    await driver.withLease(leaseOptions(), async (session) => {
      await expect(session.applyStatements(outside, settings, () => undefined)).rejects.toMatchObject({
        code: "STATEMENT_REFUSED",
        fields: { statement: 2 },
      });
    });
    expect(await driver.history("orders", {}, never)).toEqual([]);
    const direct = await open(pooler.url, { directUrl: database.url });
    await direct.withLease(leaseOptions(), (session) =>
      session.applyStatements(outside, settings, () => undefined),
    );
    expect(await database.query("SELECT schemaname FROM pg_indexes WHERE indexname = 'i'")).toEqual([
      { schemaname: "app" },
    ]);
  });

  test("who holds the lock that a body waits for is found by its mark, whatever backend it has", async () => {
    const database = await createDatabase();
    await database.query("CREATE TABLE a (b int)");
    const pooler = await startPgBouncer(database.url, { poolSize: 3 });
    const holder = await database.connect();
    await holder.query("BEGIN; LOCK TABLE a");
    const { rows } = await holder.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
    const driver = await open(pooler.url, { times: { ...shortTimes, retryMs: 10 } });
    const steps = await transactionSteps([{ path: "1_a.up.sql", up: "ALTER TABLE a ADD c int" }]);
    const { failure } = await driver.withLease(leaseOptions(), (session) =>
      session.applyInTransactions(steps, { ...settings, lockTimeoutMs: 150 }),
    );
    expect(failure).toMatchObject({ code: "LOCK_TIMEOUT", fields: { blocker: rows[0]?.pid } });
  });

  test("nothing that a body sets reaches another client of the same backends", async () => {
    const database = await createDatabase();
    const pooler = await startPgBouncer(database.url, { poolSize: 2 });
    const driver = await open(pooler.url);
    const steps = await transactionSteps([
      {
        path: "1_a.up.sql",
        up: "SET search_path = ''; SET ROLE pg_monitor; SET statement_timeout = '77s'; SELECT pg_advisory_lock(1);",
      },
    ]);
    await driver.withLease(leaseOptions(), async (session) =>
      expect((await session.applyInTransactions(steps, settings)).failure).toBeNull(),
    );
    for (let n = 0; n < 4; n += 1) {
      const reader = await open(pooler.url);
      expect((await reader.state("orders", never)).position.length).toBe(1);
    }
    expect(
      await database.query(
        "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
      ),
    ).toEqual([]);
  });
});
