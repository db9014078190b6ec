import { rm } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { createWorld, openBarrier, orders, users } from "./world.ts";

const apply = { target: "orders", action: "apply" };

describe("GET /v1/targets", () => {
  test("lists the targets that the caller may look at, without saying where they are", async () => {
    const world = await createWorld();
    const { body, text } = await world.send("GET", "/v1/targets", {
      token: await world.token({ role: "everywhere" }),
    });
    expect(body.targets).toEqual([
      {
        name: "orders",
        stream: "orders",
        environment: "default",
        links: {
          self: "https://migrate.test/base/v1/targets/orders",
          history: "https://migrate.test/base/v1/targets/orders/history",
          runs: "https://migrate.test/base/v1/runs?target=orders",
        },
      },
    ]);
    expect(text).not.toContain("postgres:");
    expect(text).not.toContain(world.bucket.path);
    expect(
      (await world.send("GET", "/v1/targets", { token: await world.token({ role: "billing" }) })).body
        .targets,
    ).toEqual([]);
    expect(
      (await world.send("GET", "/v1/targets", { token: await world.token({ role: "guest" }) })).status,
    ).toBe(403);
  });
});

describe("GET /v1/targets/{name}", () => {
  test("tells of a fresh database what is pending", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { status, body } = await world.send("GET", "/v1/targets/orders");
    expect(status).toBe(200);
    expect(body).toMatchObject({
      position: { version: null, length: 0, chain: null },
      completed: null,
      release: { digest, version: 1 },
      fresh: true,
      pending: {
        total: 2,
        next: [
          { version: "1", path: "1_users.up.sql" },
          { version: "2", path: "2_orders.up.sql" },
        ],
      },
      unfinished: null,
      needsAttention: false,
      held: null,
      paused: false,
      inStep: null,
      lease: null,
      lastRun: null,
      problem: null,
    });
  });

  test("tells where it stands after a run, and which run that was", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const { body } = await world.send("GET", "/v1/targets/orders");
    expect(body).toMatchObject({
      position: { version: "1", length: 1 },
      completed: digest,
      pending: { total: 0 },
      lastRun: { id: run.id },
    });
  });

  test("shows who is changing it, and the hold that a rollback leaves", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "respond-async" },
    });
    await barrier.reached();
    expect((await world.send("GET", "/v1/targets/orders")).body.lease).toMatchObject({ run: run.id });
    await barrier.release();
    await world.send("GET", `/v1/runs/${run.id}?wait=55`);
    const { body: rollback } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "rollback", to: "0" },
    });
    expect((await world.send("GET", "/v1/targets/orders")).body).toMatchObject({
      lease: null,
      held: { run: rollback.id },
    });
  });

  test("still tells what the database says when the bucket cannot be used", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", { body: apply });
    await rm(world.bucket.path, { recursive: true });
    const { status, body, text } = await world.send("GET", "/v1/targets/orders");
    expect([status, body.position.version, body.release]).toEqual([200, "1", null]);
    expect(body.problem.code).toMatch(/^(SOURCE_NOT_FOUND|RELEASE_NOT_FOUND)$/);
    expect(text).not.toContain("stack");
  });

  test("answers 503 with a problem when the database cannot be reached, without its address", async () => {
    const world = await createWorld();
    await world.database.drop();
    const { status, body, headers } = await world.send("GET", "/v1/targets/orders");
    expect(status).toBe(503);
    expect(body.code).toMatch(/^DATABASE_/);
    expect(body.retryable === false || headers.get("retry-after") === "5").toBe(true);
    expect(body.detail).toContain("the database: ");
    const { host } = new URL(world.database.url);
    for (const piece of ["password", "postgres://", host]) expect(JSON.stringify(body)).not.toContain(piece);
    // whoever runs the server is told
    const fault = world.log.find(({ event }) => event === "http.fault");
    expect(fault).toMatchObject({ level: "warn", fields: { code: body.code } });
    expect(fault?.fields["message"]).toContain(`@${host}`);
  });
});

