import fc from "fast-check";
import { expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { delayMs, retryAfterMs, withRetries } from "../../src/source/retry.ts";
import { sourceLimits } from "../../src/source/source.ts";

const { signal } = new AbortController();
const hasty = { ...sourceLimits, backoffMs: 0, maxBackoffMs: 0 };

test("doubles the longest wait with each try, up to the ceiling, and jitters all of it", () => {
  const longest = [1, 2, 3, 4, 5, 6, 7].map((tries) => delayMs(tries, sourceLimits, undefined, 1));
  expect(longest).toEqual([100, 200, 400, 800, 1_600, 3_000, 3_000]);
  expect(delayMs(3, sourceLimits, undefined, 0.5)).toBe(200);
  expect(delayMs(3, sourceLimits, undefined, 0)).toBe(0);
});

test("never waits less than the store asked for, nor longer than a request may be silent", () => {
  const law = fc.property(
    fc.integer({ min: 1, max: 20 }),
    fc.nat(60_000),
    fc.double({ min: 0, max: 1, noNaN: true }),
    (tries, asked, random) => {
      const delay = delayMs(tries, sourceLimits, asked, random);
      return asked > sourceLimits.idleMs ? delay === undefined : delay !== undefined && delay >= asked;
    },
  );
  expect(fc.check(law)).toMatchObject({ failed: false });
});

test("reads Retry-After as seconds or as a date", () => {
  const now = new Date("2026-11-21T06:00:00Z");
  expect(retryAfterMs("7", now)).toBe(7_000);
  expect(retryAfterMs("Sat, 21 Nov 2026 06:00:02 GMT", now)).toBe(2_000);
  expect(retryAfterMs("Sat, 21 Nov 2026 05:00:00 GMT", now)).toBe(0);
  expect(retryAfterMs(undefined, now)).toBeUndefined();
  expect(retryAfterMs("soon", now)).toBeUndefined();
});

test("tries five times in production", async () => {
  let tries = 0;
  const fails = withRetries(hasty, signal, async () => {
    tries += 1;
    throw new RunnerError("SOURCE_UNAVAILABLE", "the store failed", { fields: { key: "a" }, cause: "why" });
  });
  await expect(fails).rejects.toMatchObject({
    message: "the store failed, tried 5 times",
    fields: { key: "a", attempts: 5 },
    cause: "why",
  });
  expect(tries).toBe(5);
});

test.for([
  "SOURCE_DENIED",
  "SOURCE_NOT_FOUND",
  "SOURCE_CHANGED",
  "SOURCE_UNSAFE",
  "SOURCE_REFUSED",
  "TOO_LARGE",
] as const)("does not try again after %s", async (code) => {
  let tries = 0;
  const error = new RunnerError(code, "no");
  const fails = withRetries(hasty, signal, async () => {
    tries += 1;
    throw error;
  });
  await expect(fails).rejects.toBe(error);
  expect(tries).toBe(1);
});

test("does not wait for a request that hears nothing of the signal", async () => {
  const controller = new AbortController();
  const deaf = withRetries(hasty, controller.signal, () => new Promise<never>(() => {}));
  controller.abort(new Error("enough"));
  await expect(deaf).rejects.toThrow("enough");
});
