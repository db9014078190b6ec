import { describe, expect, test } from "vitest";

import type { RunTrigger } from "../../src/history/run.ts";
import { repair } from "../../src/maintenance.ts";
import type { Goal } from "../../src/plan/plan.ts";
import { readStatus } from "../../src/status/status.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { closeGate, waitAtGate } from "../support/gate.ts";
import type { MigrationText } from "../support/plain-release.ts";
import { leaseOptions, never } from "../support/steps.ts";
import {
  openTarget,
  type PlainTarget,
  signedStore,
  tableMigrations,
  type TestTarget,
} from "../support/target.ts";
import { holdTimers } from "../support/timers.ts";

const options = { signal: never, emit: () => undefined, now: () => new Date() };
const automatic = { trigger: "converge" } as const;
const down = (count: number): { action: "rollback"; goal: Goal } => ({
  action: "rollback",
  goal: { kind: "steps", direction: "down", count },
});

/** A migration that counts how often it was begun, by a sequence that no rollback takes back, and then fails. */
const broken: MigrationText = { path: "2_broken.up.sql", up: "SELECT nextval('tries'); SELECT 1/0;" };
const mended: MigrationText = { path: "2_broken.up.sql", up: "CREATE TABLE t2 ();", down: "DROP TABLE t2;" };
const [first, , third] = tableMigrations(3);
if (first === undefined || third === undefined) throw new TypeError("three were made");

async function start(
  texts: readonly MigrationText[],
): Promise<{ database: TestDatabase; target: PlainTarget }> {
  const database = await createDatabase();
  await database.query("CREATE SEQUENCE tries");
  const target = await openTarget(database.url, texts);
  // Alone in its message: of several in one, those from the failed one on are begun a second time.
  if (texts.includes(broken)) await target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
  return { database, target };
}

async function tries(database: TestDatabase): Promise<number> {
  const [row] = await database.query<{ n: number }>(
    "SELECT CASE WHEN is_called THEN last_value ELSE 0 END::int AS n FROM tries",
  );
  return row?.n ?? -1;
}

async function version(target: TestTarget): Promise<string | null> {
  return (await target.driver.state("orders", never)).position.version;
}

