import { describe, expect, test } from "vitest";

import type { Driver } from "../../src/driver/driver.ts";
import { questionsBy } from "../../src/driver/questions.ts";
import { RunnerError } from "../../src/error.ts";
import type { ReleaseProvider } from "../../src/release/release.ts";
import { awaitReady } from "../../src/status/await-ready.ts";
import { createDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";
import { openTarget, tableMigrations } from "../support/target.ts";

/** A target whose bucket fails with these codes, one after the other, before it answers. */
async function makeTarget(...faults: readonly ("SOURCE_DENIED" | "SOURCE_UNAVAILABLE" | "SCHEMA")[]) {
  const database = await createDatabase();
  const { driver, stream, releases } = await openTarget(database.url, tableMigrations(1));
  const left = [...faults];
  const told: string[] = [];
  const head: ReleaseProvider["head"] = (signal) => {
    const code = left.shift();
    return code === undefined ? releases.head(signal) : Promise.reject(new RunnerError(code, code));
  };
  const ask = (release: string | undefined, timeoutMs = 60_000) =>
    awaitReady({ driver, stream, releases: { ...releases, head } }, release, {
      timeoutMs,
      pollMs: 10,
      signal: never,
      onWaiting: ({ code }) => told.push(code),
    });
  return { ask, told, left };
}

const pinned = `sha256:${"0".repeat(64)}`;

describe("waiting for a target to answer", () => {
  test.for([undefined, pinned])(
    "outlasts a bucket that is away, and a pod's identity that is not there yet (release %s)",
    async (release) => {
      const { ask, told, left } = await makeTarget("SOURCE_DENIED", "SOURCE_UNAVAILABLE", "SOURCE_DENIED");
      expect(await ask(release)).toMatchObject({ state: { exists: false } });
      expect(told).toEqual(["SOURCE_DENIED", "SOURCE_UNAVAILABLE", "SOURCE_DENIED"]);
      expect(left).toEqual([]);
    },
  );

  test("tells a refusal at once where it may not wait, and a head that makes no sense always", async () => {
    await expect((await makeTarget("SOURCE_DENIED")).ask(undefined, 0)).rejects.toMatchObject({
      code: "SOURCE_DENIED",
    });
    const { ask, told } = await makeTarget("SCHEMA");
    await expect(ask(undefined)).rejects.toMatchObject({ code: "SCHEMA" });
    expect(told).toEqual([]);
  });

  test.for([undefined, pinned])(
    "says of a bucket that never answers that it is the bucket, and ends with the deadline (release %s)",
    async (release) => {
      const { driver, stream, releases } = await openTarget((await createDatabase()).url, tableMigrations(1));
      const head: ReleaseProvider["head"] = (signal) =>
        new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("aborted"))));
      const target = { driver, stream, releases: { ...releases, url: "s3://releases/orders", head } };
      const began = performance.now();
      const asked = { timeoutMs: 0, pollMs: 10, deadlineMs: 1, signal: never, onWaiting: () => undefined };
      await expect(awaitReady(target, release, asked)).rejects.toMatchObject({
        code: "SOURCE_UNAVAILABLE",
        message: "s3://releases/orders does not answer",
      });
      expect(performance.now() - began).toBeLessThan(20_000);
    },
  );

  test("asks database and bucket at once, and the bucket no more while only the database is away", async () => {
    const { driver, stream, releases } = await openTarget((await createDatabase()).url, tableMigrations(1));
    const asked: string[] = [];
    const state: Driver["state"] = (...given) => {
      asked.push("database");
      if (asked.length < 5)
        return Promise.reject(new RunnerError("DATABASE_UNAVAILABLE", `away ${asked.length}`));
      return driver.state(...given);
    };
    const head: ReleaseProvider["head"] = (signal) => {
      asked.push("bucket");
      return releases.head(signal);
    };
    const away = {
      ...questionsBy((question) => question(driver)),
      url: driver.url,
      close: driver.close,
      state,
    };
    const target = { driver: away, stream, releases: { ...releases, head } };
    const options = { timeoutMs: 60_000, pollMs: 10, signal: never, onWaiting: () => undefined };
    expect(await awaitReady(target, undefined, options)).toMatchObject({ state: { exists: false } });
    expect(asked).toEqual(["bucket", "database", "database", "database", "database", "bucket"]);
  });

  test("needs no head for a release that is named", async () => {
    expect(await (await makeTarget("SCHEMA")).ask(pinned)).toMatchObject({ newest: undefined });
    expect(await (await makeTarget("SOURCE_DENIED")).ask(pinned, 0)).toMatchObject({ newest: undefined });
  });
});
