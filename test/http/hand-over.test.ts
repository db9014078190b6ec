import { describe, expect, test } from "vitest";
import { createWorld, openBarrier, orders, users, type World } from "./world.ts";

const apply = { target: "orders", action: "apply" };
const later = { prefer: "respond-async" };

/** Stops a server whose run is at the barrier; its statement is canceled as the server would itself after some seconds. */
async function stop(world: World): Promise<void> {
  world.stop();
  await world.database.query(
    "select pg_cancel_backend(pid) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'",
  );
  await world.app.active.drained();
}

/** A run whose server has stopped in the middle of it, and another server. */
async function handedOver(): Promise<{ one: World; two: World; runId: string; release(): Promise<void> }> {
  const one = await createWorld();
  const two = await one.replica();
  const barrier = await openBarrier(one);
  await one.bucket.publish({ ...barrier.migration, ...orders });
  const { body } = await one.send("POST", "/v1/runs", { body: apply, headers: later });
  await barrier.reached();
  await stop(one);
  return { one, two, runId: body.id, release: () => barrier.release() };
}

describe("a server that stops", () => {
  test("hands its run over: it is open, and another server ends it under the same id", async () => {
    const { one, two, runId, release } = await handedOver();
    const open = await one.send("GET", `/v1/runs/${runId}`);
    expect(open.body).toMatchObject({ status: "handing_over", done: false, outcome: null, attempt: 1 });
    expect(open.body.progress.message).toBe("0/2 applied, another server goes on with it");
    expect((await two.send("GET", `/v1/runs/${runId}/gate`)).status).toBe(202);
    expect((await two.send("GET", "/v1/runs?target=orders&status=handing_over")).body.runs).toHaveLength(1);

    const waiting = two.send("GET", `/v1/runs/${runId}?wait=50`);
    const events = two.send("GET", `/v1/runs/${runId}/events`);
    await release();
    await two.app.pickUp();
    expect((await waiting).body).toMatchObject({
      id: runId,
      status: "succeeded",
      outcome: "applied",
      attempt: 2,
      progress: { applied: 2, total: 2 },
      trigger: open.body.trigger,
    });
    expect((await events).text).toMatch(/event: run\.done\ndata: .*"status":"succeeded"/);
    expect(two.log).toContainEqual({
      level: "info",
      event: "run.continued",
      fields: { run: runId, target: "orders", attempt: 1 },
    });
  });

  test("and another that picks up at the same time: one end, and each migration once", async () => {
    const { one, two, runId, release } = await handedOver();
    const three = await one.replica();
    await release();
    await Promise.all([two.app.pickUp(), three.app.pickUp(), two.app.pickUp(), three.app.pickUp()]);
    expect((await three.send("GET", `/v1/runs/${runId}?wait=50`)).body).toMatchObject({
      status: "succeeded",
      attempt: 2,
    });
    await expect(one.database.query("select seq from lockkeeper.history order by id")).resolves.toEqual([
      { seq: 1 },
      { seq: 2 },
    ]);
    await Promise.all([two.app.active.drained(), three.app.active.drained()]);
  });

  test("before its run has begun hands it over as well", async () => {
    const one = await createWorld();
    const two = await one.replica();
    const barrier = await openBarrier(one);
    await one.bucket.publish({ ...barrier.migration, ...orders });
    await two.send("POST", "/v1/runs", { body: apply, headers: later });
    await barrier.reached();
    const { body: run } = await one.send("POST", "/v1/runs", { body: apply, headers: later });
    const status = async (): Promise<string> => (await two.send("GET", `/v1/runs/${run.id}`)).body.status;
    await expect.poll(status, { timeout: 20_000 }).toBe("waiting_lock");
    one.stop();
    await one.app.active.drained();
    expect(await status()).toBe("handing_over");
    await two.app.pickUp();
    await barrier.release();
    expect((await two.send("GET", `/v1/runs/${run.id}?wait=50`)).body).toMatchObject({
      status: "succeeded",
      outcome: "noop",
    });
  });

  test("leaves a run that can be canceled at once", async () => {
    const { two, runId, release } = await handedOver();
    const answer = await two.send("POST", `/v1/runs/${runId}/cancel`, { body: { reason: "not any more" } });
    expect([answer.status, answer.body.status, answer.body.error.code]).toEqual([
      202,
      "canceled",
      "CANCELED",
    ]);
    await two.app.pickUp();
    await release();
    const gate = await two.send("GET", `/v1/runs/${runId}/gate`);
    expect([gate.status, gate.body.code]).toEqual([409, "CANCELED"]);
    await expect(two.database.query("select from lockkeeper.history")).resolves.toEqual([]);
  });
});

