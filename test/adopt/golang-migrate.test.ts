import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { golangMigrate } from "../support/peer.ts";
import { needs } from "../support/parts.ts";
import { back, makeSite, pairs, siteOn } from "./site.ts";

needs("golang-migrate");

const versionRow = (site: Awaited<ReturnType<typeof makeSite>>) =>
  site.database.query<{ version: string; dirty: boolean }>("select version, dirty from schema_migrations");

describe("adopting golang-migrate's table", () => {
  test("takes over what the real tool applied, exact for the last number and assumed below it", async () => {
    const site = await makeSite(pairs("0001", "0002", "0003"));
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    await site.write(pairs("0004"));

    const preview = await site.preview();
    expect(preview.changes).toHaveLength(3);
    expect(await site.history()).toEqual([]);
    expect(preview.finding.applied.map(({ assumed }) => assumed === null)).toEqual([false, false, true]);

    await site.adopt();
    const history = await site.history();
    expect(history.map(({ path, origin, status }) => [path, origin, status])).toEqual([
      ["0001_t1.up.sql", "adopt", "done"],
      ["0002_t2.up.sql", "adopt", "done"],
      ["0003_t3.up.sql", "adopt", "done"],
    ]);
    expect(history[0]?.note).toMatch(
      /^golang-migrate, public\.schema_migrations \(assumed: .+\): the old tool goes$/,
    );
    expect(history[2]?.note).toBe("golang-migrate, public.schema_migrations (exact): the old tool goes");

    expect(await site.run()).toMatchObject({ outcome: "applied", to: { version: "0004" } });
    // Nobody asked for it to be kept.
    expect(await versionRow(site)).toEqual([{ version: "3", dirty: false }]);
    await expect(site.adopt()).rejects.toMatchObject({ code: "HISTORY_NOT_EMPTY" });
  });

  test("keeps the number true with --keep-in-step, so that the real tool takes over again and ours after it", async () => {
    const site = await makeSite(pairs("1", "2"));
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    expect(await site.adopt({ keepsInStep: true })).toMatchObject({
      inStep: { tool: "golang-migrate", schema: "public", table: "schema_migrations" },
    });
    await site.write({
      ...pairs("3"),
      "4_index.up.sql": "-- lockkeeper: tx=none\nCREATE INDEX CONCURRENTLY t3_id ON t3 (id);\n",
      "4_index.down.sql": "DROP INDEX t3_id;\n",
    });
    expect(await site.run()).toMatchObject({ outcome: "applied" });
    expect(await versionRow(site)).toEqual([{ version: "4", dirty: false }]);
    expect((await golangMigrate(site, "up")).stderr).toContain("no change");

    // ours back, theirs back, theirs forth
    expect(await site.run(back(1))).toMatchObject({ outcome: "rolled_back" });
    expect(await versionRow(site)).toEqual([{ version: "3", dirty: false }]);
    expect(await golangMigrate(site, "down", "1")).toMatchObject({ code: 0 });
    expect(await site.run()).toMatchObject({
      error: { code: "ADOPTION", hint: expect.stringContaining("lockkeeper adopt") },
      outcome: "refused",
    });
    expect((await site.adopt()).changes).toMatchObject([{ direction: "down", migration: { version: "3" } }]);
    await site.write(pairs("5"));
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    expect((await site.adopt()).changes.map(({ migration }) => migration.version)).toEqual(["3", "4", "5"]);
    expect(await site.run()).toMatchObject({ outcome: "noop" });

    // down to nothing leaves what golang-migrate leaves
    expect(await site.run(back(5))).toMatchObject({ outcome: "rolled_back" });
    expect(await versionRow(site)).toEqual([]);
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    expect(await versionRow(site)).toEqual([{ version: "5", dirty: false }]);
  });

  test("refuses a dirty database, and a number that the release does not have", async () => {
    const site = await makeSite({ ...pairs("1"), "2_wrong.up.sql": "CREATE TABLE t1 (id int);\n" });
    expect((await golangMigrate(site, "up")).code).toBe(1);
    await expect(site.adopt()).rejects.toMatchObject({
      code: "ADOPTION",
      message: expect.stringContaining("middle of version 2"),
      hint: expect.stringContaining("migrate force"),
    });
    const { finding } = await site.preview();
    expect(finding.misfits).toHaveLength(1);
    expect(await golangMigrate(site, "force", "7")).toMatchObject({ code: 0 });
    await expect(site.adopt()).rejects.toMatchObject({
      code: "ADOPTION",
      message: expect.stringContaining("version 7"),
    });
    expect(await site.history()).toEqual([]);
    expect(await golangMigrate(site, "force", "1")).toMatchObject({ code: 0 });
    expect((await site.adopt()).changes).toHaveLength(1);
  });

  test("waits for the real tool while it runs, and gives up after its time", async () => {
    const site = await makeSite({
      ...pairs("1"),
      "2_slow.up.sql": "SELECT pg_advisory_lock(42);\nCREATE TABLE slow (id int);\n",
    });
    const gate = await site.database.connect();
    await gate.query("select pg_advisory_lock(42)");
    const running = golangMigrate(site, "up");
    const isAtIt = async () =>
      (
        await site.database.query(
          "select from pg_locks where locktype = 'advisory' and objid = 42 and not granted and database = (select oid from pg_database where datname = current_database())",
        )
      ).length > 0;
    while (!(await isAtIt())) await sleep(20);

    const impatient = await siteOn(site.database, site.folder, { waitMs: 0 });
    await expect(impatient.adopt()).rejects.toMatchObject({ code: "LEASE_HELD" });
    const adopting = site.adopt();
    await gate.query("select pg_advisory_unlock(42)");
    expect(await running).toMatchObject({ code: 0 });
    expect((await adopting).changes).toHaveLength(2);
    const held = await site.database.query(
      "select from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())",
    );
    expect(held).toEqual([]);
  });

  test("lets one of two adopters through, and the other find a history", async () => {
    const site = await makeSite(pairs("1", "2"));
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    const other = await siteOn(site.database, site.folder);
    const ends = await Promise.allSettled([site.adopt(), other.adopt()]);
    expect(ends.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(ends.find(({ status }) => status === "rejected")).toMatchObject({
      reason: { code: "HISTORY_NOT_EMPTY" },
    });
    expect(await site.history()).toHaveLength(2);
  });

  test("is waited for by the real tool while a run in step is at work, and no index build waits for that in turn", async () => {
    const site = await makeSite(pairs("1"));
    expect(await golangMigrate(site, "up")).toMatchObject({ code: 0 });
    await site.adopt({ keepsInStep: true });
    await site.write({
      "2_index.up.sql": "-- lockkeeper: tx=none\nCREATE INDEX CONCURRENTLY t1_id ON t1 (id);\n",
    });
    const [gate, look] = [await site.database.connect(), await site.database.connect()];
    await gate.query("begin; insert into t1 values (1)");
    const until = async (condition: string) => {
      const sql = `select from pg_stat_activity where datname = current_database() and ${condition}`;
      while ((await look.query(sql)).rowCount === 0) await sleep(20);
    };
    const running = site.run();
    await until("query like '%CONCURRENTLY t1_id%' and wait_event_type = 'Lock' and pid <> pg_backend_pid()");
    const theirs = golangMigrate(site, "up");
    await until("wait_event = 'advisory'");
    await gate.query("commit");
    expect(await running).toMatchObject({ outcome: "applied" });
    const { code, stderr } = await theirs;
    expect({ code, stderr }).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("canceling statement"),
    });
    expect((await golangMigrate(site, "up")).stderr).toContain("no change");
  });
});
