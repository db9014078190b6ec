import { describe, expect, test } from "vitest";
import { createWorld, users } from "./world.ts";

describe("a release with a program in it", () => {
  test("is refused by the server before it takes the lease, and shown all the same", async () => {
    const world = await createWorld();
    await world.bucket.publish({
      ...users,
      "2_code.up.ts": "export default async ({ sql }) => { await sql('create table made (id int)'); };",
    });
    const ask = (body: object) => world.send("POST", "/v1/runs", { body: { target: "orders", ...body } });
    const refused = await ask({ action: "apply" });
    expect(refused).toMatchObject({ status: 422, body: { code: "CODE_REFUSED", retryable: false } });
    expect(world.log.map(({ event }) => event)).not.toContain("lease.acquired");
    expect((await world.send("GET", `/v1/runs/${refused.body.run}`)).body).toMatchObject({
      outcome: "refused",
      attempt: 0,
      error: { fields: { migration: "2_code.up.ts" } },
    });
    expect((await ask({ action: "plan" })).body.plan.steps).toMatchObject([{}, { path: "2_code.up.ts" }]);
    expect((await ask({ action: "verify" })).body).toMatchObject({ outcome: "verified" });
    // What comes before it goes on.
    expect((await ask({ action: "apply", to: "1" })).body).toMatchObject({ outcome: "applied", to: "1" });
    expect(await world.database.query("select to_regclass('made') as there")).toEqual([{ there: null }]);
  });
});
