import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { orderOf, requestOf } from "../../src/run/order.ts";
import { newRunId, planRun, run, type RunRequest } from "../../src/runner.ts";
import type { RunResult } from "../../src/executor/result.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { recordsOf } from "../audit/records.ts";
import type { MigrationText } from "../support/plain-release.ts";
import { newRun, never } from "../support/steps.ts";
import { holdTimers } from "../support/timers.ts";
import { openTarget, type PlainTarget, tableMigrations, type TestTarget } from "../support/target.ts";

const pickUp = { target: "t", own: [], limit: 10 };
const handOver = (): AbortController & { now(): void } => {
  const controller = new AbortController();
  return Object.assign(controller, {
    now: () => controller.abort(new RunnerError("HANDED_OVER", "the executor is stopping")),
  });
};

/** Three tables and, in their middle, a migration that waits until the test lets it go on. */
const gated: readonly MigrationText[] = [
  ...tableMigrations(1),
  {
    path: "2_gate.up.sql",
    up: "SELECT pg_advisory_xact_lock(42); CREATE TABLE t2 ();",
    down: "DROP TABLE t2;",
  },
  ...tableMigrations(3).slice(2),
];

interface Site {
  readonly database: TestDatabase;
  readonly target: PlainTarget;
  /** Accepts a run as a server does, and gives its request. */
  accept(change?: Partial<RunRequest>, on?: TestTarget): Promise<RunRequest>;
  /** Until the gated migration is at its gate. */
  atGate(): Promise<void>;
  openGate(): Promise<void>;
  /** Until the run is picked up by this process, and then its request. */
  pickUp(): Promise<RunRequest>;
}

async function site(texts: readonly MigrationText[]): Promise<Site> {
  const database = await createDatabase();
  const target = await openTarget(database.url, texts);
  const client = await database.connect();
  await client.query("SELECT pg_advisory_lock(42)");
  return {
    database,
    target,
    async accept(change = {}) {
      const id = newRunId("t");
      const request: RunRequest = {
        id,
        action: "apply",
        goal: { kind: "latest" },
        release: null,
        plan: null,
        trigger: "http",
        caller: { issuer: "ci", subject: "deployer", rule: "r" },
        labels: { job: "7" },
        limits: target.limits,
        isAccepted: true,
        ...change,
      };
      const { action, trigger, caller, labels, release: releaseDigest } = request;
      const order = orderOf(request);
      await target.driver.acceptRun(
        newRun({ id, action, trigger, caller, labels, releaseDigest, order }),
        never,
      );
      return request;
    },
    async atGate() {
      const waiting = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
      while ((await client.query(waiting)).rowCount === 0) await pause(20);
    },
    async openGate() {
      await client.query("SELECT pg_advisory_unlock_all()");
    },
    async pickUp() {
      for (;;) {
        const [picked] = await target.driver.pickUpRuns(pickUp, never);
        if (picked !== undefined) return requestOf(picked);
        await pause(20);
      }
    },
  };
}

/** One executor's turn that ends at the gate. */
async function turn({ target, database, atGate }: Site, request: RunRequest): Promise<RunResult> {
  const stop = handOver();
  const running = target.run(request, stop.signal);
  await atGate();
  stop.now();
  // As the runner would itself, after some seconds of grace.
  await database.query(
    "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'",
  );
  return running;
}

/** One executor's turn whose time is over when it is at the gate: it leaves its statement some seconds, and cancels it then. */
async function timedTurn(at: Site, request: RunRequest): Promise<RunResult> {
  const time = holdTimers();
  const options = { signal: never, emit: () => undefined, now: () => new Date(), executorMs: 600_000 };
  const running = run(request, at.target, options);
  await at.atGate();
  await time.pass(600_000);
  await time.pass(5_000);
  return running;
}

