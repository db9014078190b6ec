import { describe, expect, test } from "vitest";
import { readRecord } from "../../src/audit/read.ts";
import { run } from "../../src/runner.ts";
import { readStatus } from "../../src/status/status.ts";
import { call } from "../cli/terminal.ts";
import { createDatabase } from "../support/database.ts";
import { closeGate } from "../support/gate.ts";
import { never } from "../support/steps.ts";
import { openTarget, requestOf, tableMigrations, type PlainTarget } from "../support/target.ts";

const options = { signal: never, emit: () => undefined, now: () => new Date() };

/** Calls a verb on the stream of this target. */
function verb(target: PlainTarget, ...argv: readonly string[]): ReturnType<typeof call> {
  const opened = {
    driver: target.driver,
    stream: target.stream,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return call([...argv, "--output", "json"], { wiring: { openDatabase: () => Promise.resolve(opened) } });
}

describe("a target that is paused by its configuration", () => {
  test("refuses a run without asking its database, which may be away", async () => {
    const target = await openTarget("postgres://nobody@127.0.0.1:1/none", tableMigrations(1));
    const result = await run(requestOf(target), { ...target, isPaused: true }, options);
    expect(result).toMatchObject({
      status: "failed",
      outcome: "refused",
      error: { code: "PAUSED", hint: expect.stringContaining("configuration") as string },
    });
  });

  test("tells its status", async () => {
    const target = await openTarget((await createDatabase()).url, tableMigrations(1));
    const status = await readStatus({ ...target, isPaused: true }, options);
    expect(status).toMatchObject({ paused: "configuration", pending: [{ version: "1" }] });
  });
});

describe("a stream that is paused in its database", () => {
  test("lets no run begin until it is resumed, and the audit log says who did what", async () => {
    const target = await openTarget((await createDatabase()).url, tableMigrations(1));
    const paused = await verb(target, "pause", "--reason", "a key was stolen");
    expect(JSON.parse(paused.stdout)).toMatchObject({
      paused: true,
      changed: true,
      run: null,
      canceled: false,
    });
    expect((await readStatus(target, options)).paused).toBe("database");
    expect(await target.run()).toMatchObject({
      outcome: "refused",
      error: { code: "PAUSED", hint: expect.stringContaining("lockkeeper resume") as string },
    });
    expect(JSON.parse((await verb(target, "resume")).stdout)).toMatchObject({ paused: false, changed: true });
    expect(JSON.parse((await verb(target, "resume")).stdout)).toMatchObject({ changed: false });
    const { outcome, release } = await target.run();
    expect(outcome).toBe("applied");
    // nothing is to change, so a pod may start
    await target.driver.setPaused(target.stream, true, never);
    expect(await target.run({ release: release?.digest ?? null })).toMatchObject({ outcome: "noop" });
    await target.driver.setPaused(target.stream, false, never);
    const entries = await target.driver.audit.read({ after: 0, limit: 100 }, never);
    const told = entries.map(readRecord).map((record) => [record?.event, record?.outcome, record?.reason]);
    expect(told).toEqual(
      expect.arrayContaining([
        ["paused", null, "a key was stolen"],
        ["paused", "done", "a key was stolen"],
        ["run.ended", "refused", null],
        ["resumed", "done", null],
        ["resumed", "noop", null],
      ]),
    );
  });

  test("lets the run that is under way go on, or asks it to stop before its next migration", async () => {
    const database = await createDatabase();
    const gate = await closeGate(database);
    const slow = { path: "1_slow.up.sql", up: `CREATE TABLE slow (); SELECT ${gate.sql}` };
    const target = await openTarget(database.url, [slow, ...tableMigrations(2).slice(1)]);
    const running = target.run();
    await gate.reached();
    const { stdout } = await verb(target, "pause");
    const first: unknown = JSON.parse(stdout);
    expect(first).toMatchObject({ changed: true, canceled: false, run: expect.any(String) as string });
    const again = await verb(target, "pause", "--cancel", "--reason", "stop everything");
    expect(JSON.parse(again.stdout)).toMatchObject({ changed: false, canceled: true });
    expect(await running).toMatchObject({
      status: "canceled",
      done: [],
      error: { code: "CANCELED", message: expect.stringContaining("stop everything") as string },
    });
    await gate.open();
    expect(await target.run()).toMatchObject({ outcome: "refused", error: { code: "PAUSED" } });
  });
});
