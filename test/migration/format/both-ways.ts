import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import type { Format, FormatName } from "../../../src/migration/format/format.ts";
import { compareVersions } from "../../../src/migration/version.ts";
import { failFolder, goodFolder, readVector, refusalOf, vectorNames } from "./format-vector.ts";

/** A file that holds the way up and the way down: its bodies, or why there are none. */
const file = v.strictObject({
  about: v.optional(v.string()),
  text: v.string(),
  variables: v.optional(v.record(v.string(), v.string()), {}),
  /** what goose's own `validate` says: statements each way; absent where it refuses the file */
  goose: v.optional(v.strictObject({ transaction: v.boolean(), up: v.number(), down: v.number() })),
  dbmate: v.optional(v.picklist(["takes it", "refuses it"])),
  up: v.optional(v.string()),
  down: v.optional(v.string()),
  tx: v.optional(v.literal("none")),
  /** where it is not that of the way up */
  downTx: v.optional(v.nullable(v.literal("none"))),
  warnings: v.optional(v.array(v.string()), []),
  code: v.optional(v.string()),
  mentions: v.optional(v.array(v.string()), []),
});

/** A vector of a file, and its name. */
export interface FileVector extends v.InferOutput<typeof file> {
  readonly name: string;
}

/** The vectors of a tool's files. */
export function fileVectors(tool: FormatName): readonly FileVector[] {
  return vectorNames(tool, "body_").map((name) => ({ name, ...readVector(file, tool, name) }));
}

