import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { loadModule, parseSync, scanSync } from "libpg-query";
import { beforeAll, describe, expect, test } from "vitest";
import { firstWords, scanSql } from "../../src/migration/scan-sql.ts";
import { SqlLexer } from "../../src/migration/sql-lexer.ts";
import { createDatabase } from "../support/database.ts";
import { processorMs } from "../support/processor.ts";

const vectors = path.join(import.meta.dirname, "../vectors/split-sql");

beforeAll(loadModule);

/** Texts of the statements that the lexer finds. */
function split(text: string): string[] {
  return scanSql(text).statements.map(({ start, end }) => text.slice(start, end));
}

/** Texts of the statements that PostgreSQL's parser finds, up to their semicolons. */
function parse(text: string): string[] {
  const withoutMark = text.replace(/^\u{feff}/u, "");
  const bytes = Buffer.from(withoutMark);
  return (parseSync(withoutMark).stmts ?? []).map(({ stmt_location: start = 0, stmt_len: length }) =>
    bytes.toString("utf8", start, length === undefined ? bytes.length : start + length),
  );
}

function expectSameStatements(text: string): void {
  const scanned = split(text);
  const parsed = parse(text);
  expect(scanned.length).toBe(parsed.length);
  for (const [index, statement] of parsed.entries()) {
    const own = scanned[index] ?? "";
    expect(statement.startsWith(own)).toBe(true);
    // the parser leaves blanks and comments before the semicolon in
    expect(split(statement.slice(own.length))).toEqual([]);
  }
}

/** What is between statements, and around them. */
function gaps(text: string): string[] {
  const { statements } = scanSql(text);
  return [0, ...statements.map(({ end }) => end)].map((from, index) =>
    text.slice(from, statements[index]?.start ?? text.length),
  );
}

describe("scanSql on files", () => {
  test.each(readdirSync(vectors).filter((name) => name.endsWith(".sql")))(
    "splits %s as written down, and as the parser does",
    (name) => {
      const text = readFileSync(path.join(vectors, name), "utf8");
      const expected: unknown = JSON.parse(
        readFileSync(path.join(vectors, name.replace(/sql$/, "json")), "utf8"),
      );
      expect(scanSql(text)).toMatchObject({ isClosed: true, isSure: true, backslash: undefined });
      expect(split(text)).toEqual(expected);
      expectSameStatements(text);
    },
  );
});

describe("scanSql on what is left open", () => {
  test.each([
    ["SELECT 'a; SELECT 2", "quoted string", 7],
    ["SELECT 'it''", "quoted string", 7],
    ["SELECT E'a\\'; ", "quoted string", 7],
    ["SELECT E'a\\", "quoted string", 7],
    ['SELECT "a""', "quoted identifier", 7],
    ["SELECT 1; /* a /* b */ ;", "comment", 10],
    ["SELECT $a$ x $b$ ; $A$", "dollar-quoted string", 7],
    ["SELECT $$ x $a$", "dollar-quoted string", 7],
    ["/*/ SELECT 1", "comment", 0],
  ])("names it in %j", (text, what, index) => {
    expect(scanSql(text)).toMatchObject({ isClosed: false, isSure: false, open: { what, index } });
  });

  test.each([
    "SELECT 'a' -- don't",
    "-- /*",
    "SELECT 1 --",
    "/**/",
    "/* // */ SELECT 1",
    "SELECT 5 */* c */ 4",
    "SELECT a$$ FROM t",
  ])("finds %j closed", (text) => {
    expect(scanSql(text)).toMatchObject({ isClosed: true, open: undefined });
  });
});

describe("scanSql where versions of PostgreSQL differ", () => {
  test.each([
    "SELECT 1$$;$$",
    "SELECT 1E'a\\';'",
    "SELECT $1a$b$;$b$",
    "\\set x 1",
    "SELECT $a b$",
    "SELECT (1;",
    "SELECT 1)",
    "SELECT 1é$$",
  ])("is not sure of %j", (text) => {
    expect(scanSql(text).isSure).toBe(false);
  });

  test.each(["SELECT 1_000, 0xFF, 1e10, 1.5e-3, .5, 1., 1e5", "SELECT $1, $2"])("is sure of %j", (text) => {
    expect(scanSql(text).isSure).toBe(true);
  });

  test("is not sure of END as a name in a routine's body", () => {
    const text = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; SELECT 2; END; SELECT 3";
    expect(scanSql(text).isSure).toBe(false);
  });

  test("finds psql's commands by their backslash", () => {
    expect(scanSql("SELECT 1;\n\\connect x").backslash).toBe(10);
    expect(scanSql("SELECT '\\' -- \\").backslash).toBeUndefined();
  });
});

describe("firstWords", () => {
  test.each([
    [
      "create Unique index /* x */ concurrently if not exists i on t (a)",
      ["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY", "IF", "NOT", "EXISTS", "I"],
    ],
    ['DROP TABLE "DROP" x', ["DROP", "TABLE"]],
    ["(SELECT 1)", []],
  ])("of %s", (text, words) => {
    const [statement] = scanSql(text).statements;
    expect(statement && firstWords(text, statement)).toEqual(words);
  });
});

