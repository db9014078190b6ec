import { describe, expect, test } from "vitest";
import { atlas, dbmate, flyway, goose, nodePgMigrate, umzug, type PeerResult, type PeerSite } from "../support/peer.ts";
import { needs } from "../support/parts.ts";
import type { FormatName } from "../../src/migration/format/format.ts";
import type { ForeignTool } from "../../src/history/foreign.ts";
import { back, makeSite, type Site } from "./site.ts";

/** A tool, the folder that it wants, and how it is told to go up and back. */
interface Case {
  readonly tool: ForeignTool;
  readonly part: "goose" | "dbmate" | "flyway" | "atlas" | "node-pg-migrate" | "umzug";
  readonly format: FormatName;
  readonly table: string;
  /** the files of the migration that makes table `t<n>` */
  files(n: number): Readonly<Record<string, string>>;
  up(site: PeerSite): Promise<PeerResult>;
  /** absent where it knows no way back */
  down?(site: PeerSite): Promise<PeerResult>;
  /** before it takes a folder with new files */
  prepare?(site: PeerSite): Promise<PeerResult>;
}

const both = (n: number, up: string, down: string) => `${up}\nCREATE TABLE t${n} (id int);\n\n${down}\nDROP TABLE t${n};\n`;
const pair = (n: number) => ({
  [`000${n}_t${n}.up.sql`]: `CREATE TABLE t${n} (id int);\n`,
  [`000${n}_t${n}.down.sql`]: `DROP TABLE t${n};\n`,
});

const cases: readonly Case[] = [
  {
    tool: "goose",
    part: "goose",
    format: "goose",
    table: "goose_db_version",
    files: (n) => ({ [`000${n}_t${n}.sql`]: both(n, "-- +goose Up", "-- +goose Down") }),
    up: (site) => goose(site, "up"),
    down: (site) => goose(site, "down"),
  },
  {
    tool: "dbmate",
    part: "dbmate",
    format: "dbmate",
    table: "schema_migrations",
    files: (n) => ({ [`000${n}_t${n}.sql`]: both(n, "-- migrate:up", "-- migrate:down") }),
    up: (site) => dbmate(site, "migrate"),
    down: (site) => dbmate(site, "rollback"),
  },
  {
    tool: "flyway",
    part: "flyway",
    format: "flyway",
    table: "flyway_schema_history",
    files: (n) => ({ [`V1_${n}__make_t${n}.sql`]: `CREATE TABLE t${n} (id int);\r\n` }),
    up: (site) => flyway(site, "migrate"),
  },
  {
    tool: "atlas",
    part: "atlas",
    format: "atlas",
    table: "atlas_schema_revisions.atlas_schema_revisions",
    files: (n) => ({ [`2024010${n}000000_t${n}.sql`]: `CREATE TABLE t${n} (id int);\n` }),
    up: (site) => atlas(site, "apply"),
    prepare: (site) => atlas(site, "hash"),
  },
  {
    tool: "node-pg-migrate",
    part: "node-pg-migrate",
    format: "golang-migrate",
    table: "pgmigrations",
    files: pair,
    up: (site) => nodePgMigrate(site, "up"),
    down: (site) => nodePgMigrate(site, "down"),
  },
  {
    tool: "umzug",
    part: "umzug",
    format: "golang-migrate",
    table: '"SequelizeMeta"',
    files: pair,
    up: (site) => umzug(site, "up"),
    down: (site) => umzug(site, "down"),
  },
];

const rowsOf = (site: Site, { table }: Case) => site.database.query(`select to_jsonb(t) as row from ${table} t`);

describe.each(cases)("$tool", (own) => {
  needs(own.part);

  test("is taken over from, kept in step, and takes over again with nothing to do", async () => {
    const site = await makeSite({ ...own.files(1), ...own.files(2) }, { format: own.format });
    const add = async (...numbers: readonly number[]) => {
      for (const n of numbers) await site.write(own.files(n));
      await own.prepare?.(site);
    };
    const theirs = async (result: Promise<PeerResult> | undefined) => expect(await result).toMatchObject({ code: 0 });
    await add();
    await theirs(own.up(site));

    const { finding, changes } = await site.adopt({ keepsInStep: true });
    expect(finding).toMatchObject({ place: { tool: own.tool }, misfits: [] });
    expect(finding.applied.map(({ assumed }) => assumed)).toEqual([null, null]);
    expect(changes).toHaveLength(2);

    // Ours makes the third; the real tool finds it done, and makes the fourth.
    await add(3);
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
    const rows = await rowsOf(site, own);
    await theirs(own.up(site));
    expect(await rowsOf(site, own)).toEqual(rows);
    await add(4);
    await theirs(own.up(site));
    expect(await site.run()).toMatchObject({ error: { code: "ADOPTION" } });
    expect((await site.adopt()).changes).toMatchObject([{ direction: "up", assumed: null }]);
    expect(await site.run()).toMatchObject({ outcome: "noop" });

    if (own.down !== undefined) {
      // Back by ours, forth by the real tool, and the other way round.
      expect(await site.run(back(1))).toMatchObject({ outcome: "rolled_back" });
      await theirs(own.up(site));
      expect((await site.adopt()).changes).toMatchObject([{ direction: "up" }]);
      await theirs(own.down(site));
      expect((await site.adopt()).changes).toMatchObject([{ direction: "down" }]);
      expect(await site.run()).toMatchObject({ outcome: "applied" });
      await theirs(own.up(site));
    }
    expect(await site.database.query("select from pg_tables where tablename ~ '^t[0-9]$'")).toHaveLength(4);
  });
});
