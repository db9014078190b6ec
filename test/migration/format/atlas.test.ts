import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { atlasSum, verifyAtlasSum } from "../../../src/migration/format/atlas-sum.ts";
import { atlas } from "../../../src/migration/format/atlas.ts";
import type { FormatFile } from "../../../src/migration/format/format.ts";
import { scanSql } from "../../../src/migration/scan-sql.ts";
import {
  bodyVector,
  companionsOf,
  failFolder,
  goodFolder,
  parseVector,
  readVector,
  refusalOf,
  vectorNames,
} from "./format-vector.ts";

type Texts = Readonly<Record<string, string>>;

function filesOf(texts: Texts): readonly FormatFile[] {
  return Object.entries(texts).map(([name, text]) => ({ name, bytes: Buffer.from(text) }));
}

describe("Atlas's layout", () => {
  test.each(vectorNames("atlas", "good_"))("takes %s", (name) => {
    const { names, ignored, ...expected } = readVector(goodFolder, "atlas", name);
    const layout = atlas.read(names);
    expect(layout).toEqual({ ...expected, ignored: layout.ignored });
    expect(layout.ignored.map((file) => file.name).toSorted()).toEqual(ignored);
  });

  test.each(vectorNames("atlas", "fail_"))("refuses %s", async (name) => {
    const { names, code, mentions } = readVector(failFolder, "atlas", name);
    const error = await refusalOf(() => atlas.read(names));
    expect(error.code).toBe(code);
    for (const mention of mentions) expect(`${error.message}\n${error.hint}`).toContain(mention);
    expect(error.hint).toBeTypeOf("string");
  });

  test("is settled by the files: a checkpoint stands for the migration before it, the last one counts", () => {
    const checkpoint = "-- atlas:checkpoint\n\nSELECT 1;\n";
    const files = filesOf({
      "1_a.sql": "SELECT 1;\n",
      "2_all.sql": checkpoint,
      "3_all.sql": checkpoint,
      "4_b.sql": "-- no atlas:checkpoint\nSELECT 2;\n",
    });
    const layout = atlas.settle?.(
      atlas.read(files.map(({ name }) => name)),
      files,
      companionsOf({ "atlas.sum": atlasSum(files) }),
    );
    expect(layout?.migrations).toEqual([
      { version: "1", title: "a", up: "1_a.sql", checkpoint: "3_all.sql" },
      { version: "4", title: "b", up: "4_b.sql" },
    ]);
    expect(layout?.ignored).toEqual([{ name: "2_all.sql", reason: '"3_all.sql" takes its place' }]);
  });

  test("begins with a checkpoint where nothing is before it", () => {
    const files = filesOf({ "1_all.sql": "-- atlas:checkpoint\n\nSELECT 1;\n", "2_b.sql": "SELECT 2;\n" });
    const layout = atlas.settle?.(
      atlas.read(files.map(({ name }) => name)),
      files,
      companionsOf({ "atlas.sum": atlasSum(files) }),
    );
    expect(layout?.migrations.map(({ up, checkpoint }) => [up, checkpoint])).toEqual([
      ["1_all.sql", undefined],
      ["2_b.sql", undefined],
    ]);
  });

  test("without atlas.sum is refused", async () => {
    const files = filesOf({ "1_a.sql": "SELECT 1;\n" });
    const error = await refusalOf(() => atlas.settle?.(atlas.read(["1_a.sql"]), files, new Map()));
    expect(error.code).toBe("FOLDER_SUM");
    expect(error.hint).toContain("atlas migrate hash");
  });
});

