import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import type { Format } from "../../../src/migration/format/format.ts";
import { golangMigrate } from "../../../src/migration/format/golang-migrate.ts";
import { compareVersions } from "../../../src/migration/version.ts";

const folder = path.join(import.meta.dirname, "../../vectors/format/golang-migrate");
const vectors = readdirSync(folder).toSorted();

const engine = v.optional(v.picklist(["postgres", "mongodb"]), "postgres");
const Good = v.object({
  engine,
  names: v.array(v.string()),
  migrations: v.array(
    v.object({ version: v.string(), title: v.string(), up: v.string(), down: v.optional(v.string()) }),
  ),
  ignored: v.optional(v.array(v.string()), []),
  warnings: v.optional(v.array(v.string()), []),
});
const Fail = v.object({
  engine,
  names: v.array(v.string()),
  code: v.string(),
  mentions: v.array(v.string()),
});

function vector<Schema extends v.GenericSchema>(schema: Schema, name: string): v.InferOutput<Schema> {
  return v.parse(schema, JSON.parse(readFileSync(path.join(folder, name), "utf8")));
}

const postgres = golangMigrate({ engine: "postgres" });

function failure(format: Format, names: readonly string[]): RunnerError {
  try {
    format.read(names);
  } catch (error) {
    if (error instanceof RunnerError) return error;
  }
  throw new Error("nothing was refused");
}

describe("golang-migrate's layout", () => {
  test.each(vectors.filter((name) => name.startsWith("good_")))("takes %s", (name) => {
    const { engine, names, migrations, ignored, warnings } = vector(Good, name);
    const layout = golangMigrate({ engine }).read(names);
    expect(layout.migrations).toEqual(migrations);
    expect(layout.ignored.map((file) => file.name)).toEqual(ignored);
    expect(layout.warnings).toEqual(warnings);
  });

  test.each(vectors.filter((name) => name.startsWith("fail_")))("refuses %s", (name) => {
    const { engine, names, code, mentions } = vector(Fail, name);
    const error = failure(golangMigrate({ engine }), names);
    expect(error.code).toBe(code);
    for (const mention of mentions) expect(`${error.message}\n${error.hint}`).toContain(mention);
    expect(error.hint).toBeTypeOf("string");
  });

  test("takes labels of 200 characters", () => {
    const name = `000001_${"x".repeat(186)}.up.sql`;
    expect(name).toHaveLength(200);
    expect(postgres.read([name]).migrations).toEqual([
      { version: "000001", title: "x".repeat(186), up: name },
    ]);
  });

  test("reads 10,000 pairs in the order of their versions, in whatever order they are listed", () => {
    const names = Array.from({ length: 10_000 }, (_, i) => [`${i}_x.up.sql`, `${i}_x.down.sql`]).flat();
    const versions = postgres.read(names.toReversed()).migrations.map(({ version }) => version);
    expect(versions).toEqual(Array.from({ length: 10_000 }, (_, i) => String(i)));
  });

  test("accounts for every name of a folder that it takes", () => {
    const name = fc.oneof(
      fc
        .tuple(
          fc.nat(20),
          fc.constantFrom("a", "b.c", ""),
          fc.constantFrom("up", "down"),
          fc.constantFrom("sql", "sql", "sql", "md"),
        )
        .map(([version, title, direction, extension]) => `${version}_${title}.${direction}.${extension}`),
      fc.constantFrom("README.md", ".x", "a.txt", "schema.sql"),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.uniqueArray(name, { maxLength: 6 }), (names) => {
        const found = read(names);
        expect([...found].toSorted()).toEqual(names.toSorted());
      }),
      { numRuns: 2_000 },
    );
  });
});

/** Every name that the format has something to say about, or all of them where it refuses the folder. */
function read(names: readonly string[]): readonly string[] {
  try {
    const { migrations, ignored } = postgres.read(names);
    const inOrder = migrations.every(
      ({ version }, i) => i === 0 || compareVersions(migrations[i - 1]?.version ?? "", version) < 0,
    );
    expect(inOrder).toBe(true);
    return [
      ...migrations.flatMap(({ up, down }) => [up, ...(down === undefined ? [] : [down])]),
      ...ignored.map((file) => file.name),
    ];
  } catch (error) {
    expect(error).toBeInstanceOf(RunnerError);
    return names;
  }
}