describe("a run that is handed over", () => {
  test("is open until another executor has ended it under the same id, and each migration is done once", async () => {
    const at = await site(gated);
    const { target } = at;
    const first = await at.accept();
    expect(await turn(at, first)).toMatchObject({
      runId: first.id,
      status: "handing_over",
      outcome: null,
      done: [{ version: "1" }],
      left: 2,
      error: { code: "HANDED_OVER", exit: 32 },
    });
    expect(await target.driver.state("orders", never)).toMatchObject({ lease: null, unfinished: null });
    expect(await target.driver.run(first.id, never)).toMatchObject({
      status: "handing_over",
      outcome: null,
      endedAt: null,
      attempt: 1,
      progress: { applied: 1, total: 3 },
    });
    const next = await at.pickUp();
    expect(next).toMatchObject({
      id: first.id,
      release: (await target.releases.fetch(context, never)).digest,
      caller: first.caller,
      labels: first.labels,
      trigger: "http",
    });
    await at.openGate();
    expect(await target.run(next)).toMatchObject({
      runId: first.id,
      status: "succeeded",
      outcome: "applied",
      done: [{ version: "1" }, { version: "2" }, { version: "3" }],
      left: 0,
    });
    expect(await target.driver.run(first.id, never)).toMatchObject({
      status: "succeeded",
      outcome: "applied",
      fromVersion: null,
      toVersion: "3",
      attempt: 2,
      progress: { applied: 3, total: 3 },
    });
    const records = await recordsOf(target.driver);
    expect(records.map(({ event, outcome, attempt, to }) => [event, outcome, attempt, to])).toEqual([
      ["run.begun", null, 1, "3"],
      ["run.ended", "handed_over", 1, "1"],
      ["run.begun", null, 2, "3"],
      ["run.ended", "applied", 2, "3"],
    ]);
    expect(records.map(({ migrations }) => migrations.map(({ seq }) => seq))).toEqual([
      [],
      [1],
      [],
      [1, 2, 3],
    ]);
  });

  test("at the end of its executor's time goes on where that one stopped", async () => {
    const at = await site([
      ...tableMigrations(1),
      {
        path: "2_s.up.sql",
        up: "-- lockkeeper: tx=none\nCREATE TABLE a ();\nSELECT pg_advisory_lock(42);\nCREATE TABLE b ();",
      },
    ]);
    await at.target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    const request = await at.accept();
    const { driver } = at.target;
    expect(await timedTurn(at, request)).toMatchObject({
      status: "handing_over",
      error: { code: "HANDED_OVER" },
    });
    expect(await driver.state("orders", never)).toMatchObject({ lease: null, position: { version: "1" } });
    const next = await at.pickUp();
    await at.openGate();
    expect(await at.target.run(next)).toMatchObject({ status: "succeeded", outcome: "applied" });
    const names = await at.database.query(
      "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
    );
    expect(names).toEqual([{ tablename: "a" }, { tablename: "b" }, { tablename: "t1" }]);
  });

  test("that nobody accepted is stopped by its executor's end as by a deadline", async () => {
    const at = await site(gated);
    const request = { ...(await at.accept()), id: newRunId("t"), isAccepted: false };
    expect(await timedTurn(at, request)).toMatchObject({
      status: "canceled",
      left: 2,
      error: { code: "DEADLINE" },
    });
  });

  test("twice without any progress fails for that, and is not tried again by itself", async () => {
    const at = await site(gated);
    let request = await at.accept({ trigger: "event" });
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      expect(await turn(at, request)).toMatchObject({ status: "handing_over" });
      request = await at.pickUp();
      expect(request.resumed).toMatchObject({ attempt, hasBegun: true, fromVersion: null });
    }
    // The first turn has applied version 1, the second and the third nothing.
    const ended = await at.target.run(request);
    expect(ended).toMatchObject({
      status: "failed",
      outcome: "failed",
      done: [{ version: "1" }],
      left: 2,
      error: { code: "NO_PROGRESS", exit: 21, fields: { attempts: 3, version: "1" } },
    });
    expect(await at.target.driver.run(request.id, never)).toMatchObject({
      status: "failed",
      error: { code: "NO_PROGRESS" },
    });
    expect(await at.target.run({ trigger: "event" })).toMatchObject({ error: { code: "FAILED_BEFORE" } });
    await at.openGate();
    expect(await at.target.run()).toMatchObject({ outcome: "applied" });
  });

  test("has fifty attempts at the most", async () => {
    const at = await site(gated);
    const request = await at.accept();
    await turn(at, request);
    await at.database.query("UPDATE lockkeeper.runs SET attempt = 50, mark = 'elsewhere'");
    expect(await at.target.run(await at.pickUp())).toMatchObject({ error: { code: "NO_PROGRESS" } });
  });

  test("keeps to its deadline, which counts from when it was accepted", async () => {
    const at = await site(gated);
    const request = await at.accept({ limits: { ...at.target.limits, deadlineMs: 3_600_000 } });
    await turn(at, request);
    await at.database.query("UPDATE lockkeeper.runs SET created_at = created_at - interval '59 minutes'");
    const next = await at.pickUp();
    expect(next.limits.deadlineMs).toBeGreaterThan(0);
    expect(next.limits.deadlineMs).toBeLessThanOrEqual(60_000);
    await at.database.query(
      "UPDATE lockkeeper.runs SET created_at = created_at - interval '2 minutes', claimed_until = NULL",
    );
    expect(await at.target.run(await at.pickUp())).toMatchObject({
      status: "canceled",
      error: { code: "DEADLINE" },
      done: [{ version: "1" }],
    });
    expect(await at.target.driver.run(request.id, never)).toMatchObject({ status: "canceled" });
  });

  test("that was asked to stop while its executor was dying ends as canceled", async () => {
    const at = await site(gated);
    const request = await at.accept();
    await turn(at, request);
    // Whoever heard of it died before he could say so.
    await at.database.query(
      "UPDATE lockkeeper.runs SET cancel_requested = true, cancel_reason = 'wrong release', status = 'canceling'",
    );
    await at.openGate();
    expect(await at.target.run(await at.pickUp())).toMatchObject({
      status: "canceled",
      error: { code: "CANCELED" },
    });
    expect(await at.target.driver.run(request.id, never)).toMatchObject({ status: "canceled" });
    expect((await at.target.driver.state("orders", never)).position.version).toBe("1");
  });

  test("goes on with what is left of its approved plan, and with nothing else", async () => {
    const at = await site(gated);
    const options = { signal: never, emit: () => undefined, now: () => new Date() };
    const { digest } = await planRun({ goal: { kind: "latest" }, release: null }, at.target, options);
    const request = await at.accept({ plan: digest });
    await turn(at, request);
    const next = await at.pickUp();
    await at.openGate();
    const other = { ...next, plan: digest.replace(/.$/, (last) => (last === "0" ? "1" : "0")) };
    expect(await at.target.run({ ...other, id: newRunId("t"), isAccepted: false })).toMatchObject({
      error: { code: "PLAN_CHANGED" },
    });
    expect(await at.target.run(next)).toMatchObject({ status: "succeeded", outcome: "applied" });
  });

  test("on its way back stays held, and goes on to the version that was asked for", async () => {
    const texts = [
      ...tableMigrations(1),
      {
        path: "2_gate.up.sql",
        up: "CREATE TABLE t2 ();",
        down: "SELECT pg_advisory_xact_lock(42); DROP TABLE t2;",
      },
      ...tableMigrations(3).slice(2),
    ];
    const at = await site(texts);
    await at.target.run();
    const request = await at.accept({
      action: "rollback",
      goal: { kind: "steps", direction: "down", count: 3 },
    });
    expect(await turn(at, request)).toMatchObject({ done: [{ version: "3" }], left: 2 });
    expect(await at.target.run({ trigger: "converge" })).toMatchObject({ error: { code: "HELD" } });
    const next = await at.pickUp();
    expect(next.goal).toEqual({ kind: "version", version: "0", allow: "both" });
    await at.openGate();
    expect(await at.target.run(next)).toMatchObject({ outcome: "rolled_back", to: { length: 0 } });
    expect((await at.target.driver.state("orders", never)).held).toMatchObject({ reason: "rolled back" });
  });

  test("is left alone by whoever finds another executor at it", async () => {
    const at = await site(gated);
    const request = await at.accept();
    await turn(at, request);
    const next = await at.pickUp();
    const stop = handOver();
    const one = at.target.run(next, stop.signal);
    await at.atGate();
    expect(await at.target.run(next)).toMatchObject({
      status: "handing_over",
      error: { code: "LEASE_HELD" },
    });
    expect(await at.target.driver.run(next.id, never)).toMatchObject({ status: "running", attempt: 2 });
    await at.openGate();
    expect(await one).toMatchObject({ status: "succeeded" });
    expect(await at.target.run(next)).toMatchObject({ status: "succeeded", outcome: "applied" });
    expect(await at.database.query("SELECT FROM lockkeeper.history")).toHaveLength(3);
  });

  test("waits for its lease no longer than it may, over all of its executors", async () => {
    const at = await site(gated);
    const holder = at.target.run();
    await at.atGate();
    const limits = { ...at.target.limits, waitMs: 3_600_000 };
    const first = await at.accept({ limits });
    const stop = handOver();
    const waiting = at.target.run(first, stop.signal);
    const status = async (): Promise<unknown> => (await at.target.driver.run(first.id, never))?.status;
    while ((await status()) !== "waiting_lock") await pause(20);
    stop.now();
    expect(await waiting).toMatchObject({ status: "handing_over" });
    expect((await at.pickUp()).limits.waitMs).toBeGreaterThan(3_000_000);
    await at.database.query(
      "UPDATE lockkeeper.runs SET claimed_until = NULL, created_at = created_at - interval '1 hour' WHERE id = $1",
      [first.id],
    );
    const next = await at.pickUp();
    expect(next.limits.waitMs).toBe(0);
    expect(await at.target.run(next)).toMatchObject({ status: "failed", error: { code: "LEASE_HELD" } });
    await at.openGate();
    expect(await holder).toMatchObject({ status: "succeeded" });
  });

  test("is not handed over by an executor whose whole time was too short to get its release", async () => {
    const at = await site(gated);
    const request = await at.accept();
    const silent: PlainTarget = {
      ...at.target,
      releases: {
        ...at.target.releases,
        head: (signal) =>
          new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason as Error))),
      },
    };
    const options = { signal: never, emit: () => undefined, now: () => new Date() };
    expect(await run(request, silent, { ...options, executorMs: 50 })).toMatchObject({
      status: "canceled",
      error: { code: "DEADLINE", message: expect.stringContaining("before the run had its release") },
    });
    expect(await at.target.driver.pickUpRuns(pickUp, never)).toEqual([]);
    // Told to stop in the middle of it, it is another's all the same.
    const second = await at.accept();
    const stop = handOver();
    const stopped = run(second, silent, { ...options, signal: stop.signal });
    stop.now();
    expect(await stopped).toMatchObject({ status: "handing_over" });
    expect((await at.pickUp()).id).toBe(second.id);
  });

  test("whose executor lost the lease is another's, and the late word of the first is not heard", async () => {
    const at = await site(gated);
    const request = await at.accept();
    const lost = at.target.run(request);
    await at.atGate();
    // While the table is locked, the first cannot take a new token on a new connection.
    await at.database.query(
      `BEGIN; LOCK TABLE lockkeeper.streams IN SHARE MODE;
       SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory';
       UPDATE lockkeeper.streams SET token = token + 1, run_id = 'x', expires_at = now(); COMMIT`,
    );
    expect(await lost).toMatchObject({ status: "handing_over", error: { code: "LEASE_LOST" } });
    await at.openGate();
    expect(await at.target.run(await at.pickUp())).toMatchObject({ status: "succeeded", outcome: "applied" });
  });
});

test("an order that this version cannot read is an error by name", async () => {
  const at = await site(gated);
  await at.accept();
  await at.database.query(
    `UPDATE lockkeeper.runs SET run_order = '{"goal":{"kind":"moon"}}', claimed_until = NULL`,
  );
  await expect(at.pickUp()).rejects.toMatchObject({ code: "INTERNAL" });
});

const context = { highWaterMark: undefined, expected: undefined, now: new Date(), applied: async () => [] };
