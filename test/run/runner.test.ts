import { describe, expect, test } from "vitest";
import { baseline, repair } from "../../src/maintenance.ts";
import type { Goal } from "../../src/plan/plan.ts";
import { planRun } from "../../src/runner.ts";
import { readStatus } from "../../src/status/status.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { closeGate, type Gate } from "../support/gate.ts";
import { startProxy } from "../support/proxy.ts";
import { leaseOptions, never } from "../support/steps.ts";
import { holdTimers } from "../support/timers.ts";
import { openTarget, type PlainTarget, signedStore, tableMigrations } from "../support/target.ts";

const options = { signal: never, emit: () => undefined, now: () => new Date() };
const down = (count: number): { action: "rollback"; goal: Goal } => ({
  action: "rollback",
  goal: { kind: "steps", direction: "down", count },
});
const goTo = (version: string): Goal => ({ kind: "version", version, allow: "both" });

async function tables(database: TestDatabase): Promise<readonly string[]> {
  const rows = await database.query<{ tablename: string }>(
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
  );
  return rows.map(({ tablename }) => tablename);
}

async function start(count = 3): Promise<{ database: TestDatabase; target: PlainTarget }> {
  const database = await createDatabase();
  return { database, target: await openTarget(database.url, tableMigrations(count)) };
}

/** Two migrations, of which the second waits at a gate. */
async function startHeld(): Promise<{ database: TestDatabase; target: PlainTarget; gate: Gate }> {
  const database = await createDatabase();
  const gate = await closeGate(database);
  const slow = { path: "2_slow.up.sql", up: `CREATE TABLE slow (); SELECT ${gate.sql}` };
  return { database, gate, target: await openTarget(database.url, tableMigrations(2).with(1, slow)) };
}

