import { expect, test } from "vitest";
import { RateLimit } from "../../../src/http/auth/rate-limit.ts";

const at = (seconds: number): Date => new Date(1_800_000_000_000 + seconds * 1000);

test("lets as many requests through as an hour has, then says when the next one is there", () => {
  const limit = new RateLimit();
  expect([1, 2, 3].map(() => limit.take("a", 3, at(0)))).toEqual([0, 0, 0]);
  expect(limit.take("a", 3, at(0))).toBe(1200);
  expect(limit.take("a", 3, at(600))).toBe(600);
  expect(limit.take("a", 3, at(1200))).toBe(0);
  expect(limit.take("a", 3, at(1200))).toBe(1200);
});

test("counts callers apart, and gives a rested one no more than an hour's worth", () => {
  const limit = new RateLimit();
  expect(limit.take("a", 1, at(0))).toBe(0);
  expect(limit.take("b", 1, at(0))).toBe(0);
  expect(limit.take("a", 1, at(100 * 3600))).toBe(0);
  expect(limit.take("a", 1, at(100 * 3600))).toBe(3600);
});

test("a clock that goes back gives nothing away", () => {
  const limit = new RateLimit();
  limit.take("a", 1, at(3600));
  expect(limit.take("a", 1, at(0))).toBe(7200);
});
