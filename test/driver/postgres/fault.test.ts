import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { LeasedSession, SessionSettings } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { RunnerError } from "../../../src/error.ts";
import { createDatabase, ownPostgres, type TestDatabase } from "../../support/database.ts";
import { closeGate, type Gate } from "../../support/gate.ts";
import type { MigrationText } from "../../support/plain-release.ts";
import { startProxy } from "../../support/proxy.ts";
import { leaseOptions, never, settings, shortTimes, transactionSteps } from "../../support/steps.ts";

async function open(url: string, times?: typeof shortTimes): Promise<Driver> {
  const driver = await openDriver(url, times === undefined ? {} : { times });
  onTestFinished(() => driver.close());
  return driver;
}

function numbered(bodies: readonly string[]): readonly MigrationText[] {
  return bodies.map((up, index) => ({ path: `${index + 1}_body.up.sql`, up }));
}

async function apply(
  session: LeasedSession,
  bodies: readonly string[],
  own: SessionSettings = settings,
): ReturnType<LeasedSession["applyInTransactions"]> {
  return session.applyInTransactions(await transactionSteps(numbered(bodies)), own);
}

/** Body `n` of many small ones; fails when it is done twice, and waits where there is a gate for it. */
function inserts(count: number, gates: Readonly<Record<number, Gate>> = {}): readonly string[] {
  return oneTo(count).map((n) => {
    const gate = gates[n];
    return `INSERT INTO done VALUES (${n});${gate === undefined ? "" : ` SELECT ${gate.sql};`}`;
  });
}

/** What the bodies did, and what the history says of it; the two must be the same. */
async function compare(database: TestDatabase, driver: Driver): Promise<readonly number[]> {
  const rows = await database.query<{ n: number }>("SELECT n FROM done ORDER BY n");
  const effects = rows.map(({ n }) => n);
  const entries = (await driver.history("orders", {}, never))
    .filter(({ status }) => status === "done")
    .map(({ seq }) => seq);
  expect(entries.toSorted((a, b) => a - b)).toEqual(effects);
  return effects;
}

async function withDone(): Promise<TestDatabase> {
  const database = await createDatabase();
  await database.query("CREATE TABLE done (n int PRIMARY KEY)");
  return database;
}

function oneTo(last: number): readonly number[] {
  return Array.from({ length: last }, (_, index) => index + 1);
}

describe("a clash with the application", () => {
  test("is tried again until the lock is free", async () => {
    const database = await withDone();
    const driver = await open(database.url);
    const blocker = await database.connect();
    await blocker.query("BEGIN; LOCK TABLE done IN SHARE MODE");
    const told: [string, number, string][] = [];
    const own: SessionSettings = {
      ...settings,
      lockTimeoutMs: 100,
      onRetry(path, attempt, sqlstate) {
        told.push([path, attempt, sqlstate]);
        if (attempt === 2) void blocker.query("COMMIT");
      },
    };
    const { failure, done } = await driver.withLease(leaseOptions(), (session) =>
      apply(session, inserts(3), own),
    );
    expect({ failure, done: done.length }).toEqual({ failure: null, done: 3 });
    expect(told.slice(0, 2)).toEqual([
      ["1_body.up.sql", 1, "55P03"],
      ["1_body.up.sql", 2, "55P03"],
    ]);
    expect(await compare(database, driver)).toEqual([1, 2, 3]);
  });

  test("with a deadlock is tried again, and nothing of it happens twice", async () => {
    const database = await withDone();
    await database.query("CREATE TABLE other (n int)");
    const driver = await open(database.url);
    const blocker = await database.connect();
    await blocker.query("BEGIN; LOCK TABLE other");
    const states: string[] = [];
    const body =
      "SET LOCAL deadlock_timeout = '50ms'; INSERT INTO done VALUES (1); LOCK TABLE done; SELECT pg_sleep(2); LOCK TABLE other;";
    const running = driver.withLease(leaseOptions(), (session) =>
      apply(session, [body], {
        ...settings,
        onRetry: (_path, _attempt, sqlstate) => void states.push(sqlstate),
      }),
    );
    await blocker.query("SET LOCAL deadlock_timeout = '20s'");
    await until(
      async () =>
        (
          await database.query(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
          )
        ).length > 0,
    );
    await blocker.query("LOCK TABLE done");
    await blocker.query("COMMIT");
    expect((await running).failure).toBeNull();
    expect(states).toContain("40P01");
    expect(await compare(database, driver)).toEqual([1]);
  });

  test("statement_timeout ends a body that takes too long, and is said to have done so", async () => {
    const database = await withDone();
    const driver = await open(database.url);
    const bodies = ["INSERT INTO done VALUES (1)", "INSERT INTO done VALUES (2); SELECT pg_sleep(600)"];
    const steps = (await transactionSteps(numbered(bodies))).map((step, index) =>
      index === 1 ? { ...step, statementTimeoutMs: 300 } : step,
    );
    const { failure, done } = await driver.withLease(leaseOptions(), (session) =>
      session.applyInTransactions(steps, settings),
    );
    expect(done).toHaveLength(1);
    expect(failure).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { sqlstate: "57014", migration: "2_body.up.sql" },
    });
    expect(failure?.hint).toContain("statement_timeout");
    expect(await compare(database, driver)).toEqual([1]);
  });
});

