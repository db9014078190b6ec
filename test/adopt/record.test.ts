import { describe, expect, test } from "vitest";
import { compareChecksums } from "../../src/adopt/checksums.ts";
import { emptyClaim, type Claim } from "../../src/adopt/claim.ts";
import { findingOf } from "../../src/adopt/finding.ts";
import { formatOf, recognize } from "../../src/adopt/record/formats.ts";
import {
  foreignTools,
  type ForeignRow,
  type ForeignTable,
  type ForeignTool,
} from "../../src/history/foreign.ts";
import { makeRelease } from "../support/plain-release.ts";

const place = { schema: "public", table: "record" } as const;

function table(columns: string, beside: readonly string[] = []): ForeignTable {
  const list = columns.split(",").map((column) => {
    const [name = "", ...type] = column.trim().split(" ");
    return { name, type: type.join(" ") };
  });
  return { ...place, columns: list, beside, isWritable: true };
}

function read(tool: ForeignTool, rows: readonly ForeignRow[]): Claim {
  const format = formatOf(tool);
  if (format === undefined) throw new TypeError(`no format of ${tool}`);
  return format.read(rows, place);
}

describe("whose record a table is", () => {
  test.for<[ForeignTool | undefined, string]>([
    ["golang-migrate", "version bigint, dirty boolean"],
    ["golang-migrate", "_id objectId, version int, dirty bool"],
    ["goose", "id integer, version_id bigint, is_applied boolean, tstamp timestamp without time zone"],
    ["dbmate", "version character varying"],
    ["node-pg-migrate", "id integer, name character varying, run_on timestamp without time zone"],
    ["umzug", "name character varying"],
    [
      "umzug",
      "name character varying, createdAt timestamp with time zone, updatedAt timestamp with time zone",
    ],
    ["umzug", "_id objectId, migrationName string"],
    ["migrate-mongo", "_id objectId, fileName string, appliedAt date, migrationBlock long"],
    [undefined, "version bigint, dirty boolean, note text"],
    [undefined, "version text, applied_at timestamp with time zone"],
    [undefined, "version bigint"],
  ])("is %s's by %s", ([tool, columns]) => {
    expect(recognize(table(columns))?.tool).toBe(tool);
  });

  test("is known for every tool that there is", () => {
    expect(foreignTools.filter((tool) => formatOf(tool) === undefined)).toEqual([]);
  });
});

describe("what a record says", () => {
  test("is nothing where golang-migrate has no row, or the one that it writes after the last down", () => {
    expect(read("golang-migrate", [])).toMatchObject({ applied: [], upTo: null, misfits: [] });
    expect(read("golang-migrate", [{ version: "-1", dirty: "false" }])).toMatchObject({
      upTo: null,
      misfits: [],
    });
    expect(read("golang-migrate", [{ version: "-1", dirty: "true" }]).misfits).toHaveLength(1);
    const two = [1, 2].map((version) => ({ version: String(version), dirty: "false" }));
    expect(read("golang-migrate", two).misfits).toHaveLength(1);
  });

  test("is in goose's newest row of each version, by number and not by text", () => {
    const row = (id: number, version: number, isApplied: boolean) => ({
      id: String(id),
      version_id: String(version),
      is_applied: String(isApplied),
    });
    const rows = [row(10, 2, false), row(1, 0, true), row(9, 2, true), row(2, 1, true), row(11, 1, true)];
    expect(read("goose", rows).applied.map(({ version }) => version)).toEqual(["1"]);
  });

  test("is refused where Flyway failed, and less what it undid, deleted or took for granted", () => {
    const row = (
      rank: number,
      version: string | null,
      type: string,
      success = true,
      checksum: string | null = "5",
    ) => ({
      installed_rank: String(rank),
      version,
      type,
      script: `${version ?? "R"}.sql`,
      checksum,
      success: String(success),
    });
    const claim = read("flyway", [
      row(10, "4", "UNDO_SQL"),
      row(0, null, "SCHEMA"),
      row(1, "2", "BASELINE", true, null),
      row(2, "3", "SQL"),
      row(3, "4", "SQL"),
      row(4, null, "SQL"),
      row(5, "5", "JDBC"),
      row(6, "6", "SQL"),
      row(7, "6", "DELETE"),
      row(8, "7", "SQL", false),
    ]);
    expect(claim.applied).toEqual([
      { version: "3", name: "3.sql", checksum: { kind: "flyway", value: 5 } },
      { version: "5", name: "5.sql", checksum: null },
    ]);
    expect(claim.upTo).toMatchObject({ version: "2", mustExist: false });
    expect(claim.misfits).toMatchObject([{ reason: 'Flyway noted that "7.sql" failed' }]);
    expect(claim.notes).toEqual([expect.stringContaining("baseline")]);
    expect([...claim.repeatable]).toEqual([["R.sql", { kind: "flyway", value: 5 }]]);
  });

  test("is refused where Atlas stopped half way, and only assumed up to its baseline", () => {
    const row = (
      version: string,
      type: number,
      applied: number,
      total: number,
      error: string | null = null,
    ) => ({
      version,
      type: String(type),
      applied: String(applied),
      total: String(total),
      error,
    });
    const claim = read("atlas", [
      row(".atlas_cloud_identifier", 2, 0, 0),
      row("1", 1, 0, 0),
      row("2", 2, 3, 3),
      row("3", 6, 1, 1),
      row("4", 2, 1, 3, "relation x"),
    ]);
    expect(claim.applied.map(({ version }) => version)).toEqual(["2", "3"]);
    expect(claim.upTo).toMatchObject({ version: "1", mustExist: false });
    expect(claim.misfits).toHaveLength(1);
    expect(JSON.stringify(claim)).not.toContain("relation x");
  });
});

