import { describe, expect, test } from "vitest";
import { parseDuration } from "../../src/migration/duration.ts";

describe("parseDuration", () => {
  test.each([
    ["0", 0],
    ["0s", 0],
    ["500ms", 500],
    ["2s", 2_000],
    ["10m", 600_000],
    ["1h", 3_600_000],
    ["2147483647ms", 2 ** 31 - 1],
    ["596h", 2_145_600_000],
  ])("reads %s", (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  test.each([
    "",
    "5",
    "00",
    "1.5s",
    "-1s",
    "+1s",
    "1 s",
    "1S",
    "1d",
    "1h30m",
    "s",
    "1e3ms",
    "2147483648ms",
    "597h",
    "9".repeat(400) + "s",
    "1s\n",
  ])("does not read %j", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });
});