describe("a run", () => {
  test("brings a fresh database to the release, tells each step, and a second one does nothing", async () => {
    const { database, target } = await start(5);
    const first = await target.run();
    expect(first).toMatchObject({
      status: "succeeded",
      outcome: "applied",
      left: 0,
      error: null,
      from: { length: 0 },
      to: { length: 5, version: "5" },
    });
    expect(first.done.map(({ path, direction }) => `${direction} ${path}`)).toEqual(
      [1, 2, 3, 4, 5].map((n) => `up ${n}_t${n}.up.sql`),
    );
    expect(
      target.events
        .map(({ kind }) => kind)
        .filter((kind) => kind !== "step.started" && kind !== "step.succeeded"),
    ).toEqual([
      "run.started",
      "release.verified",
      "plan.made",
      "bodies.fetched",
      "lease.acquired",
      "audit",
      "audit",
      "run.done",
    ]);
    expect(target.events.flatMap((event) => (event.kind === "step.succeeded" ? [event.done] : []))).toEqual([
      1, 2, 3, 4, 5,
    ]);
    expect(await tables(database)).toEqual(["t1", "t2", "t3", "t4", "t5"]);
    const before = await target.driver.runs({ target: "t", limit: 9 }, never);
    expect(await target.run()).toMatchObject({
      status: "succeeded",
      outcome: "noop",
      done: [],
      left: 0,
      to: { length: 5 },
    });
    expect(await target.driver.runs({ target: "t", limit: 9 }, never)).toEqual(before);
    expect(target.releases.asked.bodies).toBe(1);
  });

  test("with nothing to do asks the source for its head once, and the database once", async () => {
    const database = await createDatabase();
    const proxy = await startProxy(database.url);
    const store = await signedStore(tableMigrations(3));
    const target = await store.open(proxy.url);
    const { release } = await target.run();
    const before = { trips: proxy.roundTrips(), connections: proxy.connections() };
    store.requests.length = 0;
    expect(await target.run()).toMatchObject({
      status: "succeeded",
      outcome: "noop",
      to: { length: 3 },
      release: { digest: release?.digest },
    });
    expect({ trips: proxy.roundTrips(), connections: proxy.connections() }).toEqual({
      ...before,
      trips: before.trips + 1,
    });
    expect(store.requests).toEqual(["GET head.json"]);
    store.requests.length = 0;
    expect(await target.run({ release: release?.digest ?? null })).toMatchObject({ outcome: "noop" });
    expect(store.requests).toEqual([]);
  });

  test("with nothing to do still ends what a holder that died after its last step left under way", async () => {
    const { database, target } = await start(1);
    const { runId } = await target.run();
    await database.query("UPDATE lockkeeper.runs SET status = 'running', outcome = NULL, ended_at = NULL");
    await database.query(
      "UPDATE lockkeeper.streams SET holder = 'gone/1', run_id = $1, acquired_at = now(), expires_at = clock_timestamp() - interval '1 s'",
      [runId],
    );
    expect(await target.run()).toMatchObject({ status: "succeeded", outcome: "noop", done: [] });
    expect(await target.driver.run(runId, never)).toMatchObject({
      status: "failed",
      error: { code: "LEASE_LOST" },
    });
    expect((await target.driver.state("orders", never)).lease).toBeNull();
  });

  test("asks no more of a far database for a hundred small migrations than for ten", async () => {
    const trips: number[] = [];
    for (const count of [10, 100]) {
      const database = await createDatabase();
      const proxy = await startProxy(database.url);
      // No heartbeat and no look for a cancel: they go by time.
      const driver = { times: { leaseMs: 60_000, heartbeatMs: 60_000, marginMs: 0, cancelPollMs: 60_000 } };
      const target = await openTarget(proxy.url, tableMigrations(count), { driver });
      await target.run();
      trips.push(proxy.roundTrips());
    }
    expect((trips[1] ?? 0) - (trips[0] ?? 0)).toBeLessThan(8);
  });

  test("applies a new release's migrations, remembers it, and takes no older one", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const target = await store.open(database.url);
    const first = await target.run();
    const digest = await store.publish(tableMigrations(3));
    expect(await target.run()).toMatchObject({
      outcome: "applied",
      from: { version: "2" },
      to: { version: "3" },
      release: { digest, version: 2 },
    });
    expect(await target.driver.state("orders", never)).toMatchObject({
      completed: digest,
      highWaterMark: { version: 2, digest },
    });
    expect(await target.run({ release: first.release?.digest ?? null })).toMatchObject({
      outcome: "refused",
      error: { code: "ROLLBACK" },
    });
  });

  test("steps, goto and redo go where they say", async () => {
    const { database, target } = await start(4);
    expect(await target.run({ goal: { kind: "steps", direction: "up", count: 2 } })).toMatchObject({
      to: { version: "2" },
      outcome: "applied",
    });
    expect(await target.run({ goal: goTo("3") })).toMatchObject({ to: { version: "3" } });
    expect(await target.run({ goal: { kind: "redo" } })).toMatchObject({
      to: { version: "3" },
      done: [{ direction: "down" }, { direction: "up" }],
    });
    expect(await target.run({ action: "rollback", goal: goTo("1") })).toMatchObject({
      to: { version: "1" },
      outcome: "rolled_back",
    });
    expect(await tables(database)).toEqual(["t1"]);
    expect(await target.run({ goal: { kind: "steps", direction: "up", count: 99 } })).toMatchObject({
      to: { version: "4" },
    });
    expect(await target.run({ action: "rollback", goal: goTo("0") })).toMatchObject({
      to: { length: 0, version: null, chain: null },
    });
    expect(await tables(database)).toEqual([]);
    expect(await target.run(down(1))).toMatchObject({ status: "succeeded", outcome: "noop" });
    expect(await target.run({ goal: goTo("17") })).toMatchObject({
      status: "failed",
      outcome: "refused",
      error: { code: "UNKNOWN_VERSION" },
    });
    expect(await target.run({ goal: { kind: "redo" } })).toMatchObject({
      error: { code: "UNKNOWN_VERSION" },
    });
    expect(await target.run()).toMatchObject({ outcome: "applied", to: { length: 4 } });
    expect(await tables(database)).toEqual(["t1", "t2", "t3", "t4"]);
  });

  test("refuses the direction that was not asked for", async () => {
    const { target } = await start(3);
    await target.run({ goal: { kind: "version", version: "2", allow: "up" } });
    expect(await target.run({ goal: { kind: "version", version: "1", allow: "up" } })).toMatchObject({
      outcome: "refused",
      error: { code: "WRONG_DIRECTION" },
    });
    expect(await target.run({ goal: { kind: "version", version: "3", allow: "down" } })).toMatchObject({
      error: { code: "WRONG_DIRECTION" },
    });
  });

  test("a rollback holds the stream until something is applied again, and the release counts as incomplete", async () => {
    const store = await signedStore(tableMigrations(3));
    const target = await store.open((await createDatabase()).url);
    const { release } = await target.run();
    const back = await target.run(down(1));
    expect(back).toMatchObject({ outcome: "rolled_back", to: { version: "2" } });
    expect(await target.driver.state("orders", never)).toMatchObject({
      completed: null,
      held: { runId: back.runId, version: "2" },
    });
    expect(await target.run()).toMatchObject({ outcome: "applied", done: [{ version: "3" }] });
    expect(await target.driver.state("orders", never)).toMatchObject({
      held: null,
      completed: release?.digest,
    });
  });

  test("without a down file nothing is taken back, not even what could be", async () => {
    const database = await createDatabase();
    const [first, second, third] = tableMigrations(3);
    if (first === undefined || second === undefined || third === undefined)
      throw new TypeError("three were made");
    const target = await openTarget(database.url, [first, { path: second.path, up: second.up }, third]);
    await target.run();
    expect(await target.run(down(2))).toMatchObject({
      outcome: "refused",
      done: [],
      error: { code: "NO_DOWN", fields: { version: "2" } },
    });
    expect(await tables(database)).toEqual(["t1", "t2", "t3"]);
  });

  test("that fails tells what is done, what is left and where the database stands", async () => {
    const database = await createDatabase();
    const good = tableMigrations(4);
    const target = await openTarget(
      database.url,
      good.with(2, { path: "3_bad.up.sql", up: "CREATE TABLE x ();\nSELECT nothing FROM nowhere" }),
    );
    const failed = await target.run();
    expect(failed).toMatchObject({
      status: "failed",
      outcome: "failed",
      left: 2,
      from: { length: 0 },
      to: { length: 2, version: "2" },
    });
    expect(failed.done.map(({ version }) => version)).toEqual(["1", "2"]);
    expect(failed.error).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { migration: "3_bad.up.sql", line: 2, column: 21 },
    });
    expect(await target.driver.run(failed.runId, never)).toMatchObject({
      status: "failed",
      outcome: "failed",
      progress: { applied: 2, total: 4 },
      error: { code: "MIGRATION_FAILED" },
    });
    expect(await tables(database)).toEqual(["t1", "t2"]);
    await target.publish(good);
    expect(await target.run()).toMatchObject({
      outcome: "applied",
      done: [{ version: "3" }, { version: "4" }],
    });
  });

  test("that fails on the way down leaves the rest applied", async () => {
    const database = await createDatabase();
    const good = tableMigrations(3);
    const bad = { path: "2_t2.up.sql", up: "CREATE TABLE t2 ()", down: "DROP TABLE nowhere" };
    const target = await openTarget(database.url, good.with(1, bad));
    await target.run();
    expect(await target.run(down(3))).toMatchObject({
      status: "failed",
      done: [{ version: "3", direction: "down" }],
      left: 2,
      to: { version: "2" },
    });
    expect(await tables(database)).toEqual(["t1", "t2"]);
    expect(await target.run()).toMatchObject({
      outcome: "applied",
      done: [{ version: "3", direction: "up" }],
    });
  });

  test("refuses a changed file, one that is gone and one put in between, each by name", async () => {
    const { target } = await start(3);
    await target.run();
    const good = tableMigrations(4);
    await target.publish(good.with(1, { path: "2_t2.up.sql", up: "CREATE TABLE other ()" }));
    expect(await target.run()).toMatchObject({
      outcome: "refused",
      error: { code: "HISTORY_REWRITTEN", fields: { migration: "2_t2.up.sql" } },
    });
    await target.publish(good.slice(0, 2));
    expect(await target.run()).toMatchObject({
      error: { code: "HISTORY_REWRITTEN", fields: { migration: "3_t3.up.sql" } },
    });
    await target.publish([...good.slice(0, 2), { path: "25_late.up.sql", up: "SELECT 1" }, ...good.slice(2)]);
    expect(await target.run()).toMatchObject({
      error: { code: "HISTORY_REWRITTEN", fields: { migration: "3_t3.up.sql" } },
    });
    expect((await readStatus(target, options)).problem).toMatchObject({ code: "HISTORY_REWRITTEN" });
  });

  test("for another environment, an unsigned release after a signed one, and a paused stream are refused", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(1));
    const target = await store.open(database.url);
    await target.run();
    await store.publish(tableMigrations(2), ["default", "staging"]);
    const other = await store.open(database.url, { environment: "staging" });
    expect(await other.run()).toMatchObject({ outcome: "refused", error: { code: "WRONG_ENVIRONMENT" } });
    const plain = await openTarget(database.url, tableMigrations(2));
    expect(await plain.run()).toMatchObject({ outcome: "refused", error: { code: "UNSIGNED_REFUSED" } });
    const production = await openTarget((await createDatabase()).url, tableMigrations(2), {
      environment: "production",
    });
    expect(await production.run()).toMatchObject({ outcome: "refused", error: { code: "UNSIGNED_REFUSED" } });
    await database.query("UPDATE lockkeeper.streams SET paused = true");
    expect(await target.run()).toMatchObject({ outcome: "refused", error: { code: "PAUSED" } });
    expect(await tables(database)).toEqual(["t1"]);
  });

  test("waits for another, and does nothing when that one has done the work", async () => {
    const { url } = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const [target, other] = [await store.open(url), await store.open(url)];
    const results = await Promise.all([target.run(), other.run(), target.run(), other.run()]);
    expect(results.map(({ status, outcome }) => `${status} ${outcome}`).toSorted()).toEqual([
      "succeeded applied",
      "succeeded noop",
      "succeeded noop",
      "succeeded noop",
    ]);
    expect(await target.driver.history("orders", {}, never)).toHaveLength(2);
  });

  test("gives up waiting when its time is over, with the holder's name", async () => {
    const { target } = await start(1);
    await target.driver.withLease(leaseOptions({ holder: "host/9" }), async () => {
      const limits = { ...target.limits, waitMs: 0 };
      expect(await target.run({ limits })).toMatchObject({
        status: "failed",
        done: [],
        left: 1,
        error: { code: "LEASE_HELD", fields: { holder: "host/9" } },
      });
    });
  });

  test("stops at its deadline and says what is left", async () => {
    const { database, target, gate } = await startHeld();
    const time = holdTimers();
    const running = target.run({ limits: { ...target.limits, deadlineMs: 3_600_000 } });
    await gate.reached();
    await time.pass(3_600_000);
    const result = await running;
    expect(result).toMatchObject({
      status: "canceled",
      outcome: null,
      left: 1,
      done: [{ version: "1" }],
      error: { code: "DEADLINE" },
    });
    expect(await tables(database)).toEqual(["t1"]);
    expect(await target.driver.run(result.runId, never)).toMatchObject({
      status: "canceled",
      error: { code: "DEADLINE" },
    });
  });

  test("that is interrupted ends as canceled, with what is done", async () => {
    const { target, gate } = await startHeld();
    const stop = new AbortController();
    const running = target.run({}, stop.signal);
    await gate.reached();
    stop.abort();
    expect(await running).toMatchObject({
      status: "canceled",
      left: 1,
      done: [{ version: "1" }],
      error: { code: "CANCELED" },
    });
    expect((await target.driver.state("orders", never)).lease).toBeNull();
  });
});

