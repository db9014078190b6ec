import { describe, expect, test } from "vitest";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";
import { openTarget, tableMigrations } from "../support/target.ts";
import type { MigrationText } from "../support/plain-release.ts";

/** Five tables; the third migration has a checkpoint that makes the first three of them at once. */
function texts(
  checkpoint = "CREATE TABLE t1 (); CREATE TABLE t2 (); CREATE TABLE t3 ();",
): readonly MigrationText[] {
  const all = tableMigrations(5);
  const [third] = all.slice(2);
  if (third === undefined) throw new TypeError("there are five");
  return all.with(2, { ...third, checkpoint });
}

async function tables(database: TestDatabase): Promise<readonly string[]> {
  const rows = await database.query<{ tablename: string }>(
    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
  );
  return rows.map(({ tablename }) => tablename);
}

describe("a checkpoint", () => {
  test("brings an empty database there in one step, with an entry for each migration that it stands for", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, texts());
    const run = await target.run();
    expect(run.done.map(({ path }) => path)).toEqual(["3_t3.checkpoint.sql", "4_t4.up.sql", "5_t5.up.sql"]);
    expect(run.to).toMatchObject({ length: 5, version: "5" });
    expect(await tables(database)).toEqual(["t1", "t2", "t3", "t4", "t5"]);
    const entries = await target.driver.history("orders", {}, never);
    expect(entries.map(({ seq, origin, path }) => `${seq} ${origin} ${path}`)).toEqual([
      "1 covered 1_t1.up.sql",
      "2 covered 2_t2.up.sql",
      "3 checkpoint 3_t3.checkpoint.sql",
      "4 run 4_t4.up.sql",
      "5 run 5_t5.up.sql",
    ]);
    expect(await target.run()).toMatchObject({ outcome: "noop" });
    const back = await target.run({
      action: "rollback",
      goal: { kind: "version", version: "1", allow: "down" },
    });
    expect(back).toMatchObject({ error: null, to: { length: 1, version: "1" } });
    expect(await tables(database)).toEqual(["t1"]);
  });

  test("is passed by where anything is applied already, and on the way to before it", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, texts());
    const before = await target.run({ goal: { kind: "version", version: "2", allow: "up" } });
    expect(before.done.map(({ path }) => path)).toEqual(["1_t1.up.sql", "2_t2.up.sql"]);
    expect((await target.run()).done.map(({ path }) => path)).toEqual([
      "3_t3.up.sql",
      "4_t4.up.sql",
      "5_t5.up.sql",
    ]);
  });

  test("that fails leaves nothing, and nothing counts as applied", async () => {
    const database = await createDatabase();
    const target = await openTarget(database.url, texts("CREATE TABLE t1 (); SELECT nothing FROM nowhere;"));
    expect(await target.run()).toMatchObject({ error: { code: "MIGRATION_FAILED" }, to: { length: 0 } });
    expect(await tables(database)).toEqual([]);
    await target.publish(texts());
    expect(await target.run()).toMatchObject({ error: null, to: { length: 5 } });
  });

  test("half done outside a transaction is gone on with, and stands at nothing until it is whole", async () => {
    const half = (last: string) =>
      `-- lockkeeper: tx=none\nCREATE TABLE t1 ();\nCREATE TABLE t2 ();\n${last}`;
    const database = await createDatabase();
    const target = await openTarget(database.url, texts(half("SELECT nothing FROM nowhere;")));
    expect(await target.run()).toMatchObject({
      error: { code: "MIGRATION_FAILED" },
      to: { length: 0, version: null },
    });
    await target.publish(texts(half("CREATE TABLE t3 ();")));
    expect(await target.run()).toMatchObject({ error: null, to: { length: 5, version: "5" } });
    expect(await tables(database)).toEqual(["t1", "t2", "t3", "t4", "t5"]);
    const entries = await target.driver.history("orders", {}, never);
    expect(entries.filter(({ origin }) => origin === "covered").map(({ seq }) => seq)).toEqual([1, 2]);
  });
});
