import { expect, describe, test } from "vitest";
import { baseline } from "../../src/maintenance.ts";
import { run, type Target } from "../../src/runner.ts";
import { createDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";
import { requestOf, signedStore, tableMigrations } from "../support/target.ts";

const options = { signal: never, emit: () => undefined, now: () => new Date() };
const declaration = {
  reason: "it was there",
  caller: { issuer: "os", subject: "tester", rule: null },
  trigger: "cli",
} as const;

/** The target as one that something happens to just before its lease is taken. */
function beforeLease(target: Target, act: () => Promise<void>): Target {
  const withLease = async (...asked: Parameters<Target["driver"]["withLease"]>): Promise<unknown> => {
    await act();
    return target.driver.withLease(...asked);
  };
  const driver = new Proxy(target.driver, {
    get(whole, name: keyof Target["driver"]) {
      if (name === "withLease") return withLease;
      const part = whole[name];
      return typeof part === "function" ? part.bind(whole) : part;
    },
  });
  return { ...target, driver };
}

describe("what is judged again under the lease", () => {
  test("is that an expired release begins nothing, also where another run has taken something back meanwhile", async () => {
    const { url } = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const other = await store.open(url);
    const first = await other.run();
    await store.publish(tableMigrations(2), ["default", "staging"]);
    const target = await store.open(url);
    const { driver, releases } = target;
    const expired: Target = {
      ...target,
      releases: {
        ...releases,
        fetch: async (context, signal) => ({
          ...(await releases.fetch(context, signal)),
          expires: new Date(0),
        }),
      },
    };
    const late = beforeLease(expired, async () => {
      const back = await other.run({
        action: "rollback",
        goal: { kind: "steps", direction: "down", count: 1 },
        release: first.release?.digest ?? null,
      });
      expect(back).toMatchObject({ outcome: "rolled_back", to: { version: "1" } });
    });
    expect(await run(requestOf(late), late, options)).toMatchObject({
      outcome: "refused",
      error: { code: "RELEASE_EXPIRED" },
    });
    expect((await driver.state("orders", never)).position.version).toBe("1");
  });

  test("is that a baseline is of no older release than another run has begun meanwhile", async () => {
    const { url } = await createDatabase();
    const store = await signedStore(tableMigrations(2));
    const other = await store.open(url);
    const late = beforeLease(await store.open(url), async () => {
      await store.publish(tableMigrations(3));
      expect(await other.run()).toMatchObject({ outcome: "applied" });
    });
    await expect(baseline("2", declaration, late, options)).rejects.toMatchObject({ code: "ROLLBACK" });
  });
});