describe("a plan", () => {
  test("has the digest that a run then takes, and changes nothing", async () => {
    const { database, target } = await start(3);
    const plan = await planRun({ goal: { kind: "latest" }, release: null }, target, options);
    expect(plan).toMatchObject({
      from: { length: 0 },
      to: { version: "3" },
      digest: expect.stringMatching(/^sha256:[0-9a-f]{64}$/) as string,
    });
    expect(await database.query("SELECT 1 FROM pg_namespace WHERE nspname = 'lockkeeper'")).toEqual([]);
    expect(await target.run({ plan: plan.digest })).toMatchObject({ outcome: "applied", to: { length: 3 } });
    expect(await target.run({ plan: plan.digest })).toMatchObject({ status: "succeeded", outcome: "noop" });
  });

  test("that is no longer what would run is refused with what changed", async () => {
    const { target } = await start(3);
    const plan = await planRun({ goal: { kind: "latest" }, release: null }, target, options);
    await target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    expect(await target.run({ plan: plan.digest })).toMatchObject({
      outcome: "refused",
      error: { code: "PLAN_CHANGED", message: expect.stringContaining('up to version "1"') as string },
    });
    const next = await planRun({ goal: { kind: "latest" }, release: null }, target, options);
    await target.publish(tableMigrations(4));
    expect(await target.run({ plan: next.digest })).toMatchObject({
      error: { code: "PLAN_CHANGED", message: expect.stringContaining('"4_t4.up.sql"') as string },
    });
    await target.publish(tableMigrations(3).with(2, { path: "3_t3.up.sql", up: "CREATE TABLE other ()" }));
    expect(await target.run({ plan: next.digest })).toMatchObject({ error: { code: "PLAN_CHANGED" } });
    expect((await target.driver.state("orders", never)).position.length).toBe(1);
  });
});

