import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { DatabaseAccess } from "../../../src/driver/access.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createMongoDatabase, ownMongo, withDatabase, type MongoServer } from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";
import { leaseOptions, never } from "../../support/steps.ts";

describe("a MongoDB URL that is kept elsewhere", () => {
  needs("secantusdb");
  let server: MongoServer;
  beforeAll(async () => {
    server = await ownMongo({ user: { name: "runner", password: "right" } });
  });

  async function kept(password: string) {
    const database = await createMongoDatabase({ server });
    const urlOf = (word: string): string => {
      const url = withDatabase(server.url, database.name);
      return url.replace("runner:right@", `runner:${word}@`);
    };
    const store = { now: urlOf(password), asked: 0 };
    let known: string | undefined;
    const access: DatabaseAccess = {
      engine: "mongodb",
      shown: "the database of secret orders",
      async url(refused) {
        if (refused !== undefined && refused === known) known = undefined;
        if (known === undefined) store.asked += 1;
        return (known ??= store.now);
      },
    };
    const driver = await openDriver(access);
    onTestFinished(() => driver.close());
    return { driver, store, urlOf };
  }

  test("is read with the first question, and again when the server refuses it, without its password in an error", async () => {
    const { driver, store, urlOf } = await kept("planted-wrong");
    expect([store.asked, driver.url]).toEqual([0, "the database of secret orders"]);
    const error: unknown = await driver.state("orders", never).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "DATABASE_DENIED" });
    expect(JSON.stringify(error) + String(error)).not.toContain("planted");
    expect(store.asked).toBe(2);
    store.now = urlOf("right");
    expect((await driver.state("orders", never)).exists).toBe(false);
    expect(store.asked).toBe(3);
    expect(driver.url).toMatch(/^mongodb:\/\/runner@127\.0\.0\.1:\d+\/test_/);
  });

  test("is no reason to do work twice that failed by itself", async () => {
    const { driver, store } = await kept("right");
    let worked = 0;
    const lease = driver.withLease(leaseOptions(), async () => {
      worked += 1;
      await Promise.reject(new Error("the work's own"));
    });
    await expect(lease).rejects.toThrow("the work's own");
    expect([worked, store.asked]).toEqual([1, 1]);
  });
});