test("a deadline in the request ends the run as canceled, with what is left", async () => {
  const world = await createWorld();
  const barrier = await openBarrier(world);
  await world.bucket.publish({ ...barrier.migration, ...orders });
  const { body } = await world.send("POST", "/v1/runs", { body: { ...apply, deadline: "PT5S" } });
  expect(body).toMatchObject({
    status: "canceled",
    done: true,
    outcome: null,
    progress: { applied: 0, total: 2, message: "canceled, 0/2 applied" },
    error: { code: "DEADLINE", retryable: true },
  });
  await barrier.release();
  await expect(world.database.query("select holder from lockkeeper.streams")).resolves.toEqual([
    { holder: null },
  ]);
});

describe("a server that died", () => {
  test("before it began a run leaves it to others once it has been silent", async () => {
    const one = await createWorld();
    const two = await one.replica();
    await one.bucket.publish(users);
    await two.send("POST", "/v1/runs", { body: apply });
    const { body: run } = await one.send("POST", "/v1/runs", { body: apply });
    // As it is when the process ended just after it had recorded the request.
    await one.database.query(
      `update lockkeeper.runs set status = 'queued', outcome = null, ended_at = null, attempt = 0 where id = '${String(run.id)}'`,
    );
    await two.app.pickUp();
    expect((await two.send("GET", `/v1/runs/${run.id}`)).body).toMatchObject({ status: "queued" });
    await one.database.query("update lockkeeper.runs set claimed_until = now() - interval '1 second'");
    await two.app.pickUp();
    expect((await two.send("GET", `/v1/runs/${run.id}?wait=50`)).body).toMatchObject({
      status: "succeeded",
      outcome: "noop",
    });
  });

  test("keeps nobody from a run of its own that waits long: what is renewed stays its own", async () => {
    const one = await createWorld();
    const two = await one.replica();
    const barrier = await openBarrier(one);
    await one.bucket.publish({ ...barrier.migration, ...orders });
    await two.send("POST", "/v1/runs", { body: apply, headers: later });
    await barrier.reached();
    const { body: run } = await one.send("POST", "/v1/runs", { body: apply, headers: later });
    await one.database.query("update lockkeeper.runs set claimed_until = now() - interval '1 second'");
    await one.app.pickUp();
    await two.app.pickUp();
    expect(two.log.filter(({ event }) => event === "run.continued")).toEqual([]);
    await barrier.release();
    expect((await one.send("GET", `/v1/runs/${run.id}?wait=50`)).body).toMatchObject({ status: "succeeded" });
  });
});

test("a database that cannot be asked keeps nobody from picking up, and is told", async () => {
  const world = await createWorld();
  await world.database.drop();
  await world.app.pickUp();
  expect(world.log).toContainEqual(expect.objectContaining({ level: "warn", event: "pickup.failed" }));
});

test("a target shows the release that failed and the hold of a rollback", async () => {
  const world = await createWorld();
  const digest = await world.bucket.publish({
    ...users,
    "2_late.up.sql": "insert into absent values (1);",
    "2_late.down.sql": "delete from absent;",
  });
  const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
  expect((await world.send("GET", "/v1/targets/orders")).body).toMatchObject({
    held: null,
    failed: { release: digest, run: run.id, error: { code: "MIGRATION_FAILED" } },
  });
  await world.database.query("create table absent (id int)");
  await world.send("POST", "/v1/runs", { body: apply });
  const { body: back } = await world.send("POST", "/v1/runs", {
    body: { ...apply, action: "rollback", to: "1" },
  });
  expect((await world.send("GET", "/v1/targets/orders")).body).toMatchObject({
    held: { run: back.id, version: "1", reason: "rolled back" },
    failed: null,
  });
});
