import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { countCodePoints, locate, locateUnit, unitIndex } from "../../src/migration/position.ts";

describe("locate", () => {
  test.each([
    ["", 0, 1, 1],
    ["abc", 0, 1, 1],
    ["abc", 2, 1, 3],
    ["abc", 99, 1, 4],
    ["a\nb", 1, 1, 2],
    ["a\nb", 2, 2, 1],
    ["a\r\nb", 3, 2, 1],
    ["a\r\n\r\nb", 5, 3, 1],
    ["a\rb", 2, 2, 1],
    ["a\n\rb", 3, 3, 1],
    ["é😀x\n😀y", 2, 1, 3],
    ["é😀x\n😀y", 5, 2, 2],
    ["\u{feff}SELECT", 1, 1, 2],
  ])("finds in %j the code point %i", (text, codePoint, line, column) => {
    expect(locate(text, codePoint)).toEqual({ line, column });
  });

  test("agrees with a text cut into lines", () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom("a", "é", "😀", "\n", "\r\n", " ")), fc.nat(40), (parts, at) => {
        const points = Array.from(parts.join(""));
        const index = Math.min(at, points.length);
        // between the two halves of a line break there is no place of its own
        fc.pre(points[index - 1] !== "\r");
        const lines = points
          .slice(0, index)
          .join("")
          .split(/\r\n|\n/);
        expect(locate(parts.join(""), index)).toEqual({
          line: lines.length,
          column: Array.from(lines.at(-1) ?? "").length + 1,
        });
      }),
    );
  });
});

describe("code points", () => {
  test("are counted and found again", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.nat(20), (text, at) => {
        const index = Math.min(at, Array.from(text).length);
        const unit = unitIndex(text, index);
        expect(countCodePoints(text, 0, unit)).toBe(index);
        expect(locateUnit(text, unit)).toEqual(locate(text, index));
      }),
    );
  });
});
