import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import type { RunOrder } from "../../src/dispatch/begun.ts";
import { runOf } from "../../src/dispatch/begun.ts";
import { RunnerError } from "../../src/error.ts";
import { orderOf } from "../../src/run/order.ts";
import { recordsOf } from "../audit/records.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { closeGate, waitAtGate } from "../support/gate.ts";
import { never } from "../support/steps.ts";
import { holdTimers, type HeldTimers } from "../support/timers.ts";
import { openTarget, requestOf, tableMigrations, type PlainTarget } from "../support/target.ts";
import { processOf, type Process } from "./process.ts";

/** Another execution of the program, with what it was started for: it picks up what it finds. */
interface Elsewhere {
  readonly started: string[];
  readonly executions: Process[];
  start(target: string): Promise<void>;
}

/** Executions that run at once, each with a connection of its own. */
function executions(database: TestDatabase, texts: Parameters<typeof openTarget>[1]): Elsewhere {
  const elsewhere: Elsewhere = {
    started: [],
    executions: [],
    async start(name) {
      elsewhere.started.push(name);
      const execution = processOf(await openTarget(database.url, texts), { handOver: elsewhere });
      elsewhere.executions.push(execution);
      await execution.active.pickUp(execution.target);
    },
  };
  return elsewhere;
}

function order(target: PlainTarget, more: Partial<RunOrder> = {}): RunOrder {
  const request = { ...requestOf(target), isAccepted: true };
  return {
    request,
    record: {
      id: request.id,
      target: target.name,
      stream: target.stream,
      action: "apply",
      trigger: request.trigger,
      caller: request.caller,
      releaseDigest: null,
      labels: {},
      order: orderOf(request),
      idempotencyKey: null,
      bodyDigest: null,
      singleUse: null,
    },
    sameAs: null,
    recordAllowed: () => Promise.resolve(),
    ...more,
  };
}

/** The executor's time is over; it leaves its statement some seconds, and cancels it then. */
async function overTime(time: HeldTimers): Promise<void> {
  await time.pass(600_000);
  await time.pass(5_000);
}

async function ended({ driver }: PlainTarget, id: string): Promise<{ status: string; attempt: number }> {
  for (;;) {
    const run = await driver.run(id, never);
    if (run !== undefined && run.endedAt !== null) return { status: run.status, attempt: run.attempt };
    await pause(20);
  }
}

describe("runs that begin elsewhere", () => {
  test("are accepted here and executed by the execution that was started", async () => {
    const texts = tableMigrations(2);
    const database = await createDatabase();
    const target = await openTarget(database.url, texts);
    const elsewhere = executions(database, texts);
    const { active } = processOf(target, { handOver: elsewhere, beginsElsewhere: true });
    const begun = await active.begin(order(target), target);
    expect(begun.kind).toBe("elsewhere");
    const id = runOf(begun);
    expect([active.has(id), elsewhere.started, elsewhere.executions[0]?.active.has(id)]).toEqual([
      false,
      ["t"],
      true,
    ]);
    expect(await ended(target, id)).toEqual({ status: "succeeded", attempt: 1 });
    expect(await database.query("select from t2")).toEqual([]);
  });

  test("end where no execution can be started, so that nobody picks up what its caller was refused", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, tableMigrations(1));
    const refused = new RunnerError("HAND_OVER_FAILED", "throttled");
    const { active } = processOf(target, {
      handOver: { start: () => Promise.reject(refused) },
      beginsElsewhere: true,
    });
    const wanted = order(target);
    await expect(active.begin(wanted, target)).rejects.toBe(refused);
    expect(await ended(target, wanted.request.id)).toEqual({ status: "failed", attempt: 0 });
    const other = processOf(await openTarget(database.url, tableMigrations(1)));
    await other.active.pickUp(other.target);
    expect(other.active.has(wanted.request.id)).toBe(false);
    expect(await database.query("select to_regclass('t1') as t")).toEqual([{ t: null }]);
  });

  test("are not ended by whoever began them where the host started an execution and its answer was lost", async () => {
    const texts = [{ path: "1_slow.up.sql", up: `SELECT ${waitAtGate()}; CREATE TABLE t1 (id int);` }];
    const database = await createDatabase();
    const gate = await closeGate(database);
    const target = await openTarget(database.url, texts);
    const elsewhere = executions(database, texts);
    const lost = new RunnerError("HAND_OVER_FAILED", "no answer");
    const start = async (name: string): Promise<void> => {
      await elsewhere.start(name);
      await gate.reached();
      throw lost;
    };
    const { active } = processOf(target, { handOver: { start }, beginsElsewhere: true });
    const wanted = order(target);
    await expect(active.begin(wanted, target)).rejects.toBe(lost);
    await active.drained();
    expect(await target.driver.run(wanted.request.id, never)).toMatchObject({
      status: "running",
      error: null,
    });
    await gate.open();
    expect(await ended(target, wanted.request.id)).toEqual({ status: "succeeded", attempt: 1 });
  });

  test("are not begun where they may not be recorded", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, tableMigrations(1));
    const elsewhere = executions(database, tableMigrations(1));
    const { active } = processOf(target, { handOver: elsewhere, beginsElsewhere: true });
    const unavailable = new RunnerError("AUDIT_UNAVAILABLE", "read only");
    const wanted = order(target, { recordAllowed: () => Promise.reject(unavailable) });
    await expect(active.begin(wanted, target)).rejects.toBe(unavailable);
    expect(await ended(target, wanted.request.id)).toMatchObject({ status: "failed" });
    expect(elsewhere.started).toEqual([]);
  });
});

