import { describe, expect, onTestFinished, test } from "vitest";

import { openDriver } from "../../src/driver/open.ts";
import { RunnerError } from "../../src/error.ts";
import { emptyChain } from "../../src/release/chain.ts";
import { awaitApplied } from "../../src/status/await-applied.ts";
import type { AskOptions } from "../../src/status/ask-until.ts";
import type { Wanted } from "../../src/status/await-applied.ts";
import { createDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { createMongoDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { makeRelease } from "../support/plain-release.ts";
import { never } from "../support/steps.ts";
import { openTarget, tableMigrations } from "../support/target.ts";

const three = tableMigrations(3);

/** Where the first `length` of these migrations end. */
async function place(texts: typeof three, length: number): Promise<Wanted> {
  const { release } = await makeRelease(texts);
  return {
    kind: "chain",
    end: { length, head: release.migrations[length - 1]?.chain ?? emptyChain("orders") },
  };
}

/** One look, as somebody who may read lockkeeper's tables and nothing else. */
async function readerOf(database: TestDatabase) {
  const role = `reader_${database.name}`;
  await database.query(`create role ${role} login password 'r'`);
  await database.query(
    `grant usage on schema lockkeeper to ${role}; grant select on lockkeeper.streams, lockkeeper.history to ${role}`,
  );
  const url = new URL(database.url);
  url.username = role;
  url.password = "r";
  const driver = await openDriver(url.href);
  onTestFinished(() => driver.close());
  return (wanted: Wanted, change: Partial<AskOptions> = {}) =>
    awaitApplied(driver, "orders", wanted, {
      timeoutMs: 0,
      pollMs: 10,
      signal: never,
      onWaiting: () => undefined,
      ...change,
    });
}

describe("waiting for a place in the chain", () => {
  test("ends when another has applied it, and holds after later releases until it is rolled back", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, three);
    await target.run({ goal: { kind: "steps", direction: "up", count: 1 } });
    const wait = await readerOf(database);
    const [first, last] = [await place(three, 1), await place(three, 3)];
    expect(await wait(first)).toMatchObject({ position: { length: 1 } });
    await expect(wait(last)).rejects.toMatchObject({
      code: "NOT_APPLIED",
      message: expect.stringMatching(/^"orders" has 1 migration, up to 1, and not yet 3:[0-9a-f]{64}$/),
    });
    let applying: Promise<unknown> | undefined;
    const apply = (): void => void (applying ??= target.run());
    const applied = wait(last, { timeoutMs: 600_000, onWaiting: apply });
    expect(await applied).toMatchObject({ position: { length: 3 } });
    expect(await applying).toMatchObject({ outcome: "applied" });
    expect(await wait(first)).toMatchObject({ position: { length: 3 } });
    await target.run({ action: "rollback", goal: { kind: "steps", direction: "down", count: 3 } });
    await expect(wait(first)).rejects.toMatchObject({ code: "NOT_APPLIED" });
  });

  test("tells that other migrations are at that place, or that another stream was meant", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, three);
    await target.run();
    const wait = await readerOf(database);
    const others = await place([{ path: "1_other.up.sql", up: "SELECT 1" }, ...three.slice(1)], 2);
    await expect(wait(others)).rejects.toMatchObject({
      code: "NOT_APPLIED",
      hint: expect.stringContaining("other migrations there than expected"),
    });
    expect(await wait({ kind: "chain", end: { length: 0, head: emptyChain("orders") } })).toBeDefined();
    await expect(
      wait({ kind: "chain", end: { length: 0, head: emptyChain("billing") } }),
    ).rejects.toMatchObject({ code: "NOT_APPLIED" });
  });

  test("tells of a failed release and of a pause", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, [{ path: "1_bad.up.sql", up: "SELECT 1/0" }]);
    const wanted = await place(three, 1);
    await target.run();
    const wait = await readerOf(database);
    await expect(wait(wanted)).rejects.toMatchObject({ hint: expect.stringContaining("MIGRATION_FAILED") });
    await database.query("update lockkeeper.streams set paused = true");
    await expect(wait(wanted)).rejects.toMatchObject({ hint: expect.stringContaining("paused") });
  });
});