describe("a lost connection", () => {
  test("in the middle of 200 bodies leaves each done exactly once", async () => {
    const database = await withDone();
    const proxy = await startProxy(database.url);
    const driver = await open(proxy.url);
    const gates = { 40: await closeGate(database, 40), 120: await closeGate(database, 120) };
    const cutting = (async () => {
      for (const gate of Object.values(gates)) {
        await gate.reached();
        proxy.cut();
        await gate.open();
      }
    })();
    const { failure, done } = await driver.withLease(leaseOptions(), (session) =>
      apply(session, inserts(200, gates)),
    );
    await cutting;
    expect({ failure, done: done.length }).toEqual({ failure: null, done: 200 });
    expect(await compare(database, driver)).toEqual(oneTo(200));
    const entries = await driver.history("orders", {}, never);
    expect(entries.map(({ seq }) => seq)).toEqual(oneTo(200));
    expect(new Set(entries.map(({ token }) => token)).size).toBeGreaterThan(1);
  });

  test("by an administrator in the middle of 200 bodies leaves each done exactly once", async () => {
    const database = await withDone();
    const driver = await open(database.url);
    const gate = await closeGate(database);
    const terminating = gate.reached().then(async () => {
      await database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'lockkeeper'",
      );
      await gate.open();
    });
    const { failure, done } = await driver.withLease(leaseOptions(), (session) =>
      apply(session, inserts(200, { 50: gate })),
    );
    await terminating;
    expect({ failure, done: done.length }).toEqual({ failure: null, done: 200 });
    expect(await compare(database, driver)).toEqual(oneTo(200));
  });

  test("by the body itself, again and again, is the body's failure after three tries", async () => {
    const database = await withDone();
    const driver = await open(database.url);
    const attempts: number[] = [];
    const own: SessionSettings = { ...settings, onRetry: (_path, attempt) => void attempts.push(attempt) };
    const bodies = [
      "INSERT INTO done VALUES (1)",
      "INSERT INTO done VALUES (2); SELECT pg_terminate_backend(pg_backend_pid())",
      "INSERT INTO done VALUES (3)",
    ];
    const { failure, done } = await driver.withLease(leaseOptions(), (session) =>
      apply(session, bodies, own),
    );
    expect(done).toHaveLength(1);
    expect(failure).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { migration: "2_body.up.sql", sqlstate: "57P01" },
    });
    expect(attempts).toEqual([1, 2]);
    expect(await compare(database, driver)).toEqual([1]);
    expect((await driver.state("orders", never)).unfinished).toMatchObject({ seq: 2, status: "failed" });
  });

  test("while the run's own rows are written is made good on another one", async () => {
    const database = await withDone();
    const proxy = await startProxy(database.url);
    const driver = await open(proxy.url);
    const options = leaseOptions();
    await driver.withLease(options, async (session) => {
      proxy.cut();
      await session.begin({
        highWaterMark: null,
        releaseDigest: "plain:x",
        fromVersion: null,
        toVersion: "1",
        steps: 1,
      });
      proxy.cut();
      await session.finish({ status: "succeeded", outcome: "applied", completed: "plain:x" });
    });
    expect(await driver.state("orders", never)).toMatchObject({ completed: "plain:x", lease: null });
    expect((await driver.run(options.run.id, never))?.status).toBe("succeeded");
  });

  test("that nobody told us of is given up when trust in the lease has run out", async () => {
    const database = await withDone();
    const proxy = await startProxy(database.url);
    const driver = await open(proxy.url, {
      leaseMs: 1_500,
      heartbeatMs: 200,
      marginMs: 200,
      cancelPollMs: 100,
    });
    const work = driver.withLease(leaseOptions(), async (session) => {
      proxy.onRequest((bytes) => {
        if (bytes.includes("INSERT INTO done")) proxy.stall(true);
      });
      return apply(session, inserts(1));
    });
    await expect(work).rejects.toMatchObject({ code: "LEASE_LOST" });
  });

  test("to a server that stops at once and comes back leaves history and effects equal", async () => {
    const server = await ownPostgres({});
    const database = await createDatabase({ server });
    await database.query("CREATE TABLE done (n int PRIMARY KEY)");
    const driver = await open(database.url);
    // The postmaster ends all backends and starts again when one of them is killed: what an immediate stop is to clients.
    const gate = await closeGate(database);
    const [writer] = await database.query<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'",
    );
    if (writer === undefined) throw new Error("the server has no background writer");
    // The gate's own backend goes as well, and opens it.
    const crash = gate.reached().then(() => process.kill(writer.pid, "SIGKILL"));
    const { failure, done } = await driver.withLease(leaseOptions(), (session) =>
      apply(session, inserts(120, { 30: gate })),
    );
    await crash;
    expect({ failure, done: done.length }).toEqual({ failure: null, done: 120 });
    expect(await compare(database, driver)).toEqual(oneTo(120));
  });
});