describe("a process whose time is over", () => {
  test("passes its run on to the execution that it has started, which goes on where it stopped", async () => {
    const [first, , third] = tableMigrations(3);
    if (first === undefined || third === undefined) throw new TypeError("three were made");
    const slow = { path: "2_slow.up.sql", up: `SELECT ${waitAtGate()}; CREATE TABLE t2 (id int);` };
    const texts = [first, slow, third];
    const database = await createDatabase();
    const gate = await closeGate(database);
    const target = await openTarget(database.url, texts);
    const elsewhere = executions(database, texts);
    const time = holdTimers();
    const { active } = processOf(target, { handOver: elsewhere, executorMs: () => 600_000 });
    const id = runOf(await active.begin(order(target), target));
    await gate.reached();
    await overTime(time);
    await active.ended(id);
    expect(elsewhere.started).toEqual(["t"]);
    await gate.open();
    expect(await ended(target, id)).toEqual({ status: "succeeded", attempt: 2 });
    expect(
      await database.query("select path from lockkeeper.history where status = 'done' order by id"),
    ).toEqual(texts.map(({ path }) => ({ path })));
    await Promise.all(elsewhere.executions.map((one) => one.active.drained()));
    // Each attempt says in the audit log that it begins; that it was handed over stands between.
    const told = (await recordsOf(target.driver)).map(({ event, attempt, outcome }) => [
      event,
      attempt,
      outcome,
    ]);
    expect(told).toEqual([
      ["run.begun", 1, null],
      ["run.ended", 1, "handed_over"],
      ["run.begun", 2, null],
      ["run.ended", 2, "applied"],
    ]);
  });

  test("leaves its run for whoever looks next where no other execution can be started", async () => {
    const slow = { path: "1_slow.up.sql", up: `SELECT ${waitAtGate()}; CREATE TABLE t1 (id int);` };
    const database = await createDatabase();
    const gate = await closeGate(database);
    const target = await openTarget(database.url, [slow]);
    const failed = new RunnerError("HAND_OVER_FAILED", "throttled");
    const time = holdTimers();
    const one = processOf(target, {
      handOver: { start: () => Promise.reject(failed) },
      executorMs: () => 600_000,
    });
    const id = runOf(await one.active.begin(order(target), target));
    await gate.reached();
    await overTime(time);
    await one.active.ended(id);
    expect(one.log.map(({ event }) => event)).toContain("run.not-passed-on");
    expect(await target.driver.run(id, never)).toMatchObject({ status: "handing_over", endedAt: null });
    await gate.open();
    const two = processOf(await openTarget(database.url, [slow]));
    await two.active.pickUp(two.target);
    expect(await ended(target, id)).toMatchObject({ status: "succeeded" });
  });
});
