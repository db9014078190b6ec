import { describe, expect, test } from "vitest";
import { readStatus } from "../../src/status/status.ts";
import { createDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";
import { openTarget, tableMigrations } from "../support/target.ts";

const view = (column: string) => ({
  path: "R__numbers.sql",
  up: `CREATE OR REPLACE VIEW numbers AS SELECT 1 AS ${column}`,
});
const log = (text: string) => ({
  path: "R__log.sql",
  up: `CREATE TABLE IF NOT EXISTS said (word text); INSERT INTO said VALUES ('${text}')`,
});

async function start(repeatable = [view("a"), log("first")]) {
  const database = await createDatabase();
  const target = await openTarget(database.url, tableMigrations(2), {}, repeatable);
  return { database, target };
}

describe("a repeatable migration", () => {
  test("runs after all others in its order, moves no position, and is not run again as it is", async () => {
    const { database, target } = await start();
    const first = await target.run();
    expect(first.done.map(({ path }) => path)).toEqual([
      "1_t1.up.sql",
      "2_t2.up.sql",
      "R__numbers.sql",
      "R__log.sql",
    ]);
    expect(first.to).toMatchObject({ length: 2, version: "2" });
    expect(await target.run()).toMatchObject({ outcome: "noop", done: [] });
    expect(await database.query("SELECT word FROM said")).toEqual([{ word: "first" }]);
    const { position, unfinished, repeatables } = await target.driver.state("orders", never);
    expect(position).toMatchObject({ length: 2, version: "2" });
    expect(unfinished).toBeNull();
    expect(Object.keys(repeatables).toSorted()).toEqual(["R__log.sql", "R__numbers.sql"]);
  });

  test("runs again once its bytes change, alone and beside new versions", async () => {
    const { database, target } = await start();
    await target.run();
    await target.publish(tableMigrations(2), [view("a"), log("second")]);
    const { pending } = await readStatus(target, { signal: never, now: () => new Date() });
    expect(pending).toEqual([{ version: "", path: "R__log.sql" }]);
    expect((await target.run()).done.map(({ path }) => path)).toEqual(["R__log.sql"]);
    await target.publish(tableMigrations(3), [view("a"), log("third")]);
    expect((await target.run()).done.map(({ path }) => path)).toEqual(["3_t3.up.sql", "R__log.sql"]);
    expect(await database.query("SELECT word FROM said")).toEqual([
      { word: "first" },
      { word: "second" },
      { word: "third" },
    ]);
  });

  test("that fails is what the next run begins with, and what stands before it stays", async () => {
    const { target } = await start([{ path: "R__broken.sql", up: "SELECT nothing FROM nowhere" }]);
    expect(await target.run()).toMatchObject({
      error: { code: "MIGRATION_FAILED" },
      to: { length: 2 },
      left: 1,
    });
    expect((await target.driver.state("orders", never)).unfinished).toMatchObject({
      path: "R__broken.sql",
      seq: 0,
    });
    await target.publish(tableMigrations(2), [{ path: "R__broken.sql", up: "SELECT 1" }]);
    expect((await target.run()).done.map(({ path }) => path)).toEqual(["R__broken.sql"]);
    expect((await target.driver.state("orders", never)).unfinished).toBeNull();
  });

  test("half done outside a transaction is finished first, and is not repeated", async () => {
    const { database, target } = await start([]);
    await target.run();
    const steps = (last: string) => `-- lockkeeper: tx=none\nCREATE TABLE said (word text);\n${last}`;
    await target.publish(tableMigrations(2), [
      { path: "R__said.sql", up: steps("SELECT nothing FROM nowhere;") },
    ]);
    expect(await target.run()).toMatchObject({ error: { code: "MIGRATION_FAILED" } });
    await target.publish(tableMigrations(3), [
      { path: "R__said.sql", up: steps("INSERT INTO said VALUES ('x');") },
    ]);
    expect((await target.run()).done.map(({ path }) => path)).toEqual(["R__said.sql", "3_t3.up.sql"]);
    expect(await database.query("SELECT word FROM said")).toEqual([{ word: "x" }]);
    expect(await target.run()).toMatchObject({ outcome: "noop" });
  });

  test("is left alone by whatever goes back, and waits for the way up to its end", async () => {
    const { target } = await start([log("one")]);
    expect((await target.run({ goal: { kind: "steps", direction: "up", count: 1 } })).done).toHaveLength(1);
    expect((await target.run()).done.map(({ path }) => path)).toEqual(["2_t2.up.sql", "R__log.sql"]);
    await target.publish(tableMigrations(2), [log("two")]);
    const back = await target.run({
      action: "rollback",
      goal: { kind: "steps", direction: "down", count: 1 },
    });
    expect(back.done.map(({ direction, path }) => `${direction} ${path}`)).toEqual(["down 2_t2.down.sql"]);
    expect((await target.run()).done.map(({ path }) => path)).toEqual(["2_t2.up.sql", "R__log.sql"]);
  });
});