describe("GET /v1/targets/{name}/history", () => {
  test("gives what was done, oldest first, page by page, or the newest", async () => {
    const world = await createWorld();
    await world.bucket.publish({ ...users, ...orders });
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    await world.send("POST", "/v1/runs", { body: { target: "orders", action: "rollback", to: "1" } });
    const all = await world.send("GET", "/v1/targets/orders/history");
    expect(
      all.body.history.map(({ version, direction, status }: Record<string, string>) => [
        version,
        direction,
        status,
      ]),
    ).toEqual([
      ["1", "up", "done"],
      ["2", "up", "done"],
      ["2", "down", "done"],
    ]);
    expect(all.body.history[0]).toMatchObject({
      path: "1_users.up.sql",
      signed: true,
      run: run.id,
      appliedBy: expect.any(String),
      error: null,
    });
    expect(all.body.nextPageToken).toBeNull();

    const first = await world.send("GET", "/v1/targets/orders/history?pageSize=2");
    expect(first.body.history).toHaveLength(2);
    const next =
      /^<https:\/\/migrate\.test\/base(.+)>; rel="next"$/.exec(first.headers.get("link") ?? "")?.[1] ?? "";
    const second = await world.send("GET", next);
    expect(second.body.history.map(({ direction }: Record<string, string>) => direction)).toEqual(["down"]);
    expect(second.headers.get("link")).toBeNull();

    expect((await world.send("GET", "/v1/targets/orders/history?last=1")).body.history).toEqual(
      second.body.history,
    );
    expect((await world.send("GET", `/v1/targets/orders/history?run=${run.id}`)).body.history).toHaveLength(
      2,
    );
    expect((await world.send("GET", "/v1/targets/orders/history?last=1&pageSize=1")).status).toBe(400);
  });
});