describe("a release that failed", () => {
  test.for(["event", "library", "init", "converge"] as const satisfies readonly RunTrigger[])(
    "is begun once, however often %s asks",
    async (trigger) => {
      const { database, target } = await start([first, broken]);
      const one = await target.run({ trigger });
      expect(one).toMatchObject({ status: "failed", error: { code: "MIGRATION_FAILED" } });
      for (let again = 0; again < 4; again += 1) {
        expect(await target.run({ trigger })).toMatchObject({
          status: "failed",
          outcome: "refused",
          done: [],
          left: 1,
          error: {
            code: "FAILED_BEFORE",
            message: expect.stringContaining("division by zero") as string,
            fields: { run: one.runId, migration: "2_broken.up.sql", failure: "MIGRATION_FAILED" },
          },
        });
      }
      expect(await tries(database)).toBe(1);
      expect(await readStatus(target, options)).toMatchObject({
        failed: { digest: one.release?.digest, runId: one.runId, error: { code: "MIGRATION_FAILED" } },
      });
    },
  );

  test("is begun once by many pods that start together", async () => {
    const { database, target } = await start([first, broken]);
    const others = await Promise.all(
      Array.from({ length: 4 }, () => openTarget(database.url, [first, broken])),
    );
    const results = await Promise.all([target, ...others].map((each) => each.run({ trigger: "init" })));
    expect(results.map(({ error }) => String(error?.code)).toSorted()).toEqual([
      ...Array.from({ length: 4 }, () => "FAILED_BEFORE"),
      "MIGRATION_FAILED",
    ]);
    expect(await tries(database)).toBe(1);
  });

  test("is tried again by a person and a pipeline, and stays given up for all else while it fails", async () => {
    const { database, target } = await start([first, broken]);
    await target.run(automatic);
    for (const trigger of ["cli", "http"] as const)
      expect(await target.run({ trigger })).toMatchObject({ error: { code: "MIGRATION_FAILED" } });
    expect(await tries(database)).toBe(3);
    expect(await target.run(automatic)).toMatchObject({ error: { code: "FAILED_BEFORE" } });
    // What was in its way is gone: the same bytes succeed in person.
    await database.query("CREATE FUNCTION mend() RETURNS void LANGUAGE sql AS 'SELECT'");
    await target.publish([first, { path: "2_broken.up.sql", up: "SELECT mend2();" }]);
    expect(await target.run(automatic)).toMatchObject({ error: { code: "MIGRATION_FAILED" } });
    await database.query("ALTER FUNCTION mend() RENAME TO mend2");
    expect(await target.run(automatic)).toMatchObject({ error: { code: "FAILED_BEFORE" } });
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect((await target.driver.state("orders", never)).failed).toBeNull();
    expect(await target.run(automatic)).toMatchObject({ outcome: "noop" });
  });

  test("gives way to a corrected one at once", async () => {
    const { database, target } = await start([first, broken]);
    await target.run(automatic);
    await target.publish([first, mended]);
    expect(await target.run(automatic)).toMatchObject({ outcome: "applied", done: [{ version: "2" }] });
    expect(await target.driver.state("orders", never)).toMatchObject({ failed: null });
    expect(await tries(database)).toBe(1);
  });

  test("is remembered by its digest: another one that fails takes its place", async () => {
    const { target } = await start([first, broken]);
    await target.run(automatic);
    await target.publish([first, { path: "2_broken.up.sql", up: "SELECT nextval('tries') / 0;" }]);
    const second = await target.run(automatic);
    expect(second).toMatchObject({ error: { code: "MIGRATION_FAILED" } });
    expect((await target.driver.state("orders", never)).failed).toMatchObject({
      digest: second.release?.digest,
      runId: second.runId,
    });
  });

  test("because of a lock, a deadline or a stop is tried again by itself", async () => {
    const { database, target } = await start([
      first,
      { path: "2_t2.up.sql", up: "ALTER TABLE t1 ADD x int" },
    ]);
    await target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    const reader = await database.connect();
    await reader.query("BEGIN; LOCK t1 IN ACCESS SHARE MODE");
    const limits = { ...target.limits, lockTimeoutMs: 20, deadlineMs: 1_500 };
    expect(await target.run({ ...automatic, limits })).toMatchObject({ error: { code: "DEADLINE" } });
    const stop = new AbortController();
    const stopped = target.run(automatic, stop.signal);
    while ((await target.driver.state("orders", never)).lease === null)
      await new Promise((resolve) => setTimeout(resolve, 20));
    stop.abort();
    expect(await stopped).toMatchObject({ error: { code: "CANCELED" } });
    expect(await target.driver.state("orders", never)).toMatchObject({ failed: null });
    await reader.query("ROLLBACK");
    expect(await target.run(automatic)).toMatchObject({ outcome: "applied" });
  });

  test("for which a person has decided what was in doubt is tried again by itself", async () => {
    const { database, target } = await start([first, mended]);
    await target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    await database.query(
      `INSERT INTO lockkeeper.history (stream, seq, version, path, direction, sha256, size, chain, origin, status, statements_done,
        statements, signed, run_id, token, started_at, duration_ms, applied_by)
       SELECT stream, 2, '2', '2_broken.up.sql', 'up', 'other', 1, 'c', 'run', 'needs_attention', 0, 1, false, run_id, token, now(), 0, 'x'
       FROM lockkeeper.history WHERE seq = 1`,
    );
    expect(await target.run(automatic)).toMatchObject({ error: { code: "NEEDS_ATTENTION" } });
    expect(await target.run(automatic)).toMatchObject({ error: { code: "FAILED_BEFORE" } });
    const caller = { issuer: "os", subject: "tester", rule: null };
    await repair("not-applied", { reason: "looked", caller, trigger: "cli" }, target, options);
    expect(await target.run(automatic)).toMatchObject({ outcome: "applied" });
  });
});

