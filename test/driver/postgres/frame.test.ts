import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import { openDriver } from "../../../src/driver/open.ts";
import type { TransactionStep } from "../../../src/driver/session.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { startPgBouncer } from "../../support/pgbouncer.ts";
import { leaseOptions, never, settings, shortTimes, transactionSteps } from "../../support/steps.ts";

/** Bodies of one message, enough for the server to be asked to plan once what surrounds them. */
const many = 40;
/** The body whose place is in the middle of them, counted from 1. */
const middle = 20;

const frameNames = ["lockkeeper_entry", "lockkeeper_fence", "lockkeeper_settings"];
const note = `INSERT INTO noted SELECT name, statement FROM pg_catalog.pg_prepared_statements`;

async function start(): Promise<{ database: TestDatabase; driver: Driver }> {
  const database = await createDatabase();
  await database.query("CREATE TABLE noted (name text, statement text)");
  const driver = await openDriver(database.url, { times: shortTimes });
  onTestFinished(() => driver.close());
  return { database, driver };
}

/** Tables t1, t2, …, of which the one in the middle has `special` for its body; all of them as if they left nothing behind. */
async function bodies(special: string, count = many): Promise<readonly TransactionStep[]> {
  const texts = Array.from({ length: count }, (_, index) => ({
    path: `${index + 1}_body.up.sql`,
    up: index + 1 === middle ? "SELECT 'replaced'" : `CREATE TABLE t${index + 1} ()`,
  }));
  const steps = await transactionSteps(texts, { alone: true });
  return steps.map((step, index) => (index + 1 === middle ? { ...step, sql: special, text: special } : step));
}

async function tables(database: TestDatabase): Promise<number> {
  const rows = await database.query("SELECT FROM pg_tables WHERE tablename ~ '^t[0-9]+$'");
  return rows.length;
}

async function noted(database: TestDatabase): Promise<readonly string[]> {
  const rows = await database.query<{ name: string }>("SELECT DISTINCT name FROM noted ORDER BY 1");
  return rows.map(({ name }) => name);
}

async function statuses(driver: Driver): Promise<ReadonlyMap<string, number>> {
  const counts = new Map<string, number>();
  for (const { status } of await driver.history("orders", {}, never))
    counts.set(status, (counts.get(status) ?? 0) + 1);
  return counts;
}

test("what surrounds many bodies is planned once, and their entries are as those of few", async () => {
  const { database, driver } = await start();
  const { done, failure } = await driver.withLease(leaseOptions(), async (session) =>
    session.applyInTransactions(await bodies(note), settings),
  );
  expect(failure).toBeNull();
  expect(done).toHaveLength(many);
  expect(await noted(database)).toEqual(frameNames);
  const few = await createDatabase();
  const other = await openDriver(few.url);
  onTestFinished(() => other.close());
  await other.withLease(leaseOptions(), async (session) => {
    for (const step of await bodies("SELECT 1")) await session.applyInTransactions([step], settings);
  });
  const ofRun = { startedAt: expect.any(Date) as Date, durationMs: expect.any(Number) as number };
  const expected = (await other.history("orders", {}, never)).map((entry) => ({ ...entry, ...ofRun }));
  const [{ runId } = { runId: "" }] = await driver.history("orders", {}, never);
  expect(await driver.history("orders", {}, never)).toEqual(expected.map((entry) => ({ ...entry, runId })));
});

test("a lease that is lost in the middle of a message: nothing after that takes effect", async () => {
  const { database, driver } = await start();
  const stolen = "UPDATE lockkeeper.streams SET token = token + 1, run_id = 'thief', holder = 'thief'";
  await expect(
    driver.withLease(leaseOptions(), async (session) =>
      session.applyInTransactions(await bodies(`${note};${stolen}`), settings),
    ),
  ).rejects.toMatchObject({ code: "LEASE_LOST" });
  expect(await noted(database)).toEqual(frameNames);
  expect(await tables(database)).toBe(middle - 1);
  expect(await statuses(driver)).toEqual(new Map([["done", middle]]));
});