describe("a file of Atlas's", () => {
  const vectors = vectorNames("atlas", "body_").map((name) => ({
    name,
    vector: readVector(bodyVector, "atlas", name),
  }));

  test.each(vectors.filter(({ vector }) => vector.code === undefined))(
    "is taken: $name",
    async ({ vector }) => {
      const parsed = await parseVector(atlas, vector);
      expect(parsed.up?.bytes.toString("utf8")).toBe(vector.up);
      expect(parsed.down?.bytes.toString("utf8")).toBe(vector.down);
      expect(parsed.up?.tx).toBe(vector.tx);
      expect(parsed.warnings).toEqual(vector.warnings);
    },
  );

  test.each(vectors.filter(({ vector }) => vector.code !== undefined))(
    "is refused: $name",
    async ({ vector }) => {
      const error = await refusalOf(() => parseVector(atlas, vector));
      expect(error.code).toBe(vector.code);
      for (const mention of vector.mentions) expect(`${error.message}\n${error.hint}`).toContain(mention);
    },
  );

  test("with another delimiter keeps its lines and its statements", async () => {
    const statement = fc.constantFrom(
      "SELECT 1",
      "SELECT ';' -- x\n",
      "SELECT $$ // $$",
      "SELECT '//', (2)",
      "/* // */ SELECT 3",
      "SELECT\n\n4",
    );
    const delimiter = fc.constantFrom("//", "\n-- end\n", "\n\n\n", "@@");
    await fc.assert(
      fc.asyncProperty(
        fc.array(statement, { minLength: 1, maxLength: 5 }),
        delimiter,
        async (statements, d) => {
          const escaped = d.replaceAll("\n", String.raw`\n`);
          const text = `-- atlas:delimiter ${escaped}\n${statements.map((s) => `${s}${d}`).join("")}`;
          const { up } = await atlas.parse({ name: "1_a.sql", bytes: Buffer.from(text) }, new Map());
          const sent = up?.bytes.toString("utf8") ?? "";
          expect(sent.split("\n")).toHaveLength(text.split("\n").length);
          expect(scanSql(sent).statements).toHaveLength(statements.length);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("atlas.sum", () => {
  const sums = readVector(
    v.array(v.strictObject({ files: v.record(v.string(), v.string()), sum: v.string() })),
    "atlas",
    "sums.json",
  );
  const texts: Texts = { "1_a.sql": "SELECT 1;\n", "2_b.sql": "SELECT 2;\n", "3_c.sql": "SELECT 3;\n" };
  const sum = atlasSum(filesOf(texts));

  test.each(sums)(
    "is what Atlas writes (vector %#), whatever the order of the files",
    ({ files, sum: written }) => {
      expect(atlasSum(filesOf(files))).toBe(written);
      expect(atlasSum(filesOf(files).toReversed())).toBe(written);
      verifyAtlasSum(filesOf(files), written);
      verifyAtlasSum(filesOf(files), written.replaceAll("\n", "\r\n"));
    },
  );

  test.each([
    ["an edited file", { ...texts, "1_a.sql": "SELECT 9;\n" }, 2, '"1_a.sql" was edited'],
    ["a line end more", { ...texts, "3_c.sql": "SELECT 3;\n\n" }, 4, '"3_c.sql" was edited'],
    ["a removed file", { "1_a.sql": "SELECT 1;\n", "3_c.sql": "SELECT 3;\n" }, 3, '"2_b.sql" was removed'],
    [
      "a removed last file",
      { "1_a.sql": "SELECT 1;\n", "2_b.sql": "SELECT 2;\n" },
      4,
      '"3_c.sql" was removed',
    ],
    ["a file between", { ...texts, "1_b.sql": "SELECT 0;\n" }, 3, '"1_b.sql" was added'],
    ["a file at the end", { ...texts, "4_d.sql": "SELECT 4;\n" }, 5, '"4_d.sql" was added'],
    ["no file left", {}, 2, '"1_a.sql" was removed'],
  ])("tells %s", async (_, now: Texts, line, says) => {
    const error = await refusalOf(() => verifyAtlasSum(filesOf(now), sum));
    expect(error.code).toBe("FOLDER_SUM");
    expect(error.message).toContain(`atlas.sum:${line}: ${says}`);
    expect(error.fields["line"]).toBe(line);
  });

  test.each([
    ["two lines swapped", sum.replace(/^(1.*\n)(2.*\n)/m, "$2$1"), 1, "was edited"],
    ["a line without a sum", sum.replace(/^2.*$/m, "2_b.sql"), 3, "is not a file's name"],
    ["an empty line", sum.replace("\n2_b", "\n\n2_b"), 3, "is not a file's name"],
    ["nothing", "", 1, "was edited"],
  ])("tells when it was itself changed: %s", async (_, text, line, says) => {
    const error = await refusalOf(() => verifyAtlasSum(filesOf(texts), text));
    expect(error.code).toBe("FOLDER_SUM");
    expect(error.message).toContain(`atlas.sum:${line}: `);
    expect(error.message).toContain(says);
  });

  test("leaves out the content of a file that says so in its first line, not its name", async () => {
    const ignoring = {
      "1_a.sql": "SELECT 1;\n",
      "2_b.sql": "-- atlas:sum ignore\n\nSELECT 2;\n",
      "4_d.sql": "SELECT 4;\n",
    };
    const made = atlasSum(filesOf(ignoring));
    expect(made).not.toContain("2_b.sql");
    verifyAtlasSum(filesOf({ ...ignoring, "2_b.sql": "-- atlas:sum ignore\n\nSELECT 3;\n" }), made);
    const { "2_b.sql": content, ...others } = ignoring;
    expect(atlasSum(filesOf({ ...others, "3_b.sql": content }))).not.toBe(made);
    const error = await refusalOf(() =>
      verifyAtlasSum(filesOf({ ...ignoring, "2_b.sql": "SELECT 2;\n" }), made),
    );
    expect(error.code).toBe("FOLDER_SUM");
  });
});
