import { expect, test } from "vitest";
import { readRecord } from "../../src/audit/read.ts";
import { never, newRun } from "../support/steps.ts";
import { createWorld, users } from "./world.ts";

const apply = { target: "orders", action: "apply" };

test("a target that its configuration pauses takes no run, says so to its callers and in the audit log, and its status is answered", async () => {
  const world = await createWorld({ target: { isPaused: true } });
  const { driver } = world.target;
  await world.bucket.publish(users);
  const refused = await world.send("POST", "/v1/runs", { body: apply });
  expect(refused.status).toBe(409);
  expect(refused.body).toMatchObject({ code: "PAUSED", retryable: true });
  const status = await world.send("GET", "/v1/targets/orders");
  expect(status.body).toMatchObject({ paused: true, pending: { total: 1 } });
  expect(await driver.runs({ target: "orders", limit: 5 }, never)).toEqual([]);
  const codes = async (): Promise<readonly unknown[]> =>
    (await driver.audit.read({ after: 0, limit: 5 }, never)).map((entry) => readRecord(entry)?.code);
  await expect.poll(codes).toEqual(["PAUSED"]);
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
