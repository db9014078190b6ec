import { describe, expect, test } from "vitest";
import { httpLimits } from "../../src/http/limits.ts";
import { parseIdempotencyKey, parsePrefer } from "../../src/http/prefer.ts";
import { parseIsoDuration } from "../../src/http/run-request.ts";

describe("Prefer", () => {
  test.for<[string | undefined, number, string | undefined]>([
    [undefined, 25_000, undefined],
    ["", 25_000, undefined],
    ["return=minimal", 25_000, undefined],
    ["respond-async", 0, "respond-async"],
    ["wait=10", 10_000, "wait=10"],
    ["Wait=10", 10_000, "wait=10"],
    ['wait="10"', 10_000, "wait=10"],
    ["wait = 10", 10_000, "wait=10"],
    ["wait=0", 0, "wait=0"],
    ["respond-async, wait=10", 10_000, "wait=10, respond-async"],
    ["wait=10; foo=bar, respond-async", 10_000, "wait=10, respond-async"],
    ["wait=10, wait=20", 10_000, "wait=10"],
    ["wait=3600", 55_000, "wait=55"],
    ["wait=-1", 25_000, undefined],
    ["wait=ten", 25_000, undefined],
    ["wait=1e3", 25_000, undefined],
  ])("%j waits %i ms", ([header, waitMs, applied]) => {
    expect(parsePrefer(header, httpLimits)).toEqual({ waitMs, applied });
  });
});

describe("Idempotency-Key", () => {
  test("is taken with and without the quotes of a structured field", () => {
    expect(parseIdempotencyKey(undefined)).toBeNull();
    expect(parseIdempotencyKey("8e03978e-40d5-43dd-bc93-6894a57f9324")).toBe(
      "8e03978e-40d5-43dd-bc93-6894a57f9324",
    );
    expect(parseIdempotencyKey('"a"')).toBe("a");
  });
});

describe("a deadline", () => {
  test.for<[string, number | undefined]>([
    ["PT10M", 600_000],
    ["PT90S", 90_000],
    ["PT1H30M", 5_400_000],
    ["P1D", 86_400_000],
    ["PT24H", 86_400_000],
    ["PT24H1S", undefined],
    ["PT0S", undefined],
    ["P", undefined],
    ["PT", undefined],
    ["P1DT", undefined],
    ["10M", undefined],
    ["PT1.5H", undefined],
    ["pt10m", undefined],
    ["P1M", undefined],
  ])("%s is %j ms", ([text, ms]) => {
    expect(parseIsoDuration(text)).toBe(ms);
  });
});
