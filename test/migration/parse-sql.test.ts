import { describe, expect, test } from "vitest";
import { parseSql } from "../../src/migration/parse-sql.ts";
import type { SyntaxProblem } from "../../src/migration/parse-sql.ts";

interface Found {
  readonly statements: { readonly text: string; readonly kind: string }[];
  readonly large: string[];
  readonly problem: SyntaxProblem | undefined;
}

/** What the parser finds, each statement as the bytes of its range. */
async function parse(text: string, isLargeTaken = true): Promise<Found> {
  const bytes = Buffer.from(text);
  const statements: Found["statements"] = [];
  const large: string[] = [];
  const problem = await parseSql(text, {
    visit({ offset, length, node }) {
      statements.push({
        text: bytes.toString("utf8", offset, offset + length),
        kind: Object.keys(node).join(),
      });
    },
    visitLarge({ offset, length, scanned }) {
      large.push(bytes.toString("utf8", offset, offset + length));
      expect(large.at(-1)).toBe(text.slice(scanned.start, scanned.end));
      return isLargeTaken;
    },
  });
  return { statements, large, problem };
}

describe("parseSql", () => {
  test("gives each statement's bytes and node", async () => {
    const { statements, problem } = await parse("\u{feff}-- é\nSELECT 'é';; CREATE TABLE été ();");
    expect(problem).toBeUndefined();
    expect(statements).toEqual([
      { text: "SELECT 'é'", kind: "SelectStmt" },
      { text: "CREATE TABLE été ()", kind: "CreateStmt" },
    ]);
  });

  test.each(["", "\u{feff}", "-- only a comment", ";;"])("finds no statement in %j", async (text) => {
    expect(await parse(text)).toEqual({ statements: [], large: [], problem: undefined });
  });

  test("says where it stops, in UTF-16 units", async () => {
    const text = "\u{feff}SELECT '😀';\nSELECT FROM WHERE x";
    const { problem } = await parse(text);
    expect(problem).toEqual({ message: 'syntax error at or near "WHERE"', index: text.indexOf("WHERE") });
  });

  test("repeats no more than a few characters of the text", async () => {
    const { problem } = await parse(`SELECT 'secret ${"x".repeat(5_000)}\nmore`);
    expect(problem?.message.length).toBeLessThan(120);
    expect(problem?.message).not.toContain("more");
  });

  test("parses a text of many parts as it would the whole", async () => {
    const count = 30_000;
    const text = Array.from({ length: count }, (_, i) => `INSERT INTO été VALUES (${i}, ';'); /* ; */ `).join(
      "\n",
    );
    const { statements, problem } = await parse(`\u{feff}${text}SELECT bad bad bad`);
    expect(statements.length).toBeGreaterThanOrEqual(count - 10_000);
    expect(statements.every(({ text: own }, i) => own === `INSERT INTO été VALUES (${i}, ';')`)).toBe(true);
    expect(problem?.index).toBe(text.length + 1 + "SELECT bad bad ".length);
  });

  test("leaves a statement of some megabytes to the visitor", async () => {
    const seed = `INSERT INTO été VALUES ${"(1, 'a row'),\n".repeat(200_000)}(2, 'the last')`;
    const { statements, large, problem } = await parse(`SELECT 1;\n${seed} -- c\n; SELECT 2`);
    expect(problem).toBeUndefined();
    expect(statements.map(({ text }) => text)).toEqual(["SELECT 1", "SELECT 2"]);
    expect(large).toEqual([seed]);
    await expect(parse(seed, false)).rejects.toMatchObject({ code: "TOO_LARGE" });
  });

  test.each([
    ["parentheses", `SELECT ${"(".repeat(60_000)}1${")".repeat(60_000)}`],
    ["operators", `SELECT ${"1+".repeat(40_000)}1`],
    ["comments within comments without a gap", "/*".repeat(500_000)],
    ["signs without a gap", `SELECT 1 ${"+-".repeat(500_000)}1`],
    ["an open quote of some megabytes", `SELECT '${"x".repeat(3_000_000)}`],
  ])("gives up on %s without harm", async (_what, text) => {
    await expect(parse(text)).rejects.toMatchObject({ code: "TOO_LARGE" });
    expect((await parse("SELECT 1")).statements).toHaveLength(1);
  });
});
