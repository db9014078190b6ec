import { describe, expect, test } from "vitest";
import { nearest } from "../../src/cli/nearest.ts";

describe("the nearest name", () => {
  test.for<[string, readonly string[], string | undefined]>([
    ["upp", ["up", "unlock"], "up"],
    ["stauts", ["status", "history"], "status"],
    ["Status", ["status"], "status"],
    ["--lock-timout", ["--lock-timeout", "--wait"], "--lock-timeout"],
    ["lockTimout", ["wait", "lockTimeout"], "lockTimeout"],
    ["x", ["up", "down"], undefined],
    ["frobnicate", ["up", "down", "baseline"], undefined],
    ["", ["up"], undefined],
    ["a".repeat(100_000), ["up"], undefined],
  ])("to %s among %s is %s", ([written, names, expected]) => {
    expect(nearest(written, names)).toBe(expected);
  });
});