describe("after a rollback", () => {
  test("nothing automatic goes up again until a newer release comes, which ends the hold", async () => {
    const store = await signedStore(tableMigrations(3));
    const target = await store.open((await createDatabase()).url);
    await target.run();
    const back = await target.run(down(1));
    for (const trigger of ["event", "library", "init", "converge"] as const)
      expect(await target.run({ trigger })).toMatchObject({
        outcome: "refused",
        done: [],
        error: { code: "HELD", fields: { run: back.runId, version: "2" } },
      });
    expect(await version(target)).toBe("2");
    await store.publish(tableMigrations(4));
    expect(await target.run(automatic)).toMatchObject({
      outcome: "applied",
      done: [{ version: "3" }, { version: "4" }],
    });
    expect(await target.driver.state("orders", never)).toMatchObject({ held: null });
  });

  test("a person's up goes on and ends the hold", async () => {
    const { target } = await start([first, mended]);
    await target.run();
    await target.run(down(1));
    expect(await target.run(automatic)).toMatchObject({ error: { code: "HELD" } });
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect(await target.driver.state("orders", never)).toMatchObject({ held: null });
    expect(await target.run(automatic)).toMatchObject({ outcome: "noop" });
  });

  test("a changed folder is not known to be newer: it waits for a person", async () => {
    const { target } = await start([first, mended]);
    await target.run();
    await target.run(down(1));
    await target.publish([first, mended, third]);
    expect(await target.run(automatic)).toMatchObject({ error: { code: "HELD" } });
    await target.publish([first]);
    expect(await target.run(automatic)).toMatchObject({ status: "succeeded", outcome: "noop" });
  });

  test("that failed half way the stream is held as well", async () => {
    const bad = { path: "1_bad.up.sql", up: "CREATE TABLE b ();", down: "DROP TABLE nowhere;" };
    const { target } = await start([bad, mended, third]);
    await target.run();
    expect(await target.run(down(3))).toMatchObject({
      status: "failed",
      to: { version: "1" },
      error: { code: "MIGRATION_FAILED" },
    });
    expect(await target.run(automatic)).toMatchObject({ error: { code: "HELD" } });
    expect(await version(target)).toBe("1");
    expect(await target.run()).toMatchObject({ outcome: "applied", to: { version: "3" } });
    expect(await target.driver.state("orders", never)).toMatchObject({ held: null });
  });

  test("that was stopped half way the stream is held as well", async () => {
    const slow = { path: "1_slow.up.sql", up: "CREATE TABLE b ();", down: `SELECT ${waitAtGate()};` };
    const { database, target } = await start([slow, mended, third]);
    await target.run();
    const { reached } = await closeGate(database);
    const time = holdTimers();
    const limits = { ...target.limits, deadlineMs: 3_600_000 };
    const stopped = target.run({ ...down(3), limits });
    await reached();
    await time.pass(3_600_000);
    expect(await stopped).toMatchObject({
      status: "canceled",
      error: { code: "DEADLINE" },
    });
    const { position, held } = await target.driver.state("orders", never);
    expect([position.version, held?.version]).toEqual(["1", null]);
    expect(await target.run(automatic)).toMatchObject({ error: { code: "HELD" } });
  });

  test("that took nothing back there is nothing to do, and a person's up ends the hold", async () => {
    const bad = { path: "2_bad.up.sql", up: "CREATE TABLE b ();", down: "DROP TABLE nowhere;" };
    const store = await signedStore([first, bad]);
    const target = await store.open((await createDatabase()).url);
    await target.run();
    expect(await target.run(down(1))).toMatchObject({ status: "failed", done: [] });
    expect(await target.run(automatic)).toMatchObject({ status: "succeeded", outcome: "noop" });
    expect((await target.driver.state("orders", never)).held).not.toBeNull();
    expect(await target.run()).toMatchObject({ status: "succeeded", outcome: "noop" });
    expect((await target.driver.state("orders", never)).held).toBeNull();
  });

  test("a run that waited for it is held, too", async () => {
    const { target } = await start([first, mended]);
    await target.run();
    let waiting: ReturnType<typeof target.run> | undefined;
    await target.publish([first, mended, third]);
    const held = { runId: "t.x", version: "1", reason: "rolled back", highWaterMark: null };
    await target.driver.withLease(leaseOptions(), async (session) => {
      waiting = target.run(automatic);
      while (!target.events.some(({ kind }) => kind === "lease.waiting"))
        await new Promise((resolve) => setTimeout(resolve, 20));
      await session.finish({ status: "succeeded", held });
    });
    expect(await waiting).toMatchObject({ outcome: "refused", error: { code: "HELD" } });
  });
});