/** What every format promises whose files hold both ways; `open` makes it for a vector's variables. */
export function testBothWays(
  tool: FormatName,
  open: (variables?: Readonly<Record<string, string>>) => Format,
): void {
  const format = open();
  const parse = ({ text, variables }: FileVector) =>
    open(variables).parse({ name: "1_a.sql", bytes: Buffer.from(text) }, new Map());

  describe("a folder", () => {
    test.each(vectorNames(tool, "good_"))("is taken: %s", (name) => {
      const { names, ignored, ...expected } = readVector(goodFolder, tool, name);
      const layout = format.read(names.toReversed());
      expect(layout).toEqual({ ...expected, ignored: layout.ignored });
      expect(layout.ignored.map((other) => other.name).toSorted()).toEqual(ignored.toSorted());
      for (const { reason } of layout.ignored) expect(reason).not.toBe("");
    });

    test.each(vectorNames(tool, "fail_"))("is refused: %s", async (name) => {
      const { names, code, mentions } = readVector(failFolder, tool, name);
      const error = await refusalOf(() => format.read(names));
      expect(error.code).toBe(code);
      for (const mention of mentions) expect(error.message).toContain(mention);
      expect(error.hint).toBeTypeOf("string");
    });

    test("takes labels of 200 characters", () => {
      const name = `1_${"x".repeat(194)}.sql`;
      expect(name).toHaveLength(200);
      expect(format.read([name]).migrations).toEqual([{ version: "1", title: "x".repeat(194), up: name }]);
    });

    test("of 10,000 files is read in the order of their versions, in whatever order they are listed", () => {
      const versions = Array.from({ length: 10_000 }, (_, i) => String(i + 1).padStart(5, "0"));
      const { migrations } = format.read(versions.map((version) => `${version}_x.sql`).toReversed());
      expect(migrations.map(({ version }) => version)).toEqual(versions);
    });

    test("that is taken has a place for every name", () => {
      const name = fc.oneof(
        fc
          .tuple(
            fc.constantFrom("", "+", "-", "v"),
            fc.nat(30),
            fc.constantFrom("_a", "_", "", "-b", "_a.up", "_test"),
            fc.constantFrom("sql", "sql", "sql", "go", "SQL", "sql~", "md"),
          )
          .map(([sign, version, title, extension]) => `${sign}${version}${title}.${extension}`),
        fc.constantFrom("README.md", ".x", "a.txt", "schema.sql", "main.go"),
        fc.string(),
      );
      fc.assert(
        fc.property(fc.uniqueArray(name, { maxLength: 6 }), (names) => {
          expect(accountedFor(format, names).toSorted()).toEqual(names.toSorted());
        }),
        { numRuns: 2_000 },
      );
    });
  });

  describe("a file", () => {
    const vectors = fileVectors(tool);

    test.each(vectors.filter(({ code }) => code === undefined))("is taken: $name", async (vector) => {
      const { up, down, warnings } = await parse(vector);
      const { tx, downTx = tx } = vector;
      expect(up?.bytes.toString()).toBe(vector.up);
      expect(down?.bytes.toString()).toBe(vector.down);
      expect(up?.tx).toBe(tx);
      expect(down?.tx).toBe(down === undefined ? undefined : (downTx ?? undefined));
      expect(warnings).toEqual(vector.warnings);
    });

    test.each(vectors.filter(({ code }) => code !== undefined))("is refused: $name", async (vector) => {
      const error = await refusalOf(() => parse(vector));
      expect(error.code).toBe(vector.code);
      for (const mention of vector.mentions) expect(error.message).toContain(mention);
      expect(error.hint).toBeTypeOf("string");
      expect(`${error.message} ${error.hint}`).not.toContain("secret");
    });

    test("that is not UTF-8, or has a NUL character, is refused with its line", async () => {
      for (const bytes of [Buffer.from([0x2d, 0x2d, 0x0a, 0xff]), Buffer.from("--\n\0")]) {
        const error = await refusalOf(() => format.parse({ name: "1_a.sql", bytes }, new Map()));
        expect(error).toMatchObject({ code: "ENCODING", fields: { line: 2 } });
      }
    });

    test("has its statements in the lines where they stand", async () => {
      const lines = vectors.flatMap(({ text }) => text.split(/\r?\n/));
      // goose takes some annotations out of the middle of a statement, whose other lines then move up
      const known = lines.filter(
        (line) => /^([ \t]*--|SELECT 1;$|$)/.test(line) && !/TRANSACTION|ENVSUB/i.test(line),
      );
      const begin = lines.find((line) => /^-- (migrate:up|\+goose Up)$/.test(line)) ?? "";
      const after = fc.array(fc.constantFrom("SELECT 1;", ...new Set(known)), { maxLength: 8 });
      let taken = 0;
      await fc.assert(
        fc.asyncProperty(after, async (chosen) => {
          const named = [begin, ...chosen].map((line, i) =>
            line.replace(/^SELECT 1;/, `SELECT 'line ${i + 1}';`),
          );
          const file = { name: "1_a.sql", bytes: Buffer.from(named.join("\n")) };
          const parts = await bodies(() => format.parse(file, new Map()));
          taken += parts.length;
          for (const [i, line] of parts.flatMap((text) => [...text.split("\n").entries()]))
            expect(/'line ([0-9]+)'/.exec(line)?.[1] ?? String(i + 1)).toBe(String(i + 1));
        }),
        { numRuns: 3_000 },
      );
      expect(taken).toBeGreaterThan(100);
    });
  });
}

async function bodies(parse: () => ReturnType<Format["parse"]>): Promise<readonly string[]> {
  try {
    const { up, down } = await parse();
    return [up, down].flatMap((part) => (part === undefined ? [] : [part.bytes.toString()]));
  } catch (error) {
    expect(error).toBeInstanceOf(RunnerError);
    return [];
  }
}

/** Every name that the format has something to say about, or all of them where it refuses the folder. */
function accountedFor(format: Format, names: readonly string[]): readonly string[] {
  try {
    const { migrations, ignored } = format.read(names);
    const inOrder = migrations.every(
      ({ version }, i) => i === 0 || compareVersions(migrations[i - 1]?.version ?? "", version) < 0,
    );
    expect(inOrder).toBe(true);
    return [...migrations.map(({ up }) => up), ...ignored.map((other) => other.name)];
  } catch (error) {
    expect(error).toBeInstanceOf(RunnerError);
    return names;
  }
}
