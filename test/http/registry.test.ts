import { describe, expect, test } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { createDatabase } from "../support/database.ts";
import { openTarget, tableMigrations } from "../support/target.ts";
import { createWorld, orders, users, type World } from "./world.ts";

const registry = {
  ".migration-registry.yaml": `
service: orders
database: orders
migrations:
  - { version: 1, dependencies: [{ service: billing, min-version: 2 }] }
  - { version: 2, breaking: true, description: readers of the old table stop }
`,
};
const ask = { target: "orders", action: "apply" } as const;

/** A server whose target knows the database of `billing`, and that database's own target. */
async function worldBesideBilling(dependencies: "wait" | "refuse") {
  const database = await createDatabase();
  const billing = await openTarget(database.url, tableMigrations(2));
  const world = await createWorld({
    target: {
      dependencies,
      openService: async () => {
        const driver = await openDriver(database.url);
        const stream = billing.stream;
        return { target: "billing-prod", stream, driver, [Symbol.asyncDispose]: () => driver.close() };
      },
    },
  });
  await world.bucket.publish({ ...users, ...orders, ...registry });
  return { world, billing };
}

const post = async (world: World, more: object) =>
  world.send("POST", "/v1/runs", { body: { ...ask, ...more } });

describe("a release with a registry", () => {
  test("is refused until what it depends on is there, and until the request allows what it breaks", async () => {
    const { world, billing } = await worldBesideBilling("refuse");
    const allow = ["breaking"];
    const early = await post(world, { allow });
    expect(early).toMatchObject({ status: 409, body: { code: "DEPENDENCY", retryable: true } });
    expect((await world.send("GET", `/v1/runs/${early.body.run}`)).body).toMatchObject({
      status: "failed",
      outcome: "refused",
      error: { fields: { service: "billing", expected: "2", actual: null } },
    });
    await billing.run();
    expect(await post(world, {})).toMatchObject({
      status: 409,
      body: { code: "BREAKING_REFUSED", retryable: false },
    });
    expect((await post(world, { allow })).body).toMatchObject({ outcome: "applied", to: "2" });
  });

  test("shows in the plan what breaks and what is needed", async () => {
    const { world } = await worldBesideBilling("refuse");
    const { body } = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "plan" } });
    expect(body.plan.steps).toMatchObject([
      { version: "1", breaking: false, dependencies: [{ service: "billing", minVersion: "2" }] },
      { version: "2", breaking: true, dependencies: [] },
    ]);
  });

  test("waits where the target says so, and a caller can cancel that", { timeout: 60_000 }, async () => {
    const { world, billing } = await worldBesideBilling("wait");
    const begin = () =>
      world.send("POST", "/v1/runs", {
        body: { ...ask, allow: ["breaking"] },
        headers: { prefer: "respond-async" },
      });
    const waits = (): number => world.log.filter(({ event }) => event === "dependency.waiting").length;
    const first = await begin();
    await expect.poll(waits, { timeout: 30_000 }).toBe(1);
    await world.send("POST", `/v1/runs/${first.body.id}/cancel`, { body: {} });
    await expect
      .poll(async () => (await world.send("GET", `/v1/runs/${first.body.id}`)).body.status, {
        timeout: 30_000,
      })
      .toBe("canceled");
    const second = await begin();
    await expect.poll(waits, { timeout: 30_000 }).toBe(2);
    await billing.run();
    const ended = await world.send("GET", `/v1/runs/${second.body.id}?wait=50`);
    expect(ended.body).toMatchObject({ status: "succeeded", outcome: "applied" });
  });

  test("is asked for by a closed list of what may be allowed, and only to apply", async () => {
    const world = await createWorld();
    for (const more of [
      { allow: "breaking" },
      { allow: ["everything"] },
      { allow: ["breaking", "breaking"] },
      { allow: { breaking: true } },
      { action: "rollback", to: "0", allow: ["breaking"] },
      { action: "plan", allow: ["breaking"] },
      { allowBreaking: true },
      { dependencies: "wait" },
    ]) {
      expect(await post(world, more)).toMatchObject({ status: 400, body: { code: "INVALID_REQUEST" } });
    }
  });
});
