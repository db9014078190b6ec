import { describe, expect, test } from "vitest";
import { createWorld, openBarrier, orders, users } from "./world.ts";

const apply = { target: "orders", action: "apply" };
const later = { prefer: "respond-async" };

describe("GET /v1/runs/{id}", () => {
  test("answers 200 whatever became of the run", async () => {
    const world = await createWorld();
    await world.bucket.publish({ "1_bad.up.sql": "select * from absent;" });
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const { status, body } = await world.send("GET", `/v1/runs/${run.id}`);
    expect([status, body.status, body.error.code]).toEqual([200, "failed", "MIGRATION_FAILED"]);
    expect(body.progress.message).toMatch(/^failed: /);
  });

  test("answers 304 to a caller who has seen this state", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const etag = (await world.send("GET", `/v1/runs/${run.id}`)).headers.get("etag") ?? "";
    expect(etag).toMatch(/^"[0-9a-f]{32}"$/);
    const again = await world.send("GET", `/v1/runs/${run.id}`, { headers: { "if-none-match": etag } });
    expect([again.status, again.text]).toEqual([304, ""]);
  });

  test("waits for the end as long as it is told, at most", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply, headers: later });
    const open = await world.send("GET", `/v1/runs/${run.id}?wait=1`);
    expect([open.status, open.body.done, open.headers.get("retry-after")]).toEqual([200, false, "3"]);
    const waiting = world.send("GET", `/v1/runs/${run.id}?wait=55`);
    await barrier.release();
    expect((await waiting).body).toMatchObject({ done: true, status: "succeeded" });
    for (const wait of ["-1", "x", "1.5", ""]) {
      expect((await world.send("GET", `/v1/runs/${run.id}?wait=${wait}`)).status).toBe(400);
    }
  });

  test("stops waiting when the server stops", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply, headers: later });
    await barrier.reached();
    const waiting = world.send("GET", `/v1/runs/${run.id}?wait=55`);
    world.stop();
    expect((await waiting).status).toBe(200);
    await barrier.release();
  });

  test("is refused for now when too many callers wait", async () => {
    const world = await createWorld({ limits: { watchers: 1 } });
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply, headers: later });
    // Whichever comes first waits for the run, and so it is the other one that is answered first.
    const both = [1, 2].map(() => world.send("GET", `/v1/runs/${run.id}?wait=55`));
    expect((await Promise.race(both)).status).toBe(429);
    await barrier.release();
    expect((await Promise.all(both)).map(({ status }) => status)).toContain(200);
    expect((await world.send("GET", `/v1/runs/${run.id}`)).status).toBe(200);
  });
});

describe("a caller who only looks", () => {
  test("cannot take every place that there is to wait, nor keep anybody from a look that waits for nothing", async () => {
    const world = await createWorld({ limits: { watchers: 3, watchersPerCaller: 2 } });
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply, headers: later });
    const left = new AbortController();
    const stream = async (claims: object): Promise<number> => {
      const headers = { authorization: `Bearer ${await world.token({ ...claims })}` };
      const init = { headers, signal: left.signal };
      return (await world.app.hono.request(`/v1/runs/${run.id}/events`, init)).status;
    };
    const greedy = { role: "viewer", sub: "greedy" };
    expect([await stream(greedy), await stream(greedy), await stream(greedy)]).toEqual([200, 200, 429]);
    const other = { role: "viewer", sub: "other" };
    expect([await stream(other), await stream(other)]).toEqual([200, 429]);
    for (const path of [`/v1/runs/${run.id}`, `/v1/runs/${run.id}/gate`])
      expect([200, 202]).toContain((await world.send("GET", path)).status);
    expect((await world.send("GET", `/v1/runs/${run.id}?wait=1`)).status).toBe(429);
    left.abort();
    await barrier.release();
  });
});

