import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { SessionSettings } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import {
  leaseOptions,
  never,
  settings,
  shortTimes,
  statementStep,
  transactionSteps,
} from "../../support/steps.ts";

/** Tries follow each other quickly, so that a test sees the last of them. */
const quickTries = { ...shortTimes, retryMs: 10 };

async function start(prepared: string): Promise<{ database: TestDatabase; driver: Driver }> {
  const database = await createDatabase();
  await database.query(prepared);
  const driver = await openDriver(database.url, { times: quickTries });
  onTestFinished(() => driver.close());
  return { database, driver };
}

/** Applies bodies in transactions under a lease of its own. */
async function apply(driver: Driver, bodies: readonly string[], own: Partial<SessionSettings> = {}) {
  const steps = await transactionSteps(bodies.map((up, index) => ({ path: `${index + 1}_body.up.sql`, up })));
  return driver.withLease(leaseOptions(), (session) =>
    session.applyInTransactions(steps, { ...settings, ...own }),
  );
}

/** Someone who has read the table, and has gone to lunch in the middle of a transaction. */
async function longReader(
  database: TestDatabase,
): Promise<{ pid: number; query(sql: string): Promise<unknown>; leave(): Promise<unknown> }> {
  const reader = await database.connect();
  await reader.query("SET application_name = 'psql at lunch'");
  const { rows } = await reader.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  await reader.query("BEGIN");
  await reader.query("SELECT count(*) FROM t");
  return {
    pid: rows[0]?.pid ?? 0,
    query: (sql) => reader.query(sql),
    leave: () => reader.query("COMMIT"),
  };
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Until a session whose statement starts so has waited for a lock for some time, by the server's clock. */
function untilWaiting(database: TestDatabase, query: string, forMs = 0): Promise<void> {
  return until(
    async () =>
      (
        await database.query(
          "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND position($1 in query) > 0 AND clock_timestamp() - query_start > $2::int * interval '1 ms'",
          [query, forMs],
        )
      ).length > 0,
  );
}

describe("a migration that needs a lock which a long reader has", () => {
  test("gives way to the application again and again, and is done when the reader has gone", async () => {
    const { database, driver } = await start("CREATE TABLE t (a int)");
    const reader = await longReader(database);
    const tries: { sqlstate: string; blocker: string | null }[] = [];
    const ended = new AbortController();
    let longestMs = 0;
    /** how many tries ended, at most, while one query of the application was under way */
    let mostTries = 0;
    const application = async (sql: string): Promise<number> => {
      const client = await database.connect();
      let queries = 0;
      for (; !ended.signal.aborted; queries += 1) {
        const before = tries.length;
        const { rows } = await client.query<{ waited: string }>(sql);
        longestMs = Math.max(longestMs, Number(rows[0]?.waited ?? 0));
        mostTries = Math.max(mostTries, tries.length - before);
      }
      return queries;
    };
    const waited = "extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000 AS waited";
    const busy = [
      application(`INSERT INTO t (a) VALUES (1) RETURNING ${waited}`),
      application(`SELECT ${waited} FROM t LIMIT 1`),
    ];
    const { failure } = await apply(driver, ["ALTER TABLE t ADD b int"], {
      lockTimeoutMs: 500,
      onRetry(_path, attempt, sqlstate, _delayMs, blocker) {
        tries.push({ sqlstate, blocker });
        if (attempt === 4) void reader.leave();
      },
    }).finally(() => ended.abort());
    const queries = await Promise.all(busy);
    expect(failure).toBeNull();
    expect(tries.length).toBeGreaterThanOrEqual(4);
    expect(new Set(tries.map(({ sqlstate }) => sqlstate))).toEqual(new Set(["55P03"]));
    expect(tries.some(({ blocker }) => blocker?.startsWith(`pid ${reader.pid} (psql at lunch, `))).toBe(true);
    // They did stand behind us, each for one try of ours, whose end may be told a moment after theirs.
    expect(longestMs).toBeGreaterThan(50);
    expect(mostTries).toBeLessThanOrEqual(2);
    expect(Math.min(...queries)).toBeGreaterThan(4);
    expect(await database.query("SELECT b FROM t LIMIT 1")).toEqual([{ b: null }]);
  });

  test("holds up everybody behind it where it has no lock_timeout (negative control)", async () => {
    const { database, driver } = await start("CREATE TABLE t (a int)");
    const reader = await longReader(database);
    const altering = apply(driver, ["ALTER TABLE t ADD b int"], { lockTimeoutMs: 0 });
    await untilWaiting(database, "ALTER TABLE t", 100);
    const order: string[] = [];
    const client = await database.connect();
    const query = client.query("SELECT count(*) FROM t").then(() => order.push("a query of the application"));
    await untilWaiting(database, "SELECT count(*) FROM t", 1_000);
    order.push("the reader leaves");
    await reader.leave();
    await query;
    expect(order).toEqual(["the reader leaves", "a query of the application"]);
    expect((await altering).failure).toBeNull();
  });

  test("fails after some tries with LOCK_TIMEOUT, names who has it, and leaves the database as it was", async () => {
    const { database, driver } = await start("CREATE TABLE t (a int)");
    const reader = await longReader(database);
    const attempts: number[] = [];
    const { failure, done } = await apply(driver, ["CREATE TABLE before ()", "ALTER TABLE t ADD b int"], {
      lockTimeoutMs: 150,
      onRetry: (_path, attempt) => void attempts.push(attempt),
    });
    expect(attempts).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(done).toHaveLength(1);
    expect(failure).toMatchObject({
      code: "LOCK_TIMEOUT",
      retryable: true,
      fields: { migration: "2_body.up.sql", sqlstate: "55P03", blocker: reader.pid },
    });
    expect(failure?.message).toMatch(
      /held by pid \d+ \(psql at lunch, user postgres, idle in transaction since \d{4}-\d\d-\d\dT[\d:.]+Z\)/,
    );
    expect(failure?.message).not.toContain("SELECT");
    expect(failure?.hint).toContain("lock_timeout");
    expect((await driver.state("orders", never)).unfinished).toMatchObject({
      status: "failed",
      error: { code: "LOCK_TIMEOUT", fields: { blocker: reader.pid } },
    });
    const columns = "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0";
    expect(await database.query(columns)).toEqual([{ attname: "a" }]);
    await reader.leave();
    expect((await apply(driver, ["SELECT 1", "ALTER TABLE t ADD b int"])).failure).toBeNull();
  });

  test("fails in the same way statement by statement, and for a role that may not see other sessions", async () => {
    const { database } = await start("CREATE TABLE t (a int)");
    const role = `r_${database.name}`;
    await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'r'`);
    const reader = await longReader(database);
    onTestFinished(async () => {
      await reader.leave();
      await database.query(`DROP OWNED BY ${role} CASCADE`);
      await database.query(`DROP ROLE ${role}`);
    });
    await database.query(`CREATE SCHEMA lockkeeper AUTHORIZATION ${role}`);
    await database.query(`CREATE TABLE u (a int); ALTER TABLE u OWNER TO ${role}`);
    await reader.query("SELECT count(*) FROM u");
    const url = new URL(database.url);
    url.username = role;
    url.password = "r";
    const driver = await openDriver(url.href, { times: quickTries });
    onTestFinished(() => driver.close());
    const step = await statementStep("-- lockkeeper: tx=none\nALTER TABLE u ADD b int;", {
      lockTimeoutMs: 150,
    });
    await driver.withLease(leaseOptions(), async (session) => {
      const failed = session.applyStatements(step, settings, () => undefined);
      await expect(failed).rejects.toMatchObject({
        code: "LOCK_TIMEOUT",
        message: expect.stringContaining(
          `held by pid ${reader.pid} (psql at lunch, user postgres)`,
        ) as string,
        fields: { blocker: reader.pid, statement: 1 },
      });
    });
  });
});

describe("a try that failed", () => {
  test("for a lock in the middle of a message does not repeat the bodies that had committed", async () => {
    const { database, driver } = await start("CREATE TABLE t (a int)");
    await database.query("CREATE TABLE done (n int PRIMARY KEY)");
    const reader = await longReader(database);
    const told: [string, number][] = [];
    const bodies = [
      "INSERT INTO done VALUES (1)",
      "INSERT INTO done VALUES (2)",
      "INSERT INTO done VALUES (3); ALTER TABLE t ADD b int",
      "INSERT INTO done VALUES (4)",
    ];
    const { failure, done } = await apply(driver, bodies, {
      lockTimeoutMs: 100,
      onRetry(path, attempt) {
        told.push([path, attempt]);
        if (attempt === 2) void reader.leave();
      },
    });
    expect({ failure, done: done.length }).toEqual({ failure: null, done: 4 });
    expect(told.slice(0, 2)).toEqual([
      ["3_body.up.sql", 1],
      ["3_body.up.sql", 2],
    ]);
    expect(await database.query("SELECT n FROM done ORDER BY n")).toEqual([1, 2, 3, 4].map((n) => ({ n })));
    const entries = await driver.history("orders", {}, never);
    expect(entries.map(({ seq, status }) => [seq, status])).toEqual([1, 2, 3, 4].map((seq) => [seq, "done"]));
  });

  test("for a serialization failure is followed by another", async () => {
    const { driver } = await start("CREATE SEQUENCE attempts");
    const states: string[] = [];
    const clashing =
      "DO $$ BEGIN IF nextval('attempts') < 3 THEN RAISE 'clash' USING ERRCODE = '40001'; END IF; END $$";
    const { failure } = await apply(driver, [clashing], {
      onRetry: (_path, _attempt, sqlstate) => void states.push(sqlstate),
    });
    expect({ failure, states }).toEqual({ failure: null, states: ["40001", "40001"] });
  });

  test("is not one of an index that is built concurrently: it waits for as long as it takes", async () => {
    const { database, driver } = await start("CREATE TABLE t (a int)");
    const writer = await database.connect();
    await writer.query("BEGIN; INSERT INTO t VALUES (1)");
    const retries: string[] = [];
    const step = await statementStep("CREATE INDEX CONCURRENTLY i ON t (a);");
    const building = driver.withLease(leaseOptions(), (session) =>
      session.applyStatements(
        step,
        { ...settings, lockTimeoutMs: 50, onRetry: (path) => void retries.push(path) },
        () => undefined,
      ),
    );
    await untilWaiting(database, "CREATE INDEX CONCURRENTLY", 1_000);
    await writer.query("COMMIT");
    await building;
    expect(retries).toEqual([]);
    expect(await database.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass")).toEqual([
      { indisvalid: true },
    ]);
  });
});

describe("twenty runners that wait for the lease", () => {
  test("do not hang an index that its holder builds, replaces or drops concurrently", async () => {
    const { database, driver } = await start("CREATE TABLE t (a int)");
    await database.query("INSERT INTO t SELECT generate_series(1, 50000)");
    const step = await statementStep(
      ["CREATE INDEX CONCURRENTLY i ON t (a);", "REINDEX INDEX CONCURRENTLY i;", "DROP INDEX CONCURRENTLY i;"]
        .join("\n")
        .repeat(3),
    );
    // A driver lends twelve connections.
    const others = await Promise.all([openDriver(database.url), openDriver(database.url)]);
    for (const other of others) onTestFinished(() => other.close());
    const waiting = new Map<number, string>();
    const told = Promise.withResolvers<void>();
    const tokens = await driver.withLease(leaseOptions({ holder: "builder/1" }), async (session) => {
      const waiters = Array.from({ length: 20 }, (_, n) =>
        (others[n % 2] ?? driver).withLease(
          leaseOptions({
            waitMs: 60_000,
            onWaiting(holder) {
              if (!waiting.has(n)) waiting.set(n, holder.holder);
              if (waiting.size === 20) told.resolve();
            },
          }),
          ({ token }) => Promise.resolve(token),
        ),
      );
      await told.promise;
      await session.applyStatements(step, settings, () => undefined);
      return waiters;
    });
    expect(new Set(waiting.values())).toEqual(new Set(["builder/1"]));
    const taken = await Promise.all(tokens);
    expect(taken.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, n) => n + 2));
    const [entry] = await driver.history("orders", {}, never);
    expect(entry).toMatchObject({ status: "done", statementsDone: 9 });
  }, 60_000);
});