describe("a baseline", () => {
  const declaration = {
    reason: "it was there",
    caller: { issuer: "os", subject: "tester", rule: null },
    trigger: "cli",
  } as const;

  test("declares what is there, and the next run goes on after it", async () => {
    const { database, target } = await start(3);
    await database.query("CREATE TABLE t1 (id int); CREATE TABLE t2 (id int)");
    expect(await baseline("2", declaration, target, options)).toEqual({ declared: 2 });
    expect(await target.run()).toMatchObject({ outcome: "applied", done: [{ version: "3" }] });
    await expect(baseline("3", declaration, target, options)).rejects.toMatchObject({
      code: "HISTORY_NOT_EMPTY",
    });
    expect(
      (await target.driver.history("orders", {}, never)).map(({ origin, note }) => [origin, note]),
    ).toEqual([
      ["baseline", "it was there"],
      ["baseline", "it was there"],
      ["run", null],
    ]);
  });

  test("of a signed release takes no unsigned one afterwards", async () => {
    const database = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const target = await store.open(database.url);
    await baseline("2", declaration, target, options);
    expect(await target.run()).toMatchObject({ outcome: "noop" });
    const plain = await openTarget(database.url, tableMigrations(3));
    expect(await plain.run()).toMatchObject({ error: { code: "UNSIGNED_REFUSED" } });
  });

  test("names a version that there is", async () => {
    const { target } = await start(2);
    await expect(baseline("9", declaration, target, options)).rejects.toMatchObject({
      code: "UNKNOWN_VERSION",
    });
    expect(await target.driver.history("orders", {}, never)).toEqual([]);
    const [run] = await target.driver.runs({ target: "t", limit: 1 }, never);
    expect(run).toMatchObject({ status: "failed", error: { code: "UNKNOWN_VERSION" } });
  });
});

