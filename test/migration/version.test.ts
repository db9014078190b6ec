import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compareVersions, isVersion, versionKey } from "../../src/migration/version.ts";

const digits = fc.stringMatching(/^[0-9]{1,30}$/);
/** Few digits, so that equal ones are met. */
const dotted = fc.stringMatching(/^[0-2]{1,3}(\.[0-2]{1,3}){0,3}$/);

function numbers(version: string): readonly bigint[] {
  return version.split(".").map(BigInt);
}

function compareLists(a: readonly bigint[], b: readonly bigint[]): number {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const [left, right] = [a[i] ?? 0n, b[i] ?? 0n];
    if (left !== right) return left < right ? -1 : 1;
  }
  return 0;
}

describe("compareVersions", () => {
  test.each([
    ["1", "2", -1],
    ["2", "10", -1],
    ["0", "1", -1],
    ["9", "0010", -1],
    ["20250411183443", "20250411201837", -1],
    ["18446744073709551615", "18446744073709551616", -1],
    ["1", "01", 0],
    ["000", "0", 0],
    ["7", "7", 0],
    ["100000000000000000000000000000000", "99999999999999999999999999999999", 1],
    ["1", "1.0", 0],
    ["1.0.0", "01", 0],
    ["0", "0.0", 0],
    ["1", "1.0.1", -1],
    ["1.9", "1.10", -1],
    ["1.1", "2", -1],
    ["1.02.3", "1.2.03", 0],
    ["20250411183443", "20250411183443.1", -1],
  ])("puts %s against %s", (a, b, expected) => {
    expect(Math.sign(compareVersions(a, b))).toBe(expected);
    expect(Math.sign(compareVersions(b, a))).toBe(expected === 0 ? 0 : -expected);
  });

  test("agrees with whole numbers of any length", () => {
    fc.assert(
      fc.property(digits, digits, (a, b) => {
        const expected = BigInt(a) < BigInt(b) ? -1 : BigInt(a) > BigInt(b) ? 1 : 0;
        expect(Math.sign(compareVersions(a, b))).toBe(expected);
      }),
    );
  });

  test("takes no notice of leading zeros", () => {
    fc.assert(
      fc.property(digits, fc.nat(10), (version, zeros) => {
        expect(compareVersions(version, "0".repeat(zeros) + version)).toBe(0);
      }),
    );
  });

  test("agrees with lists of whole numbers that go on with zeros", () => {
    fc.assert(
      fc.property(dotted, dotted, (a, b) => {
        expect(Math.sign(compareVersions(a, b))).toBe(compareLists(numbers(a), numbers(b)));
      }),
      { numRuns: 1_000 },
    );
  });

  test("puts any three versions into one order", () => {
    fc.assert(
      fc.property(dotted, dotted, dotted, (...versions) => {
        const [a = "", b = "", c = ""] = versions.toSorted(compareVersions);
        expect(compareVersions(a, b)).toBeLessThanOrEqual(0);
        expect(compareVersions(b, c)).toBeLessThanOrEqual(0);
        expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
      }),
    );
  });
});

describe("versionKey", () => {
  test.each([
    ["007", "7"],
    ["0", "0"],
    ["000", "0"],
    ["0.0", "0"],
    ["1.0", "1"],
    ["01.020.0", "1.20"],
    ["0.1", "0.1"],
  ])("writes %s as %s", (version, key) => {
    expect(versionKey(version)).toBe(key);
  });

  test("is equal exactly where two versions are the same", () => {
    fc.assert(
      fc.property(dotted, dotted, (a, b) => {
        expect(versionKey(a) === versionKey(b)).toBe(compareVersions(a, b) === 0);
        expect(compareVersions(versionKey(a), a)).toBe(0);
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("isVersion", () => {
  test.each(["0", "1", "1.0", "1.2.3", "0001", "20250411183443", "9".repeat(50)])("takes %s", (text) => {
    expect(isVersion(text)).toBe(true);
  });

  test.each(["", "-1", "+1", "1.", ".1", "1..2", "1.a", "1a", " 1", "1\n", "١", "0x1", "1_0"])(
    "does not take %j",
    (text) => {
      expect(isVersion(text)).toBe(false);
    },
  );
});