describe("a run that is to stop", () => {
  test("in the moment in which it takes the lease gives it back", async () => {
    const database = await withDone();
    const proxy = await startProxy(database.url);
    const driver = await open(proxy.url);
    await driver.withLease(leaseOptions(), (session) => apply(session, ["SELECT 1"]));
    const stop = new AbortController();
    proxy.onRequest((bytes) => {
      if (bytes.includes("SKIP LOCKED")) stop.abort(new RunnerError("CANCELED", "enough"));
    });
    const work = driver.withLease(leaseOptions({ signal: stop.signal }), (session) => session.state());
    await expect(work).rejects.toMatchObject({ code: "CANCELED" });
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test.for(["its own signal", "a cancel asked for elsewhere"])(
    "by %s ends a pg_sleep on the server",
    async (how) => {
      const database = await withDone();
      const driver = await open(database.url, shortTimes);
      const stop = new AbortController();
      const options = leaseOptions({ signal: stop.signal });
      const sleeping = until(
        async () =>
          (
            await database.query(
              "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
            )
          ).length > 0,
      );
      const work = driver.withLease(options, (session) =>
        apply(session, ["INSERT INTO done VALUES (1)", "INSERT INTO done VALUES (2); SELECT pg_sleep(300)"]),
      );
      const outcome = work.then(
        () => "went on",
        (error: unknown) => error,
      );
      await sleeping;
      if (how === "its own signal") stop.abort();
      else await driver.requestCancel(options.run.id, "enough", never);
      await expect(outcome).resolves.not.toBe("went on");
      expect(
        await database.query(
          "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        ),
      ).toEqual([]);
      expect(await compare(database, driver)).toEqual([1]);
      expect((await driver.state("orders", never)).lease).toBeNull();
    },
  );
});

describe("a frozen holder", () => {
  test("in the middle of a transaction loses it after one lease, and the taker goes on", async () => {
    const database = await withDone();
    const driver = await open(database.url, shortTimes);
    await driver.withLease(leaseOptions(), (session) => apply(session, ["SELECT 1"]));
    // What a frozen process leaves: an open transaction with the fence, and a lease that nobody renews.
    const frozen = await database.connect();
    await database.query(
      "UPDATE lockkeeper.streams SET holder = 'frozen/1', run_id = 't.frozen', expires_at = clock_timestamp() + interval '300 ms'",
    );
    await frozen.query(
      "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 2000; SELECT 1 / count(*) FROM (SELECT 1 FROM lockkeeper.streams WHERE run_id = 't.frozen' FOR KEY SHARE) f; INSERT INTO done VALUES (99)",
    );
    const token = await driver.withLease(leaseOptions({ waitMs: 20_000 }), (session) =>
      Promise.resolve(session.token),
    );
    expect(token).toBe(2);
    await expect(frozen.query("COMMIT")).rejects.toThrow(/connection/i);
    expect(await database.query("SELECT n FROM done")).toEqual([]);
  });
});

/** Asks again and again; the test's own time-out is the bound. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}