const blank = fc.constantFrom(
  " ",
  "\n",
  "\r\n",
  "\t",
  " -- c; '\n",
  "/* ; ' $$ */",
  "/* a /* ; */ b */",
  ' /* " */ ',
  "--\r",
);
const literal = fc.constantFrom(
  "1",
  "1.5e3",
  "'a;b'",
  "'it''s'",
  "'back\\'",
  "E'es\\';c'",
  "E'\\\\'",
  "E'a'\n'b\\';'",
  "U&'d\\0061;'",
  "N'n'",
  "B'01'",
  "$$ ; ' $$",
  "$t$ $$ ; $$ $t$",
  "$é$;$é$",
  '"quo;ted"',
  '"a""b;"',
  "ident",
  "été",
  "a$b$c",
  "(1)",
  "(SELECT ';')",
  "CASE WHEN true THEN 1 ELSE 2 END",
  "'😀;'::text",
  "5 /* ; */ * 4",
  "- -1",
  "'{}'::json #>> '{a}'",
);
const statement = fc.oneof(
  fc
    .tuple(blank, fc.array(fc.tuple(literal, blank), { minLength: 1, maxLength: 5 }))
    .map(([first, items]) => `SELECT ${first}${items.map(([item, after]) => item + after).join(",")}`),
  literal.map(
    (item) =>
      `CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT ${item}; SELECT CASE WHEN true THEN 1 END; END`,
  ),
  literal.map((item) => `CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT ${item}; SELECT 2)`),
  fc.constantFrom(
    "DO $do$ BEGIN PERFORM ';'; END $do$",
    "CREATE TABLE t (a int, b text DEFAULT ';')",
    "BEGIN",
    "COMMIT",
    "",
  ),
);
const script = fc
  .tuple(
    fc.constantFrom("", "\u{feff}"),
    fc.array(fc.tuple(blank, statement, blank), { minLength: 1, maxLength: 6 }),
    fc.boolean(),
  )
  .map(
    ([mark, parts, isTerminated]) =>
      mark + parts.map((part) => part.join("")).join(";") + (isTerminated ? ";" : ""),
  );

describe("scanSql on generated texts", () => {
  test("finds the statements that PostgreSQL's parser finds", () => {
    fc.assert(fc.property(script, expectSameStatements), { numRuns: 2_000 });
  });

  test("leaves nothing but blanks, comments and semicolons out", () => {
    fc.assert(
      fc.property(fc.oneof(script, fc.string()), (text) => {
        for (const gap of gaps(text)) expect(split(gap)).toEqual([]);
      }),
    );
  });

  test("reads the tokens that PostgreSQL's scanner reads", () => {
    const piece = fc.constantFrom(
      "'",
      '"',
      "$",
      "$$",
      "$a$",
      "/*",
      "*/",
      "--",
      "\n",
      "\r",
      " ",
      ";",
      "a",
      "e'",
      "E'",
      "U&'",
      'u&"',
      "x'",
      "\\",
      "1",
      "1.",
      "e5",
      ".",
      "_",
      "é",
      "*",
      "/",
      "-",
      "(",
      ")",
      "''",
    );
    let compared = 0;
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 14 }), (pieces) => {
        const text = pieces.join("");
        // libpg_query ends a string before such a comment, the server does not: see the test on a server
        fc.pre(!/'[ \t\r\n]*--/.test(text));
        const lexer = new SqlLexer(text);
        const own: string[] = [];
        while (lexer.next()) own.push(lexer.text);
        const theirs = scanTokens(text);
        const isComparable = theirs === "open" || (theirs !== "error" && lexer.isSure);
        if (!isComparable) return;
        compared++;
        // operators, and strings that go on in the next line, are one token there and may be several here
        const expected = theirs === "open" ? "open" : withoutBlanks(theirs.join(""));
        expect(lexer.open === undefined ? withoutBlanks(own.join("")) : "open").toBe(expected);
      }),
      { numRuns: 20_000 },
    );
    expect(compared).toBeGreaterThan(1_000);
  });
});

function withoutBlanks(text: string): string {
  return text.replaceAll(/[ \t\r\n]/g, "");
}

/** Texts of the tokens of libpg_query's scanner, comments left out. */
function scanTokens(text: string): string[] | "open" | "error" {
  if (text === "") return [];
  try {
    const bytes = Buffer.from(text);
    return scanSync(text)
      .tokens.filter(({ tokenName }) => !tokenName.endsWith("COMMENT"))
      .map(({ start, end }) => bytes.toString("utf8", start, end));
  } catch (error) {
    return String(error).includes("unterminated") ? "open" : "error";
  }
}

describe("scanSql against a server", () => {
  test("reads a string that goes on after a comment as the server does", async () => {
    const database = await createDatabase();
    const text = "SELECT E'a' -- first; '\n  -- second; '\n  'b\\'; x' AS value; SELECT 2 AS value";
    expect(split(text)).toHaveLength(2);
    const client = await database.connect();
    const results: unknown = await client.query(text);
    expect(results).toMatchObject([{ rows: [{ value: "ab'; x" }] }, { rows: [{ value: 2 }] }]);
  });
});

describe("scanSql on large texts", () => {
  const shapes: readonly (readonly [string, string])[] = [
    ["statements", "INSERT INTO t VALUES (1, 'a');\n"],
    ["dollar quotes", "$a$ $b$ $a$ "],
    ["nested comments", "/* a */ /* /* b */ */ "],
    ["comment openings", "/*"],
    ["strings that go on", "E'a'\n-- c\n"],
    ["parentheses", "("],
    ["one word", "a"],
    ["dollars", "$a "],
    ["quotes", "'"],
  ];

  test.each(shapes)("takes time in proportion to the length: %s", (_name, piece) => {
    const text = piece.repeat(2 ** 19 / piece.length);
    // a hundredth of this; minutes if each part were read again for each other
    expect(processorMs(() => scanSql(text))).toBeLessThan(10_000);
  });

  test("scans 50 MB", () => {
    const text =
      "INSERT INTO t VALUES (1, 'some text that makes a row of a hundred bytes or so, as dumps have them, more or less');\n".repeat(
        440_000,
      );
    expect(text.length).toBeGreaterThan(50_000_000);
    expect(scanSql(text).statements.length).toBe(440_000);
  });
});