describe("a statement whose outcome nobody knows", () => {
  const declaration = {
    reason: "looked at it",
    caller: { issuer: "os", subject: "tester", rule: null },
    trigger: "cli",
  } as const;

  async function died(): Promise<{ database: TestDatabase; target: PlainTarget }> {
    const database = await createDatabase();
    await database.query(
      "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$",
    );
    const texts = [
      { path: "1_a.up.sql", up: "-- lockkeeper: tx=none\nCREATE TABLE a ();\nCALL p();\nCREATE TABLE b ();" },
      ...tableMigrations(2).slice(1),
    ];
    const target = await openTarget(database.url, texts);
    expect(await target.run()).toMatchObject({
      status: "failed",
      outcome: "needs_attention",
      left: 2,
      error: { code: "NEEDS_ATTENTION" },
    });
    return { database, target };
  }

  test("stops every run until a person has decided", async () => {
    const { target } = await died();
    expect(await target.run()).toMatchObject({
      outcome: "needs_attention",
      error: { code: "NEEDS_ATTENTION", fields: { statement: 2, statements: 3 } },
    });
    expect((await readStatus(target, options)).unfinished).toMatchObject({
      status: "needs_attention",
      statementsDone: 1,
    });
  });

  test("is taken as done where the person says so", async () => {
    const { database, target } = await died();
    await repair("applied", declaration, target, options);
    expect(await target.run()).toMatchObject({
      outcome: "applied",
      done: [{ version: "1" }, { version: "2" }],
    });
    expect(await tables(database)).toEqual(["a", "b", "t2"]);
    await expect(repair("applied", declaration, target, options)).rejects.toMatchObject({
      code: "NOTHING_TO_REPAIR",
    });
  });

  test("is repeated where the person says that it was not", async () => {
    const { database, target } = await died();
    await repair("not-applied", declaration, target, options);
    await database.query(
      "CREATE OR REPLACE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE called (); END $$",
    );
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect(await tables(database)).toEqual(["a", "b", "called", "t2"]);
  });
});

