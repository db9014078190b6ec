import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import { readCommand, readCommands } from "../../../src/migration/mongo/read-commands.ts";
import type { Value } from "../../../src/migration/mongo/value.ts";
import { commandWarnings } from "../../../src/migration/mongo/warnings.ts";

/*
 * `commands` and `refused` of each vector were written by golang-migrate's own decoder: bson.UnmarshalExtJSON(text,
 * true, &[]bson.D) of go.mongodb.org/mongo-driver v1.7.5, run over the texts with Go 1.26.8. `ours` stands where we
 * differ: what we read of a text that it refuses, or the code with which we refuse what it lets through to the server.
 */
const folder = path.join(import.meta.dirname, "../../vectors/format/golang-migrate-json");
const Commands = v.array(v.unknown());
const Vector = v.object({
  text: v.string(),
  commands: v.optional(Commands),
  refused: v.optional(v.string()),
  ours: v.optional(v.union([v.object({ commands: Commands }), v.object({ code: v.string() })])),
});
const files = readdirSync(folder).map((name) => ({
  name,
  vectors: v.parse(v.array(Vector), JSON.parse(readFileSync(path.join(folder, name), "utf8"))),
}));

/** A value as the vectors write it; doubles by their bits. */
function dump(value: Value): unknown {
  switch (value.kind) {
    case "document":
      return { document: value.entries.map(([key, inner]) => [key, dump(inner)]) };
    case "array":
      return value.items.map(dump);
    case "string":
    case "symbol":
    case "decimal128":
      return `${value.kind} ${value.text}`;
    case "boolean":
    case "int32":
    case "int64":
      return `${value.kind} ${value.value}`;
    case "double":
      return `double ${Number.isNaN(value.value) ? "NaN" : bitsOf(value.value)}`;
    case "objectId":
      return `objectId ${value.hex}`;
    case "date":
      return `date ${value.ms}`;
    case "binary":
      return `binary ${value.subType.toString(16).padStart(2, "0")} ${value.bytes.toString("hex")}`;
    case "regex":
      return `regex /${value.pattern}/${value.options}`;
    case "timestamp":
      return `timestamp ${value.seconds} ${value.increment}`;
    case "code":
      return value.scope === undefined
        ? `code ${value.text}`
        : { code: value.text, scope: dump(value.scope) };
    case "null":
    case "undefined":
    case "minKey":
    case "maxKey":
      return value.kind;
  }
}

function bitsOf(double: number): string {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleBE(double);
  return bytes.toString("hex");
}

function read(text: string) {
  return readCommands(Buffer.from(text), "1_a.up.json");
}

function failure(text: string): RunnerError {
  try {
    read(text);
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
  throw new Error(`nothing was refused of ${text}`);
}

describe("readCommands, beside golang-migrate's decoder", () => {
  test.each(files)("agrees on every text of $name", ({ vectors }) => {
    for (const { text, commands, refused, ours } of vectors) {
      if (ours !== undefined && "code" in ours) {
        expect(failure(text).code, text).toBe(ours.code);
      } else if (refused !== undefined && ours === undefined) {
        const error = failure(text);
        expect(error.code, text).toBe("COMMAND_SYNTAX");
        expect(error.message, text).toMatch(/^1_a\.up\.json:\d+:\d+: [^ ]/);
        expect(error.hint, text).toBeTypeOf("string");
      } else {
        const body = read(text);
        expect(body.commands.map(({ document }) => dump(document), text)).toEqual(ours?.commands ?? commands);
        expect(body.beyond !== undefined, text).toBe(refused !== undefined);
      }
    }
  });

  test("reads documents 198 deep, and refuses them 201 deep, as it does", () => {
    const nested = (depth: number): string => `[${'{"a":'.repeat(depth)}1${"}".repeat(depth)}]`;
    expect(read(nested(198)).commands).toHaveLength(1);
    expect(failure(nested(201))).toMatchObject({ code: "TOO_LARGE", fields: { line: 1, column: 1_002 } });
    expect(failure(`[{"a":${"[".repeat(100_000)}`).code).toBe("TOO_LARGE");
  });

  test("never fails otherwise than by its own errors, whatever the bytes", () => {
    const quoted = fc.constantFrom(
      '"a"',
      '"$date"',
      '"$oid"',
      '"$binary"',
      '"$code"',
      '"$lockkeeper"',
      '"tx"',
    );
    const piece = fc.oneof(
      fc.constantFrom("[", "]", "{", "}", ",", ":", '"', "\\", "\\u", " ", "\n", "é", "\u{feff}", "//"),
      fc.constantFrom("1", "-", "1.5", "e", "true", "null"),
      quoted,
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        try {
          const { commands } = read(`[${pieces.join("")}`);
          expect(commands.every(({ name }) => name !== "")).toBe(true);
        } catch (error) {
          expect(error).toBeInstanceOf(RunnerError);
        }
      }),
      { numRuns: 3_000 },
    );
  });
});

