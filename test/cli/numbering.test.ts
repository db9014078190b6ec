import { describe, expect, test } from "vitest";
import { nextSequence, nextTimestamp } from "../../src/cli/numbering.ts";

describe("the next sequence number", () => {
  test.for<[string, readonly string[], string]>([
    ["is 000001 in an empty folder", [], "000001"],
    ["follows the last file", ["000003_test.up.sql", "000004_test.up.sql"], "000005"],
    ["follows the highest number, not the last name", ["10_test.up.sql", "9_test.up.sql"], "000011"],
    ["follows numbers of other widths", ["1_a.up.sql", "02_b.up.sql"], "000003"],
    ["follows zero", ["0_test.up.sql"], "000001"],
    ["follows down files too", ["000007_test.down.sql"], "000008"],
    ["follows json files", ["000002_test.up.json"], "000003"],
    ["reaches six nines", ["999998_test.up.sql"], "999999"],
    ["does not look at files of other kinds", ["README.md", "atlas.sum", ".keep", "seed_data"], "000001"],
  ])("%s", ([, names, expected]) => {
    expect(nextSequence(names)).toBe(expected);
  });

  test.for<[string, readonly string[], string]>([
    ["a name without a version", ["bad.up.sql"], "NAME"],
    ["a name that begins with a word", ["bad_bad.up.sql"], "NAME"],
    ["a negative number", ["-5_test.up.sql"], "NAME"],
    ["a number of seven digits", ["999999_test.up.sql"], "USAGE"],
    ["timestamps", ["20261120101500_test.up.sql"], "USAGE"],
  ])("is refused after %s", ([, names, code]) => {
    expect(() => nextSequence(names)).toThrow(expect.objectContaining({ code }));
  });
});

describe("the next timestamp", () => {
  const now = new Date("2026-11-20T10:15:00.900Z");

  test.for<[string, readonly string[], string]>([
    ["is the UTC time in an empty folder", [], "20261120101500"],
    ["is the UTC time after older ones", ["20251231235959_a.up.sql"], "20261120101500"],
    ["is the UTC time after a sequence", ["000042_a.up.sql"], "20261120101500"],
    ["is a second later within the same second", ["20261120101500_a.up.sql"], "20261120101501"],
    [
      "is a second after one from the future, also over the end of a year",
      ["20271231235959_a.up.sql"],
      "20280101000000",
    ],
  ])("%s", ([, names, expected]) => {
    expect(nextTimestamp(names, now)).toBe(expected);
  });

  test("is refused after a version that is higher than any timestamp", () => {
    expect(() => nextTimestamp(["99999999999999_a.up.sql"], now)).toThrow(
      expect.objectContaining({ code: "USAGE" }),
    );
    expect(() => nextTimestamp(["202611201015000_a.up.sql"], now)).toThrow(
      expect.objectContaining({ code: "USAGE" }),
    );
  });
});