describe("GET /v1/runs", () => {
  test("gives runs newest first, page by page", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const ids: string[] = [];
    for (const _ of [1, 2, 3, 4, 5])
      ids.unshift((await world.send("POST", "/v1/runs", { body: apply })).body.id);
    const found: string[] = [];
    let path: string | undefined = "/v1/runs?target=orders&pageSize=2";
    for (let pages = 0; path !== undefined && pages < 5; pages++) {
      const { body, headers } = await world.send("GET", path);
      found.push(...body.runs.map(({ id }: { id: string }) => id));
      const next: string | undefined = /^<(.+)>; rel="next"$/.exec(headers.get("link") ?? "")?.[1];
      expect(next === undefined).toBe(body.nextPageToken === null);
      path = next?.replace("https://migrate.test/base", "");
    }
    expect(found).toEqual(ids);
  });

  test("can be narrowed by status and time", async () => {
    const world = await createWorld();
    await world.bucket.publish({ "1_bad.up.sql": "select * from absent;" });
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const count = async (query: string): Promise<number> =>
      (await world.send("GET", `/v1/runs?target=orders&${query}`)).body.runs.length;
    expect(await count("status=failed")).toBe(1);
    expect(await count("status=succeeded")).toBe(0);
    expect(await count(`since=${run.createdAt}`)).toBe(1);
    expect(await count("since=2100-01-01T00:00:00Z")).toBe(0);
  });

  test("needs a target and takes no wrong values", async () => {
    const world = await createWorld();
    for (const query of [
      "",
      "?target=orders&status=lost",
      "?target=orders&pageSize=0",
      "?target=orders&pageSize=101",
      "?target=orders&since=yesterday",
    ]) {
      const { status, body } = await world.send("GET", `/v1/runs${query}`);
      expect([query, status, body.code]).toEqual([query, 400, "INVALID_REQUEST"]);
    }
  });

  test("is empty before anything ran, also before our tables are there", async () => {
    const world = await createWorld();
    expect((await world.send("GET", "/v1/runs?target=orders")).body).toEqual({
      runs: [],
      nextPageToken: null,
    });
  });
});

describe("POST /v1/runs/{id}/cancel", () => {
  test("stops a run of this process, which says what is left", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish({ ...barrier.migration, ...orders });
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply, headers: later });
    await barrier.reached();
    const { status, body } = await world.send("POST", `/v1/runs/${run.id}/cancel`, {
      body: { reason: "wrong release" },
    });
    expect([status, body.status, body.cancelRequested]).toEqual([202, "canceling", true]);
    const ended = await world.send("GET", `/v1/runs/${run.id}?wait=55`);
    expect(ended.body).toMatchObject({ status: "canceled", done: true, error: { code: "CANCELED" } });
    const gate = await world.send("GET", `/v1/runs/${run.id}/gate`);
    expect([gate.status, gate.body.code]).toEqual([409, "CANCELED"]);
    await barrier.release();
    await expect(
      world.database.query("select to_regclass('behind') as b, to_regclass('orders') as o"),
    ).resolves.toEqual([{ b: null, o: null }]);
  });

  test("needs no reason, and refuses one with control characters", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const strange = await world.send("POST", `/v1/runs/${run.id}/cancel`, { body: { reason: "a\nb" } });
    expect(strange.status).toBe(400);
    const ended = await world.send("POST", `/v1/runs/${run.id}/cancel`, { body: {} });
    expect([ended.status, ended.body.code]).toEqual([409, "RUN_ENDED"]);
    expect(ended.body.links.run).toContain(run.id);
  });

  test("of a run that is not there is 404", async () => {
    const world = await createWorld();
    const { status, body } = await world.send("POST", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV/cancel", {
      body: {},
    });
    expect([status, body.code]).toEqual([404, "UNKNOWN_RUN"]);
  });
});

describe("two servers on one database", () => {
  test("a run posted to one is watched and canceled through the other", async () => {
    const one = await createWorld();
    const two = await one.replica();
    const barrier = await openBarrier(one);
    await one.bucket.publish({ ...barrier.migration, ...orders });
    const { body: run } = await one.send("POST", "/v1/runs", { body: apply, headers: later });
    await barrier.reached();
    expect((await two.send("GET", `/v1/runs/${run.id}`)).body).toMatchObject({
      status: "running",
      progress: { applied: 0, total: 2 },
    });
    const watching = two.send("GET", `/v1/runs/${run.id}?wait=55`);
    const events = two.send("GET", `/v1/runs/${run.id}/events`);
    const { status } = await two.send("POST", `/v1/runs/${run.id}/cancel`, {
      body: { reason: "from the other" },
    });
    expect(status).toBe(202);
    expect((await watching).body).toMatchObject({ status: "canceled", error: { code: "CANCELED" } });
    expect((await events).text).toContain("event: run.done");
    await barrier.release();
  });

  test("a token used on one is known to the other", async () => {
    const one = await createWorld();
    const two = await one.replica();
    await one.bucket.publish(users);
    const token = await one.token();
    const first = await one.send("POST", "/v1/runs", { body: apply, token });
    expect((await two.send("POST", "/v1/runs", { body: apply, token })).body.id).toBe(first.body.id);
    const other = await two.send("POST", "/v1/runs", { body: { ...apply, to: "1" }, token });
    expect([other.status, other.body.code]).toEqual([409, "REPLAY"]);
  });

  test("both asked for the same release apply it once", async () => {
    const one = await createWorld();
    const two = await one.replica();
    const digest = await one.bucket.publish({ ...users, ...orders });
    const answers = await Promise.all(
      [one, two].map((world) => world.send("POST", "/v1/runs", { body: { ...apply, release: { digest } } })),
    );
    expect(answers.map(({ body }) => String(body.outcome)).toSorted()).toEqual(["applied", "noop"]);
  });
});