describe("readCommands", () => {
  test("says where each command stands, in bytes, and in which line", () => {
    const text = '\u{feff}[\r\n  {"insert": "é€", "documents": [\r\n  ]}, {"ping": 1}\n,\n\n{"drop": "😀"} ]';
    const bytes = Buffer.from(text);
    const { commands } = readCommands(bytes, "x");
    expect(
      commands.map(({ name, offset, length, line }) => ({
        name,
        line,
        text: bytes.toString("utf8", offset, offset + length),
      })),
    ).toEqual([
      { name: "insert", line: 2, text: '{"insert": "é€", "documents": [\r\n  ]}' },
      { name: "ping", line: 3, text: '{"ping": 1}' },
      { name: "drop", line: 6, text: '{"drop": "😀"}' },
    ]);
  });

  test.each([
    ['[\n  {"a": 1},\n  // why\n]', 3, 3, "a comment", "golang-migrate"],
    ['[{"a": ISODate("2021-01-01")}]', 1, 8, "a date as the shell writes it", "$numberLong"],
    ['[{"é": ObjectId("x")}]', 1, 8, "an ObjectId as the shell writes it", "$oid"],
    ["[{'a': 1}]", 1, 3, "single quotes", "double quotes"],
    ["[{a: 1}]", 1, 3, "a word without quotes", "not the shell's language"],
    ['[{"a": 1,}]', 1, 10, "nothing after the comma", "remove the comma"],
    ['[{"a": 1}\n{"b": 1}]', 2, 1, "a comma or ] was expected", "correct it"],
    ['[\n{"a": 1}', 1, 1, "the array that begins here has no end", "]"],
    ['[{"a": "x}]', 1, 8, "a string without its closing quote", "close it"],
    ['{"a": 1}', 1, 1, "a document in place of an array of commands", "[ and ]"],
    ['[{"a": {"$oid": "12"}}]', 1, 8, '"$oid"', "24 hex digits"],
    ['[{"a": {"$date": "yesterday"}}]', 1, 8, '"$date"', "2021-12-31T23:59:59Z"],
    ['[{"a": 01}]', 1, 8, "not a number", "leading zeros"],
    ["[null]", 1, 2, "null in place of a command", '{"ping": 1}'],
  ])("tells of %j where it is wrong, and what to write", (text, line, column, what, hint) => {
    const error = failure(text);
    expect(error).toMatchObject({
      code: "COMMAND_SYNTAX",
      fields: { migration: "1_a.up.json", line, column },
    });
    expect(error.message).toContain(`1_a.up.json:${line}:${column}: `);
    expect(error.message).toContain(what);
    expect(error.hint).toContain(hint);
  });

  test("refuses bytes that are no UTF-8", () => {
    expect(() => readCommands(Buffer.from([0x5b, 0xff, 0x5d]), "x")).toThrow(
      expect.objectContaining({ code: "ENCODING" }),
    );
  });

  test("reads 10,000 commands in the time of their length", () => {
    const one =
      '{"insert": "orders", "documents": [{"_id": {"$oid": "5ca4bbc7a2dd94ee5816238d"}, "é": "x"}]}';
    expect(read(`[${Array.from({ length: 10_000 }, () => one).join(",\n")}]`).commands.at(-1)).toMatchObject({
      line: 10_000,
      length: Buffer.byteLength(one),
    });
  });

  test("refuses more values than a body can hold", () => {
    expect(failure(`[{"a": [${"1,".repeat(2_100_000)}1]}]`).code).toBe("TOO_LARGE");
  });
});