describe("GET /v1/targets/{name}/gate", () => {
  test("opens when the release is applied, and stays open under a newer one", async () => {
    const world = await createWorld();
    const first = await world.bucket.publish(users);
    const closed = await world.send("GET", `/v1/targets/orders/gate?release=${first}`);
    expect([
      closed.status,
      closed.body.code,
      closed.body.retryable,
      closed.headers.get("retry-after"),
    ]).toEqual([409, "NOT_APPLIED", true, "3"]);
    await world.send("POST", "/v1/runs", { body: apply });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${first}`)).body).toMatchObject({
      applied: true,
      position: { version: "1" },
    });

    const second = await world.bucket.publish({ ...users, ...orders });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${second}`)).status).toBe(409);
    await world.send("POST", "/v1/runs", { body: apply });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${second}`)).status).toBe(200);
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${first}`)).status).toBe(200);
  });

  test("stays open for the release before, while a newer one fails", async () => {
    const world = await createWorld();
    const first = await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", { body: apply });
    const second = await world.bucket.publish({ ...users, "2_bad.up.sql": "select * from absent;" });
    await world.send("POST", "/v1/runs", { body: apply });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${first}`)).status).toBe(200);
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${second}`)).status).toBe(409);
  });

  test("stays closed for a release of which only a part was asked for", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { body } = await world.send("POST", "/v1/runs", {
      body: { ...apply, release: { digest }, to: "1" },
    });
    expect(body.status).toBe("succeeded");
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${digest}`)).status).toBe(409);
  });

  test("is closed for a release that is in no bucket, and needs no bucket for the one completed", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", { body: apply });
    const unknown = await world.send("GET", `/v1/targets/orders/gate?release=sha256:${"0".repeat(64)}`);
    expect([unknown.status, unknown.body.code]).toEqual([409, "NOT_APPLIED"]);
    await rm(world.bucket.path, { recursive: true });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${digest}`)).status).toBe(200);
  });

  test("closes again after a rollback, for all that is not there any more", async () => {
    const world = await createWorld();
    const first = await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", { body: apply });
    const second = await world.bucket.publish({ ...users, ...orders });
    await world.send("POST", "/v1/runs", { body: apply });
    await world.send("POST", "/v1/runs", { body: { target: "orders", action: "rollback", to: "1" } });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${first}`)).status).toBe(200);
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${second}`)).status).toBe(409);
    await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest: second } },
    });
    expect((await world.send("GET", `/v1/targets/orders/gate?release=${second}`)).status).toBe(200);
  });

  test("can ask for a version, compared as a number", async () => {
    const world = await createWorld();
    await world.bucket.publish({ "9_a.up.sql": "select 1;", "10_b.up.sql": "select 1;" });
    await world.send("POST", "/v1/runs", { body: { ...apply, to: "9" } });
    expect((await world.send("GET", "/v1/targets/orders/gate?min=9")).status).toBe(200);
    expect((await world.send("GET", "/v1/targets/orders/gate?min=009")).status).toBe(200);
    expect((await world.send("GET", "/v1/targets/orders/gate?min=10")).status).toBe(409);
  });

  test("can ask for a place, which needs no bucket and holds under a newer release", async () => {
    const world = await createWorld();
    const ends = async (): Promise<string> => {
      const { body } = await world.send("GET", "/v1/targets/orders/gate?min=1");
      return `${body.position.length}:${body.position.chain}`;
    };
    await world.bucket.publish({ ...users, ...orders });
    await world.send("POST", "/v1/runs", { body: { ...apply, to: "1" } });
    const first = await ends();
    await world.send("POST", "/v1/runs", { body: apply });
    const second = await ends();
    await rm(world.bucket.path, { recursive: true });
    const ask = async (chain: string) => world.send("GET", `/v1/targets/orders/gate?chain=${chain}`);
    expect((await ask(first)).body).toMatchObject({ applied: true, position: { length: 2 } });
    expect((await ask(second)).status).toBe(200);
    const other = await ask(`2:${"0".repeat(64)}`);
    expect([other.status, other.body.code]).toEqual([409, "NOT_APPLIED"]);
    expect((await ask(second.replace("2:", "3:"))).status).toBe(409);
    expect((await ask("2:x")).status).toBe(400);
  });

  test("wants exactly one question", async () => {
    const world = await createWorld();
    for (const query of [
      "",
      "?min=1&release=sha256:x",
      `?release=sha256:${"0".repeat(64)}&min=1`,
      `?chain=1:${"0".repeat(64)}&min=1`,
      "?min=x",
      "?release=latest",
    ]) {
      expect((await world.send("GET", `/v1/targets/orders/gate${query}`)).status).toBe(400);
    }
  });
});

describe("POST /v1/targets/{name}/unlock", () => {
  test("takes the lease of a run that died, and refuses while it is alive", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "respond-async" },
    });
    await barrier.reached();
    const request = { body: { run: run.id, reason: "its node is gone" } };
    const alive = await world.send("POST", "/v1/targets/orders/unlock", request);
    expect([alive.status, alive.body.code, alive.body.retryable]).toEqual([409, "LEASE_ALIVE", true]);
    await barrier.release();
    await world.send("GET", `/v1/runs/${run.id}?wait=55`);

    // as a process that was killed leaves it: nobody gave the lease back
    await world.database.query(
      "update lockkeeper.streams set run_id = $1, holder = 'dead', acquired_at = now() - interval '1 minute', expires_at = now() - interval '30 seconds'",
      [run.id],
    );
    const other = await world.send("POST", "/v1/targets/orders/unlock", {
      body: { run: "orders.01ARZ3NDEKTSV4RRFFQ69G5FAV", reason: "wrong one" },
    });
    expect(other.body.code).toBe("UNKNOWN_RUN");
    const { status, body } = await world.send("POST", "/v1/targets/orders/unlock", request);
    expect([status, body.target, body.run]).toEqual([200, "orders", run.id]);
    expect(body.token).toBeGreaterThan(1);
  });

  test("wants to know which run and why", async () => {
    const world = await createWorld();
    const { status, body } = await world.send("POST", "/v1/targets/orders/unlock", { body: {} });
    expect(status).toBe(400);
    for (const field of ["/run: is missing", "/reason: is missing"]) expect(body.detail).toContain(field);
  });
});
