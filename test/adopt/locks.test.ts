import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { foreignLockKeys } from "../../src/driver/postgres/foreign/lock.ts";
import { flyway, golangMigrate, nodePgMigrate } from "../support/peer.ts";
import { needs } from "../support/parts.ts";
import { makeSite, siteOn } from "./site.ts";

describe("a tool's own lock", () => {
  test("has the numbers that golang-migrate's program and library use, in any schema", () => {
    const place = { tool: "golang-migrate", schema: "public", table: "schema_migrations" } as const;
    expect(foreignLockKeys(place, "app")).toEqual([1_726_534_663n, 1_787_120_056n]);
    expect(foreignLockKeys(place, "postgres")).toEqual([3_280_485_947n, 143_310_882n]);
  });

  describe.each([
    {
      tool: "flyway",
      part: "flyway",
      format: "flyway",
      name: "V1__slow.sql",
      up: flyway,
      verb: "migrate",
    },
    {
      tool: "node-pg-migrate",
      part: "node-pg-migrate",
      format: "dbmate",
      name: "1_slow.sql",
      up: nodePgMigrate,
      verb: "up",
    },
    {
      tool: "golang-migrate",
      part: "golang-migrate",
      format: "golang-migrate",
      name: "1_slow.up.sql",
      up: golangMigrate,
      verb: "up",
    },
  ] as const)("of $tool", ({ part, format, name, up, verb }) => {
    needs(part);

    test("keeps us away while the real tool is at work", async () => {
      const text =
        "-- migrate:up\nSELECT pg_advisory_lock(42);\nCREATE TABLE slow (id int);\n-- migrate:down\n";
      const site = await makeSite({ [name]: text }, { format });
      const gate = await site.database.connect();
      await gate.query("select pg_advisory_lock(42)");
      const running = up(site, verb);
      const waits = `select from pg_locks where locktype = 'advisory' and not granted
 and database = (select oid from pg_database where datname = current_database())`;
      while ((await gate.query(waits)).rowCount === 0) await sleep(20);
      const impatient = await siteOn(site.database, site.folder, { format, waitMs: 0 });
      await expect(impatient.preview()).rejects.toMatchObject({ code: "LEASE_HELD" });
      await gate.query("select pg_advisory_unlock(42)");
      expect(await running).toMatchObject({ code: 0 });
      const { finding } = await site.preview();
      expect(finding).toMatchObject({ misfits: [], applied: [{ migration: { path: name } }] });
    });
  });
});
