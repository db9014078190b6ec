import { describe, expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { parseHeader } from "../../src/migration/header.ts";

function failure(text: string): RunnerError {
  try {
    parseHeader(text, "1_a.up.sql");
  } catch (error) {
    if (error instanceof RunnerError) return error;
  }
  throw new Error("nothing was refused");
}

describe("parseHeader", () => {
  test.each([
    ["SELECT 1", {}],
    ["-- an ordinary comment about lockkeeper\nSELECT 1", {}],
    ["-- lockkeeper: tx=none", { tx: "none" }],
    ["--lockkeeper:tx=one\n", { tx: "one" }],
    [
      "  -- lockkeeper:   lock_timeout=2s   statement_timeout=10m  \nSELECT 1",
      { lockTimeoutMs: 2_000, statementTimeoutMs: 600_000 },
    ],
    ["-- lockkeeper: lock_timeout=0", { lockTimeoutMs: 0 }],
    [
      "-- Copyright\n\n-- lockkeeper: tx=none\n-- lockkeeper: lock_timeout=500ms\nVACUUM",
      { tx: "none", lockTimeoutMs: 500 },
    ],
    ["\u{feff}-- lockkeeper: tx=none\r\nVACUUM", { tx: "none" }],
    ["-- first\r\n-- lockkeeper: tx=none\r\n\r\nVACUUM", { tx: "none" }],
    ["SELECT '-- lockkeeper: tx=none'", {}],
    ["SELECT 1; -- see lockkeeper: a tool", {}],
  ])("reads %j", (text, header) => {
    expect(parseHeader(text, "1_a.up.sql")).toEqual(header);
  });

  test.each([
    ["-- lockkeeper: txx=none", 1, 'unknown key "txx"'],
    ["-- lockkeeper: backfill table=orders", 1, '"backfill"'],
    ["-- lockkeeper: __proto__=1", 1, 'unknown key "__proto__"'],
    ["-- c\r\n-- lockkeeper: tx=maybe", 2, '"maybe" is no value for "tx"'],
    ["-- lockkeeper: lock_timeout=2", 1, '"2" is no value for "lock_timeout"'],
    ["-- lockkeeper: tx=one tx=none", 1, '"tx" is given twice'],
    ["-- lockkeeper: tx=one\n-- lockkeeper: tx=one", 2, '"tx" is given twice'],
    ["-- lockkeeper: none", 1, '"none" in the lockkeeper header is not key=value'],
    ["-- lockkeeper:", 1, "without settings"],
    ["-- Lockkeeper: tx=none\nVACUUM", 1, "not quite"],
    ["-- lockkeeper tx=none\nVACUUM", 1, "not quite"],
    ["SELECT 1;\n-- lockkeeper: tx=none\nVACUUM", 2, "after the first statement"],
    ["/* licence */\n-- lockkeeper: tx=none\nVACUUM", 2, "after the first statement or a block comment"],
  ])("refuses %j", (text, line, message) => {
    const error = failure(text);
    expect(error.code).toBe("HEADER");
    expect(error.message).toContain(`1_a.up.sql:${line}: `);
    expect(error.message).toContain(message);
    expect(error.hint).not.toBeUndefined();
    expect(error.fields).toEqual({ migration: "1_a.up.sql", line });
  });
});
