import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compareVersions, isVersion } from "../../src/migration/version.ts";

const digits = fc.stringMatching(/^[0-9]{1,30}$/);

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
});

describe("isVersion", () => {
  test.each(["0", "1", "0001", "20250411183443", "9".repeat(50)])("takes %s", (text) => {
    expect(isVersion(text)).toBe(true);
  });

  test.each(["", "-1", "+1", "1.0", "1a", " 1", "1\n", "١", "0x1", "1_0"])("does not take %j", (text) => {
    expect(isVersion(text)).toBe(false);
  });
});
