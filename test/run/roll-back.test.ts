import { describe, expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { newRunId, planRun } from "../../src/runner.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import type { MigrationText } from "../support/plain-release.ts";
import { never } from "../support/steps.ts";
import { openTarget, type PlainTarget, tableMigrations } from "../support/target.ts";

const rollback = { onFailure: "rollback" } as const;
const options = { signal: never, emit: () => undefined, now: () => new Date() };

/** One that fails in a transaction. */
const broken: MigrationText = {
  path: "4_broken.up.sql",
  up: "CREATE TABLE half (id int); SELECT 1 / 0;",
  down: "DROP TABLE half;",
};

async function start(
  texts: readonly MigrationText[],
): Promise<{ database: TestDatabase; target: PlainTarget }> {
  const database = await createDatabase();
  return { database, target: await openTarget(database.url, texts) };
}

async function relations(database: TestDatabase): Promise<readonly string[]> {
  const rows = await database.query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

async function history(target: PlainTarget): Promise<readonly string[]> {
  const entries = await target.driver.history(target.stream, {}, never);
  return entries.map(({ direction, version, status }) => `${direction} ${version} ${status}`);
}

describe("a run with --on-failure rollback", () => {
  test("goes back to where it began when a migration fails, and the stream is held", async () => {
    const { database, target } = await start([...tableMigrations(3), broken]);
    await target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    target.events.length = 0;
    const result = await target.run(rollback);
    expect(result).toMatchObject({
      status: "failed",
      outcome: "rolled_back",
      from: { version: "1" },
      to: { version: "1" },
      left: 3,
      done: [
        { version: "2", direction: "up" },
        { version: "3", direction: "up" },
        { version: "3", direction: "down" },
        { version: "2", direction: "down" },
      ],
      error: {
        code: "MIGRATION_FAILED",
        exit: 21,
        fields: { migration: "4_broken.up.sql", sqlstate: "22012", rollback: "done", takenBack: 2 },
        message: expect.stringContaining(
          '2 migrations were taken back, and the database is at version "1"',
        ) as string,
      },
    });
    expect(await relations(database)).toEqual(["t1"]);
    expect(await history(target)).toEqual([
      "up 1 done",
      "up 2 done",
      "up 3 done",
      "up 4 failed",
      "down 3 done",
      "down 2 done",
    ]);
    expect(target.events).toContainEqual({ kind: "rollback.started", steps: 2, to: "1" });
    const state = await target.driver.state(target.stream, never);
    expect(state).toMatchObject({
      held: { runId: result.runId, version: "1" },
      failed: { runId: result.runId, error: { code: "MIGRATION_FAILED" } },
      unfinished: null,
      completed: null,
    });
    expect(await target.driver.run(result.runId, never)).toMatchObject({
      status: "failed",
      outcome: "rolled_back",
      progress: { applied: 0, total: 3 },
    });
    // What starts by itself leaves it so, a person goes on.
    expect(await target.run({ trigger: "event" })).toMatchObject({
      outcome: "refused",
      error: { code: "HELD" },
    });
    await target.publish([...tableMigrations(3), { ...broken, up: "CREATE TABLE half (id int);" }]);
    expect(await target.run()).toMatchObject({ outcome: "applied", to: { version: "4" } });
    expect(await target.driver.state(target.stream, never)).toMatchObject({ held: null, failed: null });
  });

  test("takes back one that failed half way outside a transaction, by its down file as it is", async () => {
    const { database, target } = await start([
      {
        path: "1_t.up.sql",
        up: "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1);",
        down: "DROP TABLE t;",
      },
      {
        path: "2_index.up.sql",
        up: "CREATE INDEX CONCURRENTLY i ON t (a);\nCREATE UNIQUE INDEX CONCURRENTLY u ON t (a);",
        down: "DROP INDEX CONCURRENTLY IF EXISTS u;\nDROP INDEX CONCURRENTLY IF EXISTS i;",
      },
    ]);
    expect(await target.run(rollback)).toMatchObject({
      outcome: "rolled_back",
      to: { length: 0, version: null },
      left: 2,
      error: { fields: { statement: 2, takenBack: 2 } },
    });
    expect(await relations(database)).toEqual([]);
    expect(await history(target)).toEqual(["up 1 done", "up 2 failed", "down 2 done", "down 1 done"]);
  });

  test("a migration without a down file is found before the first step, and nothing is changed", async () => {
    const [first, second, third] = tableMigrations(3);
    if (first === undefined || second === undefined || third === undefined) throw new TypeError("three");
    const { database, target } = await start([first, { path: second.path, up: second.up }, third, broken]);
    expect(await target.run(rollback)).toMatchObject({
      status: "failed",
      outcome: "refused",
      done: [],
      error: { code: "NO_DOWN", exit: 20, fields: { migration: "2_t2.up.sql" } },
    });
    expect(await database.query("SELECT to_regclass('lockkeeper.runs') AS runs")).toEqual([{ runs: null }]);
    expect(await target.run({ ...rollback, onFailure: "keep" })).toMatchObject({
      outcome: "failed",
      to: { version: "3" },
    });
    // Those that it has already are not its own to take back.
    expect(await target.run(rollback)).toMatchObject({ outcome: "failed", to: { version: "3" } });
  });

  test("a down file that fails ends it there, says where the database stands, and both ways go on", async () => {
    const [first, second, third] = tableMigrations(3);
    if (first === undefined || second === undefined || third === undefined) throw new TypeError("three");
    const wrong = { ...second, down: "DROP TABLE t2; SELECT 1 / 0;" };
    const { database, target } = await start([first, wrong, third, broken]);
    const result = await target.run(rollback);
    expect(result).toMatchObject({
      status: "failed",
      outcome: "failed",
      to: { version: "2" },
      left: 2,
      error: {
        code: "MIGRATION_FAILED",
        fields: { migration: "4_broken.up.sql", rollback: "failed", rollbackMigration: "2_t2.down.sql" },
        message: expect.stringContaining('the database is at version "2"') as string,
      },
    });
    expect(await relations(database)).toEqual(["t1", "t2"]);
    expect(await target.driver.state(target.stream, never)).toMatchObject({
      held: { runId: result.runId },
      unfinished: null,
    });
    await target.publish([first, second, third, broken]);
    expect(
      await target.run({
        action: "rollback",
        goal: { kind: "steps", direction: "down", count: 2 },
      }),
    ).toMatchObject({ outcome: "rolled_back", to: { length: 0 } });
    expect(await target.run({ goal: { kind: "steps", direction: "up", count: 3 } })).toMatchObject({
      to: { version: "3" },
    });
  });

  test("a half that cannot be taken back is still that half, and goes on once it is corrected", async () => {
    const half = {
      path: "2_half.up.sql",
      up: "-- lockkeeper: tx=none\nCREATE TABLE a (id int);\nSELECT 1 / 0;\nCREATE TABLE b (id int);",
      down: "DROP TABLE a;\nSELECT 1 / 0;",
    };
    const { database, target } = await start([...tableMigrations(1), half]);
    expect(await target.run(rollback)).toMatchObject({
      outcome: "failed",
      to: { version: "1" },
      error: { fields: { rollbackMigration: "2_half.down.sql" } },
    });
    expect(await relations(database)).toEqual(["a", "t1"]);
    expect(await target.driver.state(target.stream, never)).toMatchObject({
      position: { version: "1" },
      unfinished: { direction: "up", version: "2", statementsDone: 1 },
    });
    await target.publish([
      ...tableMigrations(1),
      { ...half, up: half.up.replace("1 / 0", "1"), down: "DROP TABLE a, b;" },
    ]);
    expect(await target.run()).toMatchObject({ outcome: "applied", to: { version: "2" } });
    expect(await relations(database)).toEqual(["a", "b", "t1"]);
  });

  test("a half that is half taken back is taken back to its end before anything else", async () => {
    const half = {
      path: "2_half.up.sql",
      up: "-- lockkeeper: tx=none\nCREATE TABLE a (id int);\nSELECT 1 / 0;",
      down: "-- lockkeeper: tx=none\nDROP TABLE a;\nSELECT 1 / 0;",
    };
    const { database, target } = await start([...tableMigrations(1), half]);
    expect(await target.run(rollback)).toMatchObject({ outcome: "failed", to: { version: "1" } });
    expect(await relations(database)).toEqual(["t1"]);
    expect(await target.driver.state(target.stream, never)).toMatchObject({
      position: { version: "1", length: 1 },
      unfinished: { direction: "down", version: "2", statementsDone: 1 },
    });
    await target.publish([
      ...tableMigrations(1),
      { ...half, up: half.up.replace("1 / 0", "1"), down: half.down.replace("1 / 0", "1") },
    ]);
    const plan = await planRun({ goal: { kind: "latest" }, release: null }, target, options);
    expect(plan.steps.map(({ direction, resumeAt }) => [direction, resumeAt])).toEqual([
      ["down", 1],
      ["up", 0],
    ]);
    expect(await target.run(rollback)).toMatchObject({ outcome: "applied", to: { version: "2" } });
    expect(await relations(database)).toEqual(["a", "t1"]);
  });

  test("where nothing was applied before the failure, there is nothing to take back and no hold", async () => {
    const { target } = await start([{ ...broken, path: "1_broken.up.sql" }]);
    expect(await target.run(rollback)).toMatchObject({ outcome: "failed", to: { length: 0 } });
    expect(await target.driver.state(target.stream, never)).toMatchObject({ held: null });
    expect(target.events.map(({ kind }) => kind)).not.toContain("rollback.started");
  });

  test("a cancel takes nothing back", async () => {
    const { database, target } = await start([
      ...tableMigrations(2),
      { path: "3_sleep.up.sql", up: "SELECT pg_sleep(600);", down: "SELECT 1;" },
    ]);
    const control = new AbortController();
    const running = target.run(rollback, control.signal);
    await expect
      .poll(
        () =>
          database.query(
            "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
          ),
        { timeout: 30_000 },
      )
      .toHaveLength(1);
    control.abort();
    expect(await running).toMatchObject({ status: "canceled", outcome: null, to: { version: "2" } });
    expect(await relations(database)).toEqual(["t1", "t2"]);
  });

  test("that is cut off in the rollback is gone on with by the next executor, back and not up", async () => {
    const [first, second, third] = tableMigrations(3);
    if (first === undefined || second === undefined || third === undefined) throw new TypeError("three");
    const slow =
      "DO $$ BEGIN WHILE to_regclass('g.gate') IS NOT NULL LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;";
    const { database, target } = await start([
      first,
      { ...second, down: `${slow}\nDROP TABLE t2;` },
      third,
      broken,
    ]);
    await database.query("CREATE SCHEMA g; CREATE TABLE g.gate AS SELECT 1");
    const id = newRunId("t");
    const control = new AbortController();
    const running = target.run({ id, isAccepted: true, ...rollback }, control.signal);
    await expect.poll(() => history(target), { timeout: 30_000 }).toContain("down 3 done");
    control.abort(new RunnerError("HANDED_OVER", "the server stops"));
    expect(await running).toMatchObject({ status: "handing_over" });
    await database.query("DROP TABLE g.gate");
    // Whatever starts by itself leaves the run its database.
    expect(await target.run({ trigger: "event" })).toMatchObject({ error: { code: "HELD" } });
    const resumed = { attempt: 1, hasBegun: true, fromVersion: null, isCanceled: false, isLate: false };
    const result = await target.run({ id, isAccepted: true, trigger: "event", resumed });
    expect(result).toMatchObject({
      status: "failed",
      outcome: "rolled_back",
      to: { length: 0 },
      left: 4,
      error: { code: "MIGRATION_FAILED", fields: { migration: "4_broken.up.sql", rollback: "done" } },
    });
    expect(await relations(database)).toEqual([]);
    expect(await history(target)).toEqual([
      "up 1 done",
      "up 2 done",
      "up 3 done",
      "up 4 failed",
      "down 3 done",
      "down 2 done",
      "down 1 done",
    ]);
    expect(await target.driver.state(target.stream, never)).toMatchObject({ held: { runId: id } });
  });

  test("a plan that goes back refuses it when it was asked for, and ignores what the target says", async () => {
    const { target } = await start(tableMigrations(2));
    await target.run();
    const goal = { kind: "version", version: "1", allow: "both" } as const;
    expect(await target.run({ goal, action: "rollback", ...rollback })).toMatchObject({
      outcome: "refused",
      error: { code: "USAGE" },
    });
    expect(await target.run({ goal: { kind: "redo" }, ...rollback })).toMatchObject({
      error: { code: "USAGE" },
    });
    expect(await target.run({ goal, action: "rollback" })).toMatchObject({ outcome: "rolled_back" });
  });
});
