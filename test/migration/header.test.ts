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
    [
      "-- lockkeeper: backfill table=orders key=id\nUPDATE",
      { backfill: { table: "orders", key: ["id"], batch: 1_000, pauseMs: 0, throttle: undefined } },
    ],
    [
      '-- lockkeeper: backfill table="My ""app""".Orders key=tenant,"the id" batch=100000 pause=50ms tx=none\n-- lockkeeper:\tthrottle SELECT a > \'x;\' -- why ; \r\nUPDATE',
      {
        tx: "none",
        backfill: {
          table: '"My ""app""".Orders',
          key: ["tenant", '"the id"'],
          batch: 100_000,
          pauseMs: 50,
          throttle: "SELECT a > 'x;' -- why",
        },
      },
    ],
    ["-- lockkeeper backfills nothing here, and throttle is a word\nSELECT 1", {}],
    ["SELECT '-- lockkeeper: tx=none'", {}],
    ["SELECT 1; -- see lockkeeper: a tool", {}],
  ])("reads %j", (text, header) => {
    expect(parseHeader(text, "1_a.up.sql")).toEqual(header);
  });

  test.each([
    ["-- lockkeeper: txx=none", 1, 'unknown key "txx"'],
    ["-- c\n-- lockkeeper: backfill table=orders", 2, '"backfill" in the lockkeeper header without "key"'],
    ["-- lockkeeper: backfill key=id", 1, '"backfill" in the lockkeeper header without "table"'],
    ["-- lockkeeper: table=orders key=id", 1, '"table" in the lockkeeper header without "backfill"'],
    ["-- lockkeeper: throttle SELECT true", 1, '"throttle" in the lockkeeper header without "backfill"'],
    [
      "-- lockkeeper: backfill table=a key=id throttle",
      1,
      '"throttle" in the lockkeeper header is not key=value',
    ],
    ["-- lockkeeper: backfill table=a key=id\n-- lockkeeper: throttle ;", 2, "throttle without a query"],
    ["-- lockkeeper: backfill table=a key=id\n-- lockkeeper: tx=one", 2, 'a backfill with "tx=one"'],
    ["-- lockkeeper: backfill backfill", 1, '"backfill" is given twice'],
    ["-- lockkeeper: table=a.b.c", 1, '"a.b.c" is no value for "table"'],
    ['-- lockkeeper: table="a', 1, '"" is no value for "table"'],
    ['-- lockkeeper: table=""', 1, 'is no value for "table"'],
    ["-- lockkeeper: key=id,", 1, '"id," is no value for "key"'],
    ['-- lockkeeper: key=Id,"id"', 1, 'is no value for "key"'],
    ["-- lockkeeper: batch=0", 1, '"0" is no value for "batch"'],
    ["-- lockkeeper: batch=100001", 1, '"100001" is no value for "batch"'],
    ["-- lockkeeper: batch=1e3", 1, '"1e3" is no value for "batch"'],
    ["-- lockkeeper: pause=1", 1, '"1" is no value for "pause"'],
    ["-- Lockkeeper: backfill table=a key=id\nUPDATE", 1, "not quite"],
    ["-- LOCKKEEPER throttle select true\nUPDATE", 1, "not quite"],
    ["UPDATE a;\n-- lockkeeper: backfill table=a key=id", 2, "after the first statement"],
    ["UPDATE a;\n-- lockkeeper: throttle SELECT true", 2, "after the first statement"],
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
