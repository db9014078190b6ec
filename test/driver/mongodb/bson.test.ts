import { BSON } from "mongodb";
import { describe, expect, test } from "vitest";

import { toCommandDocument } from "../../../src/driver/mongodb/bson.ts";
import { readCommands } from "../../../src/migration/mongo/read-commands.ts";

/** Bytes of the one command of a body, as the driver sends them: it copies the top level, and serializes the copy. */
function bytesOf(text: string): Buffer {
  const [command] = readCommands(Buffer.from(`[${text}]`), "1_a.up.json").commands;
  if (command === undefined) throw new Error("no command");
  return Buffer.from(BSON.serialize({ ...toCommandDocument(command, "1_a.up.json") }));
}

/** Type and key of each element of a document, in order. */
function elementsOf(bytes: Buffer, start = 0): readonly string[] {
  const elements: string[] = [];
  for (let at = start + 4; bytes[at] !== 0;) {
    const end = bytes.indexOf(0, at + 1);
    elements.push(`${bytes[at]?.toString(16)} ${bytes.subarray(at + 1, end).toString()}`);
    at = end + 1 + sizeOf(bytes, bytes[at], end + 1);
  }
  return elements;
}

function sizeOf(bytes: Buffer, type: number | undefined, at: number): number {
  switch (type) {
    case 0x10:
      return 4;
    case 0x01:
    case 0x12:
      return 8;
    case 0x03:
    case 0x04:
      return bytes.readInt32LE(at);
    default:
      throw new Error(`type ${type} at ${at}`);
  }
}

describe("what the driver sends for a command", () => {
  test("has the keys of its documents in the file's order, numbers among them too", () => {
    const bytes = bytesOf('{"a": {"2": 1, "1": 2, "b": 3}}');
    expect(elementsOf(bytes)).toEqual(["3 a"]);
    expect(elementsOf(bytes, bytes.indexOf("a\0") + 2)).toEqual(["10 2", "10 1", "10 b"]);
  });

  test("has a key of an inner document as often as the file", () => {
    const bytes = bytesOf('{"a": {"x": 1, "y": 2, "x": 3}}');
    expect(elementsOf(bytes, bytes.indexOf("a\0") + 2)).toEqual(["10 x", "10 y", "10 x"]);
  });

  test("has numbers of the types that golang-migrate reads", () => {
    const bytes = bytesOf('{"a": 1, "b": 2147483648, "c": 1.0, "d": 1e3, "e": 9223372036854775808}');
    expect(elementsOf(bytes)).toEqual(["10 a", "12 b", "1 c", "1 d", "1 e"]);
    expect(BSON.deserialize(bytes, { promoteValues: false })["b"]).toEqual(
      BSON.Long.fromString("2147483648"),
    );
  });

  test("has every kind of value as it was written", () => {
    const text = String.raw`{"a": {"$oid": "507f1f77bcf86cd799439011"}, "b": {"$date": {"$numberLong": "-1"}},
      "c": {"$numberDecimal": "1.10"}, "d": {"$binary": {"base64": "aGk=", "subType": "05"}},
      "e": {"$regularExpression": {"pattern": "^a", "options": "im"}}, "f": {"$timestamp": {"t": 7, "i": 8}},
      "g": {"$minKey": 1}, "h": {"$maxKey": 1}, "i": {"$code": "1"}, "j": {"$code": "1", "$scope": {"2": 1, "1": 2}},
      "k": {"$symbol": "s"}, "l": null, "m": true, "n": ["x", {"y": 1}], "o": {"$numberLong": "9007199254740993"}}`;
    const bytes = bytesOf(text);
    expect(BSON.EJSON.stringify(BSON.deserialize(bytes, { promoteValues: false }), { relaxed: false })).toBe(
      JSON.stringify({
        a: { $oid: "507f1f77bcf86cd799439011" },
        b: { $date: { $numberLong: "-1" } },
        c: { $numberDecimal: "1.10" },
        d: { $binary: { base64: "aGk=", subType: "05" } },
        e: { $regularExpression: { pattern: "^a", options: "im" } },
        f: { $timestamp: { t: 7, i: 8 } },
        g: { $minKey: 1 },
        h: { $maxKey: 1 },
        i: { $code: "1" },
        j: { $code: "1", $scope: { 1: { $numberInt: "2" }, 2: { $numberInt: "1" } } },
        k: { $symbol: "s" },
        l: null,
        m: true,
        n: ["x", { y: { $numberInt: "1" } }],
        o: { $numberLong: "9007199254740993" },
      }),
    );
  });

  test.for([
    ['{"a": 1, "b": 2, "a": 3}', 'the field "a" is given twice'],
    ['{"a": 1, "7": 2}', 'the field "7" is a number'],
    ['{"a": {"b": [{"$undefined": true}]}}', "undefined"],
    ['{"a": {"$date": {"$numberLong": "9000000000000000000"}}}', "a date more than"],
  ] as const)("is refused with its line for %s", ([text, what]) => {
    expect(() => bytesOf(`\n${text}`)).toThrow(
      expect.objectContaining({
        code: "COMMAND_SYNTAX",
        message: expect.stringContaining(what) as string,
        fields: { migration: "1_a.up.json", line: 2 },
      }) as Error,
    );
  });
});
