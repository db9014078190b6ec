import { describe, expect, test } from "vitest";
import { createWorld } from "./world.ts";

const users = { "1_users.up.sql": "create table users (id int primary key);", "1_users.down.sql": "drop table users;" };
const orders = { "2_orders.up.sql": "create table orders (id int primary key);", "2_orders.down.sql": "drop table orders;" };

describe("POST /v1/runs", () => {
  test("applies a release and answers when it has ended", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { status, body, headers } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest }, labels: { commit: "3f2a9b1" } },
    });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body).toMatchObject({
      target: "orders",
      action: "apply",
      status: "succeeded",
      done: true,
      outcome: "applied",
      release: { digest, version: 1 },
      from: null,
      to: "2",
      progress: { applied: 2, total: 2, current: null, message: "2/2 applied, the database is at 2" },
      trigger: { kind: "http", actor: "ci", rule: "admin" },
      labels: { commit: "3f2a9b1" },
      error: null,
    });
    expect(body.id).toMatch(/^orders\.[0-9A-HJKMNP-TV-Z]{26}$/);
    expect(body.links.self).toBe(`https://migrate.test/base/v1/runs/${body.id}`);
    expect(headers.get("cache-control")).toBe("no-store");
    await expect(world.database.query("select * from users, orders")).resolves.toEqual([]);
  });
});