describe("what a record means for a release", () => {
  const migrations = ["001_a.up.sql", "2_b.up.sql", "10_c.up.sql"].map((path) => ({
    path,
    version: path.split("_")[0] ?? "",
  }));
  const of = (tool: ForeignTool, claim: Partial<Claim>) =>
    findingOf({ tool, ...place }, { ...emptyClaim, ...claim }, migrations);
  const names = (...given: readonly string[]) => ({
    applied: given.map((name) => ({ version: null, name, checksum: null })),
  });

  test("compares versions as numbers, whatever zeros are before them", () => {
    const { applied, misfits } = of("dbmate", {
      applied: ["0002", "1"].map((version) => ({ version, name: null, checksum: null })),
    });
    expect(applied.map(({ migration }) => migration.path)).toEqual(["001_a.up.sql", "2_b.up.sql"]);
    expect(misfits).toEqual([]);
  });

  test("compares names whole, and says where only their numbers are the same", () => {
    expect(of("umzug", names("001_a.js", "2_b.up.sql")).applied.map(({ assumed }) => assumed)).toEqual([
      null,
      null,
    ]);
    expect(of("umzug", names("001_other.js")).applied).toMatchObject([
      { assumed: 'the record has the name "001_other.js": only its number is the same' },
    ]);
    expect(of("umzug", names("first.js")).misfits).toMatchObject([
      { reason: 'public.record has "first.js", which the release does not have' },
    ]);
  });

  test("has a gap that is named, where the applied ones are no beginning", () => {
    expect(of("goose", { applied: [{ version: "10", name: null, checksum: null }] }).misfits).toMatchObject([
      { reason: '"10_c.up.sql" is applied, but "001_a.up.sql", which comes before it, is not' },
    ]);
  });

  test("needs a file for golang-migrate's number, and none for a baseline", () => {
    const upTo = { version: "5", why: "so it was said" };
    expect(of("golang-migrate", { upTo: { ...upTo, mustExist: true } }).misfits).toHaveLength(1);
    const baseline = of("flyway", { upTo: { ...upTo, mustExist: false } });
    expect(baseline).toMatchObject({ misfits: [], applied: [{ assumed: upTo.why }, { assumed: upTo.why }] });
  });

  test("is refused where a checksum differs, or assumed where a person wants that", async () => {
    const { release, bodies } = await makeRelease([{ path: "1_a.up.sql", up: "SELECT 1;\r\n" }]);
    const claimed = (value: number) => ({
      applied: [{ version: "1", name: "1_a.up.sql", checksum: { kind: "flyway", value } as const }],
    });
    const compare = (value: number, isTrusted: boolean) => {
      const claim = { ...emptyClaim, ...claimed(value) };
      return compareChecksums(
        findingOf({ tool: "flyway", ...place }, claim, release.migrations),
        bodies,
        isTrusted,
      );
    };
    expect(compare(1, false).misfits).toMatchObject([
      { hint: expect.stringContaining("--ignore-checksums") },
    ]);
    const { applied, misfits } = compare(1, true);
    expect(misfits).toEqual([]);
    const noted = /file has (-?\d+)/.exec(applied[0]?.assumed ?? "")?.[1];
    expect(compare(Number(noted), false)).toMatchObject({ misfits: [], applied: [{ assumed: null }] });
  });
});
