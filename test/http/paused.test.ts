import { expect, test } from "vitest";
import { never, newRun } from "../support/steps.ts";
import { createWorld, users } from "./world.ts";

const apply = { target: "orders", action: "apply" };

test("a target that its configuration pauses takes no run, and nothing comes into its database; its status is answered", async () => {
  const world = await createWorld({ target: { isPaused: true } });
  await world.bucket.publish(users);
  const refused = await world.send("POST", "/v1/runs", { body: apply });
  expect(refused.status).toBe(409);
  expect(refused.body).toMatchObject({ code: "PAUSED", retryable: true });
  const status = await world.send("GET", "/v1/targets/orders");
  expect(status.body).toMatchObject({ paused: true, pending: { total: 1 } });
  expect(await world.database.query("select to_regclass('lockkeeper.runs') as runs")).toEqual([
    { runs: null },
  ]);
});

test("a server does not go on with a run that was left open on a target that is paused meanwhile", async () => {
  const world = await createWorld({ target: { isPaused: true } });
  const { driver } = world.target;
  const left = newRun({ id: "orders.01LEFT", target: "orders", order: { goal: { kind: "latest" } } });
  await driver.acceptRun(left, never);
  await world.database.query("update lockkeeper.runs set claimed_until = now() - interval '1 second'");
  await world.app.pickUp();
  expect(await driver.run(left.id, never)).toMatchObject({ status: "queued" });
  // It is there to be picked up.
  const picked = await driver.pickUpRuns({ target: "orders", own: [], limit: 5 }, never);
  expect(picked).toMatchObject([{ run: { id: left.id } }]);
});
