import fc from "fast-check";
import { loadModule, parseSync } from "libpg-query";
import { beforeAll, describe, expect, test } from "vitest";
import { analyzeUnsigned } from "../../src/migration/analyze.ts";
import { locate } from "../../src/migration/position.ts";
import { sqlToSend } from "../../src/migration/unwrap-sql.ts";

describe("sqlToSend", () => {
  test.each([
    ["BEGIN;\nCREATE TABLE a ();\nCOMMIT;\n", "\nCREATE TABLE a ();\n"],
    ["begin transaction; SELECT 1; end", " SELECT 1; "],
    ["-- c\nSTART TRANSACTION /* x */ ;SELECT 1;COMMIT WORK -- done", "SELECT 1;"],
    [
      "BEGIN WORK ISOLATION LEVEL READ COMMITTED, READ WRITE;SELECT 1;END TRANSACTION AND NO CHAIN;",
      "SELECT 1;",
    ],
    ["\u{feff}BEGIN;SELECT 1;COMMIT;", "SELECT 1;"],
    ["BEGIN;COMMIT", ""],
  ])("takes the transaction off %j", (text, sql) => {
    expect(sqlToSend(text).sql).toBe(sql);
  });

  test.each([
    "CREATE TABLE a ();",
    "BEGIN;SELECT 1;",
    "SELECT 1;COMMIT;",
    "BEGIN;SELECT 1;ROLLBACK;",
    "BEGIN;SELECT 1;COMMIT AND CHAIN;",
    "BEGIN ISOLATION LEVEL SERIALIZABLE;SELECT 1;COMMIT;",
    "BEGIN READ ONLY;SELECT 1;COMMIT;",
    "BEGIN;SELECT 1;COMMIT;SELECT 2",
    "SELECT 0;BEGIN;SELECT 1;COMMIT;",
    "BEGIN;SELECT 1;COMMIT PREPARED 'x';",
    "BEGIN;SELECT '1;COMMIT;",
    "BEGIN",
    "",
    "-- BEGIN;\nSELECT 1; -- COMMIT;",
  ])("leaves %j as it is", (text) => {
    expect(sqlToSend(text)).toEqual({ sql: text, offset: 0 });
  });

  test("takes a byte order mark off", () => {
    expect(sqlToSend("\u{feff}SELECT 1")).toEqual({ sql: "SELECT 1", offset: 1 });
  });

  test("counts what it took off in code points, so that an error is found in the file", () => {
    const text = "\u{feff}/* 😀 */ BEGIN;\r\nSELECT é, x;\r\nCOMMIT;";
    const { sql, offset } = sqlToSend(text);
    const inSql = Array.from(sql.slice(0, sql.indexOf("x"))).length;
    expect(locate(text, offset + inSql)).toEqual({ line: 2, column: 11 });
  });

  test("gives a part of the text that begins where it says", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("BEGIN;", "COMMIT;", "SELECT 1;", "/* é😀 */", "'", "\n", "\u{feff}")),
        (parts) => {
          const text = parts.join("");
          const { sql, offset } = sqlToSend(text);
          expect(Array.from(text).slice(offset).join("").startsWith(sql)).toBe(true);
        },
      ),
    );
  });
});

describe("bodies that may share a message", () => {
  beforeAll(loadModule);

  /** How many statements the server's parser would find. */
  const count = (sql: string) => parseSync(sql).stmts?.length ?? 0;

  /** The SQL of a body that may share a message; undefined for all others. */
  async function shareable(text: string): Promise<string | undefined> {
    const analysis = await analyzeUnsigned(Buffer.from(text), "1_a.up.sql").catch(() => undefined);
    return analysis?.tx === "one" && analysis.alone ? sqlToSend(text).sql : undefined;
  }

  test("stay whole next to each other, whatever one of them leaves open", async () => {
    const piece = fc.constantFrom(
      ..."SELECT 1;|INSERT INTO t VALUES ('a');|CREATE TABLE t ();|SELECT 'it''s';|SELECT E'a\\';|SELECT $$ x $$;".split(
        "|",
      ),
      ..."COMMIT;|ROLLBACK;|BEGIN;|END;|'|\"|$$|$a$|/*|*/|--|\n|;|(|)|E'|\\|-- COMMIT;|/* ROLLBACK; */|$a$ COMMIT; $a$|\u{feff}".split(
        "|",
      ),
    );
    const body = fc.array(piece, { minLength: 1, maxLength: 5 }).map((pieces) => pieces.join(" "));
    let joined = 0;
    await fc.assert(
      fc.asyncProperty(body, body, async (one, other) => {
        const [first, second] = await Promise.all([shareable(one), shareable(other)]);
        if (first === undefined || second === undefined) return;
        const marker = "SELECT 'history row of the first'";
        const message = `${first}\n;${marker};${second}\n;${marker}`;
        const { stmts } = parseUnlessWrong(message);
        if (stmts === undefined) return;
        joined++;
        expect(stmts.length).toBe(count(`${first}\n;`) + count(`${second}\n;`) + 2);
        // none of them can end or begin a transaction
        expect(JSON.stringify(stmts)).not.toContain("TransactionStmt");
      }),
      { numRuns: 2_000 },
    );
    expect(joined).toBeGreaterThan(30);
  });

  /** A syntax error anywhere stops the whole message: nothing runs. */
  function parseUnlessWrong(message: string): { readonly stmts?: readonly unknown[] } {
    try {
      return parseSync(message);
    } catch {
      return {};
    }
  }
});