describe("a run that died in the middle of a body outside transactions", () => {
  const up =
    "-- lockkeeper: tx=none\nCREATE TABLE a ();\nCREATE TABLE b ();\nCREATE INDEX CONCURRENTLY i ON c ((1));";

  /** As its entry is when the runner was killed after `done` statements. */
  async function diedAfter(done: number): Promise<{ database: TestDatabase; target: PlainTarget }> {
    const database = await createDatabase();
    const target = await openTarget(database.url, [{ path: "1_a.up.sql", up }]);
    expect(await target.run()).toMatchObject({ error: { fields: { statement: 3, sqlstate: "42P01" } } });
    await database.query(
      `UPDATE lockkeeper.history SET status = 'started', error = NULL, statements_done = ${done}, statement_checksums = statement_checksums[1:${done}]`,
    );
    if (done === 1) await database.query("DROP TABLE b");
    await database.query("CREATE TABLE c ()");
    return { database, target };
  }

  test("goes on by itself where the next statement commits with its checkpoint", async () => {
    const { database, target } = await diedAfter(1);
    expect(await target.run()).toMatchObject({ outcome: "applied", error: null });
    expect(await tables(database)).toEqual(["a", "b", "c"]);
  });

  test("goes on by itself also where the next one does not, because it was not noted as sent", async () => {
    const { database, target } = await diedAfter(2);
    expect(await target.run()).toMatchObject({ outcome: "applied", error: null });
    expect(await database.query("SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass")).toEqual([
      { indisvalid: true },
    ]);
  });
});

describe("a body outside transactions that failed", () => {
  const text = (last: string, first = "CREATE TABLE a ();") => [
    { path: "1_a.up.sql", up: `-- lockkeeper: tx=none\n${first}\n${last}`, down: "DROP TABLE a" },
  ];

  test("goes on after what is done once it is corrected, and refuses a change of what is done", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, text("SELECT 1/0;"));
    expect(await target.run()).toMatchObject({
      status: "failed",
      error: { code: "MIGRATION_FAILED", fields: { statement: 2 } },
    });
    await target.publish(text("SELECT 1;", "CREATE TABLE b ();"));
    expect(await target.run()).toMatchObject({
      outcome: "failed",
      error: { code: "CHANGED_FILE", fields: { statement: 1 } },
    });
    expect(await target.run(down(1))).toMatchObject({ done: [] });
    await target.publish(text("CREATE TABLE c ();"));
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect(await tables(database)).toEqual(["a", "c"]);
  });
});