describe("commandWarnings", () => {
  test.each([
    ['[{"a": 1}]', []],
    ["[{a: 1}]", []],
    [
      '[{"a":\n {"$date": 5}}]',
      [
        '1_a.up.json:2:2: golang-migrate would not take this file: a $date that is not written as {"$date": {"$numberLong": "…"}}',
      ],
    ],
    ['[{"a": 1}]\n[]', ["1_a.up.json:2:1: what follows the array's closing bracket is not read"]],
    [
      '[{"$lockkeeper": {}}, {"a": "\\ud800"}]',
      [
        "1_a.up.json:1:2: golang-migrate would not take this file: a lockkeeper header, which it would send as a command",
        "1_a.up.json:1:30: half of a surrogate pair, which is read as U+FFFD",
      ],
    ],
  ])("of %j", (text, warnings) => {
    expect(commandWarnings(Buffer.from(text), "1_a.up.json")).toEqual(warnings);
  });
});

describe("a header of commands", () => {
  test.each([
    ["{}", {}],
    ['{"tx": "one"}', { tx: "one" }],
    [
      '{"tx": "none", "lock_timeout": "2s", "statement_timeout": 0}',
      { tx: "none", lockTimeoutMs: 2_000, statementTimeoutMs: 0 },
    ],
    [
      '{"backfill": true, "table": "orders"}',
      { backfill: { table: "orders", key: ["_id"], batch: 1_000, pauseMs: 0, throttle: undefined } },
    ],
    [
      '{"throttle": {"find" : "load", "limit": 1 }, "backfill": true, "table": "o.x", "key": "_id", "batch": 50, "pause": "10ms"}',
      {
        backfill: {
          table: "o.x",
          key: ["_id"],
          batch: 50,
          pauseMs: 10,
          throttle: '{"find" : "load", "limit": 1 }',
        },
      },
    ],
  ])("reads %s", (header, expected) => {
    const body = read(`[\n{ "$lockkeeper": ${header} },\n{"ping": 1}]`);
    expect(body.header).toEqual(expected);
    expect(body.commands.map(({ name, line }) => ({ name, line }))).toEqual([{ name: "ping", line: 3 }]);
  });

  test.each([
    ['[{"$lockkeeper": 1}]', '"$lockkeeper" is no document'],
    ['[{"$lockkeeper": {"txx": "none"}}]', 'unknown key "txx"'],
    ['[{"$lockkeeper": {"tx": "none", "tx": "none"}}]', '"tx" is given twice'],
    ['[{"$lockkeeper": {"tx": true}}]', 'no value for "tx"'],
    ['[{"$lockkeeper": {"lock_timeout": "2"}}]', 'no value for "lock_timeout"'],
    ['[{"$lockkeeper": {"lock_timeout": 5}}]', 'no value for "lock_timeout"'],
    ['[{"$lockkeeper": {"backfill": false}}]', 'no value for "backfill"'],
    ['[{"$lockkeeper": {"backfill": true}}]', '"backfill" in the lockkeeper header without "table"'],
    ['[{"$lockkeeper": {"table": "orders"}}]', '"table" in the lockkeeper header without "backfill"'],
    ['[{"$lockkeeper": {"backfill": true, "table": "o", "key": "n"}}]', 'no value for "key"'],
    ['[{"$lockkeeper": {"backfill": true, "table": "system.users"}}]', 'no value for "table"'],
    ['[{"$lockkeeper": {"backfill": true, "table": "o", "batch": 100001}}]', 'no value for "batch"'],
    ['[{"$lockkeeper": {"backfill": true, "table": "o", "throttle": "x"}}]', 'no value for "throttle"'],
    ['[{"$lockkeeper": {"backfill": true, "table": "o", "tx": "one"}}]', 'a backfill with "tx": "one"'],
    ['[{"$lockkeeper": {}, "ping": 1}]', 'a key beside "$lockkeeper"'],
    ['[{"ping": 1}, {"$lockkeeper": {}}]', "a lockkeeper header after the first element"],
    ['[{"$lockkeeper": {}}, {"$lockkeeper": {}}]', "a lockkeeper header after the first element"],
  ])("%s is refused: %s", (text, what) => {
    const error = failure(text);
    expect(error.code).toBe("HEADER");
    expect(error.message).toMatch(/^1_a\.up\.json:1:\d+: /);
    expect(error.message).toContain(what);
    expect(error.hint).toBeTypeOf("string");
  });

  test("its throttle is read again as a command of its own", () => {
    expect(readCommand(' {"find": "load"}', "x")).toMatchObject({
      name: "find",
      offset: 1,
      length: 16,
      line: 1,
    });
  });
});
