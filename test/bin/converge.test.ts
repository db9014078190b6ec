import { describe, expect, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { folderWith, run } from "./program.ts";

const plain = ["--source", "m", "--unsigned", "--stream", "orders"];

describe("lockkeeper converge", () => {
  test(
    "started again and again runs a broken migration once; a person's up and a corrected file end that",
    { timeout: 120_000 },
    async () => {
      const database = await createDatabase();
      await database.query("create sequence tries");
      const folder = await folderWith({ "m/1_bad.up.sql": "select nextval('tries'); select 1/0;" });
      const variables = { DATABASE_URL: database.url };
      const converge = () => run(["converge", ...plain], folder, variables);
      const tries = async (): Promise<unknown> => {
        const [row] = await database.query("select last_value::int as n from tries");
        return row?.["n"];
      };

      expect(await converge()).toMatchObject({ code: 21 });
      for (let again = 0; again < 4; again += 1) {
        const refused = await converge();
        expect(refused).toMatchObject({
          code: 20,
          stderr: expect.stringContaining("code:     FAILED_BEFORE"),
        });
        expect(refused.stderr).toMatch(/division by zero/);
        expect(refused.stderr).toMatch(/next: .*correct the migration and publish it/);
      }
      expect(await tries()).toBe(1);
      const status = await run(["status", ...plain], folder, variables);
      expect(status.stdout).toMatch(/^given up +release plain:.* \(MIGRATION_FAILED\)/m);

      expect(await run(["up", ...plain], folder, variables)).toMatchObject({ code: 21 });
      expect(await tries()).toBe(2);
      expect(await converge()).toMatchObject({ code: 20 });
      expect(await tries()).toBe(2);

      const mended = await folderWith({ "m/1_bad.up.sql": "create table good ();" });
      expect(await run(["converge", ...plain], mended, variables)).toMatchObject({ code: 0 });
      expect(await database.query("select from good")).toEqual([]);
      expect(await database.query("select failed from lockkeeper.streams")).toEqual([{ failed: null }]);
    },
  );

  test("leaves a database that was rolled back as it is: exit 20", { timeout: 60_000 }, async () => {
    const database = await createDatabase();
    const folder = await folderWith({
      "m/1_a.up.sql": "create table a ();",
      "m/1_a.down.sql": "drop table a;",
    });
    const variables = { DATABASE_URL: database.url };
    expect(await run(["converge", ...plain], folder, variables)).toMatchObject({ code: 0 });
    expect(await run(["down", ...plain], folder, variables)).toMatchObject({ code: 0 });
    const held = await run(["converge", ...plain], folder, variables);
    expect(held).toMatchObject({ code: 20, stderr: expect.stringContaining("code:     HELD") });
    expect(await run(["up", ...plain], folder, variables)).toMatchObject({ code: 0 });
    expect(await run(["converge", ...plain], folder, variables)).toMatchObject({ code: 0 });
  });
});

describe("a deadline", () => {
  test(
    "stops the statement on the server, keeps what is done, says what is left and exits 32",
    { timeout: 60_000 },
    async () => {
      const database = await createDatabase();
      const folder = await folderWith({
        "m/1_a.up.sql": "create table a ();",
        "m/2_slow.up.sql": "-- lockkeeper: tx=none\ncreate table b ();\nselect pg_sleep(600);",
        "m/3_c.up.sql": "create table c ();",
      });
      const variables = { DATABASE_URL: database.url };
      const up = (...more: string[]) => run(["up", ...plain, ...more], folder, variables);
      expect(await up("1")).toMatchObject({ code: 0 });
      const { code, stdout } = await up("--deadline", "8s", "--output", "json");
      expect(code).toBe(32);
      expect(JSON.parse(stdout)).toMatchObject({
        status: "canceled",
        outcome: null,
        left: 2,
        to: "1",
        error: { code: "DEADLINE", exitCode: 32, retryable: true },
      });
      expect(
        await database.query(
          "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()",
        ),
      ).toEqual([]);
      expect(await database.query("select holder, failed from lockkeeper.streams")).toEqual([
        { holder: null, failed: null },
      ]);
    },
  );
});
