import fc from "fast-check";
import { describe, expect, test } from "vitest";
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