describe("waiting for a release", () => {
  test("is for the one that was applied last and whole, and says which one is there instead", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, three);
    const first = await target.run();
    const wait = await readerOf(database);
    const digest = first.release?.digest ?? "";
    expect(await wait({ kind: "release", digest })).toMatchObject({ completed: digest });
    await target.publish(tableMigrations(4));
    const second = await target.run();
    await expect(wait({ kind: "release", digest })).rejects.toMatchObject({
      code: "NOT_APPLIED",
      fields: { completed: second.release?.digest },
      hint: expect.stringContaining("--expect-chain"),
    });
  });
});

describe("a database that cannot be asked", () => {
  test("is waited for, and is the last word when the time is over", async () => {
    const driver = await openDriver("postgres://postgres@127.0.0.1:1/app");
    onTestFinished(() => driver.close());
    const wanted = await place(three, 1);
    const stop = new AbortController();
    const waits = new RunnerError("CANCELED", "it waits");
    const options = { pollMs: 10, signal: stop.signal, onWaiting: () => stop.abort(waits) };
    await expect(awaitApplied(driver, "orders", wanted, { ...options, timeoutMs: 600_000 })).rejects.toBe(
      waits,
    );
    await expect(
      awaitApplied(driver, "orders", wanted, { ...options, timeoutMs: 0, signal: never }),
    ).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" });
  });

  test("without our tables is one that has nothing yet, and asking creates none", async () => {
    const database = await createDatabase();
    const driver = await openDriver(database.url);
    onTestFinished(() => driver.close());
    const wanted = await place(three, 1);
    const options = { timeoutMs: 0, pollMs: 10, signal: never, onWaiting: () => undefined };
    await expect(awaitApplied(driver, "orders", wanted, options)).rejects.toMatchObject({
      code: "NOT_APPLIED",
      hint: "nothing is on its way: apply the release",
    });
    expect(await database.query("select to_regnamespace('lockkeeper') as ours")).toEqual([{ ours: null }]);
  });

  test("is refused at once to whoever may not read our tables", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, three);
    await target.run();
    const wait = await readerOf(database);
    await database.query(`revoke usage on schema lockkeeper from reader_${database.name}`);
    await expect(wait(await place(three, 3), { timeoutMs: 600_000 })).rejects.toMatchObject({
      code: "DATABASE_DENIED",
    });
  });

  test("is given up when the waiting is stopped", async () => {
    const database = await createDatabase();
    const driver = await openDriver(database.url);
    onTestFinished(() => driver.close());
    const stop = new AbortController();
    const reason = new RunnerError("CANCELED", "stopped");
    await expect(
      awaitApplied(driver, "orders", await place(three, 1), {
        timeoutMs: 600_000,
        pollMs: 60_000,
        signal: stop.signal,
        onWaiting: () => stop.abort(reason),
      }),
    ).rejects.toBe(reason);
  });
});

describe("on MongoDB", () => {
  needs("mongodb");

  test("the same is waited for, and asking creates nothing", async () => {
    const database = await createMongoDatabase();
    const files = [{ path: "1_users.up.json", up: '[{"create": "users"}]' }];
    const target = await openTarget(database.url, files);
    const { release } = await makeRelease(files);
    const wanted: Wanted = { kind: "chain", end: { length: 1, head: release.migrations[0]?.chain ?? "" } };
    const options = { pollMs: 10, signal: never };
    await expect(
      awaitApplied(target.driver, "orders", wanted, { ...options, timeoutMs: 0, onWaiting: () => undefined }),
    ).rejects.toMatchObject({ code: "NOT_APPLIED" });
    expect(await database.db.listCollections().toArray()).toEqual([]);
    let applying: Promise<unknown> | undefined;
    const state = await awaitApplied(target.driver, "orders", wanted, {
      ...options,
      timeoutMs: 600_000,
      onWaiting: () => void (applying ??= target.run()),
    });
    expect(await applying).toMatchObject({ outcome: "applied" });
    expect(state.position).toMatchObject({ length: 1, version: "1" });
  });
});