test.each(["COMMIT", "ROLLBACK", "ROLLBACK; BEGIN"])(
  "a body that ends its transaction by %s gets no entry, and neither does one after it",
  async (end) => {
    const { database, driver } = await start();
    const { done, failure } = await driver.withLease(leaseOptions(), async (session) =>
      session.applyInTransactions(await bodies(end), settings),
    );
    expect(done).toHaveLength(middle - 1);
    expect(failure).toMatchObject({ fields: { migration: `${middle}_body.up.sql` } });
    expect(await tables(database)).toBe(middle - 1);
    expect(await statuses(driver)).toEqual(
      new Map([
        ["done", middle - 1],
        ["failed", 1],
      ]),
    );
  },
);

test.each(["DEALLOCATE ALL", "SELECT 1 / 0"])(
  "where the message fails because of %s, each body is applied once or blamed, and what comes next is prepared anew",
  async (body) => {
    const { database, driver } = await start();
    const isWrong = body.includes("/");
    await driver.withLease(leaseOptions(), async (session) => {
      const first = await session.applyInTransactions(await bodies(body), settings);
      expect(first.failure === null).toBe(!isWrong);
      expect(first.done).toHaveLength(isWrong ? middle - 1 : many);
      const rest = (await bodies(note, 3 * many)).slice(many);
      expect((await session.applyInTransactions(rest, settings)).failure).toBeNull();
    });
    expect(await tables(database)).toBe(isWrong ? middle - 1 + 2 * many : 3 * many - 1);
    const entries = await driver.history("orders", {}, never);
    const paths = entries.filter(({ status }) => status === "done").map(({ path }) => path);
    expect(new Set(paths).size).toBe(paths.length);
  },
);

test("a body by itself that leaves the session empty, and a program's connection, do not take it for prepared", async () => {
  const { driver, database } = await start();
  await driver.withLease(leaseOptions(), async (session) => {
    const all = await bodies(note, 3 * many);
    const [only] = all.slice(many, many + 1);
    expect((await session.applyInTransactions(all.slice(0, many), settings)).failure).toBeNull();
    // As one that made a temporary table: everything is cleared away behind it, and what is prepared with it.
    const own = only === undefined ? [] : [{ ...only, alone: false }];
    expect((await session.applyInTransactions(own, settings)).failure).toBeNull();
    expect((await session.applyInTransactions(all.slice(many + 1), settings)).failure).toBeNull();
  });
  expect(await tables(database)).toBe(3 * many - 1);
});

test("the next lease on the same connection has a frame of its own", async () => {
  const { driver, database } = await start();
  const all = await bodies(note, 2 * many);
  for (const half of [all.slice(0, many), all.slice(many)]) {
    const { failure } = await driver.withLease(leaseOptions(), (session) =>
      session.applyInTransactions(half, settings),
    );
    expect(failure).toBeNull();
  }
  const entries = await driver.history("orders", {}, never);
  expect(new Set(entries.map(({ runId }) => runId)).size).toBe(2);
  expect(new Set(entries.map(({ token }) => token)).size).toBe(2);
  expect(await tables(database)).toBe(2 * many - 1);
});

describe("through a pooler in transaction mode", () => {
  needs("pgbouncer");

  test("nothing is prepared", async () => {
    const { database } = await start();
    const pooler = await startPgBouncer(database.url);
    const driver = await openDriver(pooler.url, { times: shortTimes });
    onTestFinished(() => driver.close());
    const { failure } = await driver.withLease(leaseOptions(), async (session) =>
      session.applyInTransactions(await bodies(note), settings),
    );
    expect(failure).toBeNull();
    expect(await noted(database)).toEqual([]);
    expect(await statuses(driver)).toEqual(new Map([["done", many]]));
  });
});
