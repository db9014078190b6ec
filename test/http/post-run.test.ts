import { createHash } from "node:crypto";
import { chmod, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createWorld, openBarrier, orders, users } from "./world.ts";

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

  test("applies the newest release when none is named", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    const { body } = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" } });
    expect(body).toMatchObject({ outcome: "applied", release: { digest } });
  });

  test("does nothing the second time, and says so", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    const request = { body: { target: "orders", action: "apply", release: { digest } } };
    const first = await world.send("POST", "/v1/runs", request);
    const second = await world.send("POST", "/v1/runs", request);
    expect(second.status).toBe(200);
    expect(second.body).toMatchObject({ status: "succeeded", outcome: "noop" });
    expect(second.body.id).not.toBe(first.body.id);
  });

  test("needs no bucket for a release that is applied", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    const request = { body: { target: "orders", action: "apply", release: { digest } } };
    await world.send("POST", "/v1/runs", request);
    await rm(world.bucket.path, { recursive: true });
    expect((await world.send("POST", "/v1/runs", request)).body).toMatchObject({ outcome: "noop" });
  });

  test("applies up to a version, and rolls back to one", async () => {
    const world = await createWorld();
    await world.bucket.publish({ ...users, ...orders });
    const up = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply", to: "1" } });
    expect(up.body).toMatchObject({ outcome: "applied", to: "1" });
    const rest = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" } });
    expect(rest.body).toMatchObject({ outcome: "applied", from: "1", to: "2" });
    const down = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "rollback", to: "0" },
    });
    expect(down.body).toMatchObject({ outcome: "rolled_back", from: "2", to: null });
    await expect(world.database.query("select to_regclass('users') as users")).resolves.toEqual([
      { users: null },
    ]);
  });

  test("answers 200 with the failure inside when a migration fails, and 409 as a gate", async () => {
    const world = await createWorld();
    await world.bucket.publish({
      ...users,
      "2_bad.up.sql": "create table fine (id int);\nselect * from absent;\n",
    });
    const { status, body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      status: "failed",
      outcome: "failed",
      done: true,
      progress: { applied: 1, total: 2 },
    });
    expect(body.error).toMatchObject({ code: "MIGRATION_FAILED", fields: { sqlstate: "42P01", line: 2 } });

    const gate = await world.send("POST", "/v1/runs?gate=1", { body: { target: "orders", action: "apply" } });
    expect(gate.status).toBe(409);
    expect(gate.body).toMatchObject({ code: "MIGRATION_FAILED", status: 409, target: "orders" });
    expect(gate.headers.get("content-type")).toBe("application/problem+json");
  });

  test("answers a refused release with 422 and a link to the recorded run", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    await tamper(world.bucket.path);
    const { status, body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest } },
    });
    expect(status, JSON.stringify(body)).toBe(422);
    expect(body).toMatchObject({
      type: "urn:lockkeeper:problem:blob-digest",
      code: "BLOB_DIGEST",
      target: "orders",
      retryable: false,
    });
    expect(body.links.run).toBe(`https://migrate.test/base/v1/runs/${body.run}`);

    const run = await world.send("GET", `/v1/runs/${body.run}`);
    expect(run.status).toBe(200);
    expect(run.body).toMatchObject({ status: "failed", outcome: "refused", error: { code: body.code } });
    const gate = await world.send("POST", "/v1/runs?gate=1", {
      body: { target: "orders", action: "apply", release: { digest } },
    });
    expect(gate.status).toBe(409);
  });

  test("answers 202 with where to look while the run goes on", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { status, body, headers } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers: { prefer: "respond-async" },
    });
    expect(status).toBe(202);
    expect(body).toMatchObject({ done: false, outcome: null });
    expect(headers.get("location")).toBe(body.links.self);
    expect(headers.get("retry-after")).toBe("3");
    expect(headers.get("preference-applied")).toBe("respond-async");
    const gate = await world.send("GET", `/v1/runs/${body.id}/gate`);
    expect(gate.status).toBe(202);
    await barrier.release();
    const ended = await world.send("GET", `/v1/runs/${body.id}?wait=55`);
    expect(ended.body).toMatchObject({ status: "succeeded", outcome: "applied" });
    expect((await world.send("GET", `/v1/runs/${body.id}/gate`)).status).toBe(200);
  });

  test("waits as long as is preferred, and says what was applied", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const started = performance.now();
    const { status, headers } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers: { prefer: "wait=1, respond-async" },
    });
    expect(status).toBe(202);
    expect(headers.get("preference-applied")).toBe("wait=1, respond-async");
    expect(performance.now() - started).toBeGreaterThan(900);
    await barrier.release();
  });

  test("goes on when the caller hangs up", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const hangUp = new AbortController();
    const answer = world
      .send("POST", "/v1/runs", { body: { target: "orders", action: "apply" }, signal: hangUp.signal })
      .catch(() => undefined);
    await barrier.reached();
    hangUp.abort();
    await answer;
    await barrier.release();
    const { body } = await world.send("GET", "/v1/runs?target=orders");
    const ended = await world.send("GET", `/v1/runs/${body.runs[0].id}?wait=55`);
    expect(ended.body).toMatchObject({ status: "succeeded", outcome: "applied" });
  });

  test("answers 202 at once when nobody more can wait: the run has begun all the same", async () => {
    const world = await createWorld({ limits: { watchers: 0 } });
    await world.bucket.publish(users);
    const { status, body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
    });
    expect([202, 200]).toContain(status);
    await world.app.active.drained();
    expect((await world.send("GET", `/v1/targets/orders`)).body.lastRun).toMatchObject({
      id: body.id,
      outcome: "applied",
    });
  });

  test("ends a run at its deadline", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", deadline: "PT1S" },
    });
    expect(body).toMatchObject({ done: true, error: { code: "DEADLINE" } });
    await barrier.release();
  });
});

describe("asking twice", () => {
  test("with the same Idempotency-Key and body answers with the same run", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const request = {
      body: { target: "orders", action: "apply" },
      headers: { "idempotency-key": "build-17" },
    };
    const first = await world.send("POST", "/v1/runs", request);
    const second = await world.send("POST", "/v1/runs", request);
    const quoted = await world.send("POST", "/v1/runs", {
      ...request,
      headers: { "idempotency-key": '"build-17"' },
    });
    expect([second.body.id, quoted.body.id]).toEqual([first.body.id, first.body.id]);
    expect(second.body.outcome).toBe("applied");
  });

  test("with the same Idempotency-Key and another body is refused", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const headers = { "idempotency-key": "build-17" };
    await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" }, headers });
    const other = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "rollback", to: "0" },
      headers,
    });
    expect(other.status).toBe(422);
    expect(other.body.code).toBe("IDEMPOTENCY_MISMATCH");
    await expect(world.database.query("select * from users")).resolves.toEqual([]);
  });

  test("with a fresh token, the same Idempotency-Key and body answers with the same run, and again without the key", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const body = { target: "orders", action: "apply" };
    const headers = { "idempotency-key": "build-17" };
    const first = await world.send("POST", "/v1/runs", { body, headers });
    const token = await world.token();
    expect((await world.send("POST", "/v1/runs", { body, headers, token })).body.id).toBe(first.body.id);
    expect((await world.send("POST", "/v1/runs", { body, token })).body.id).toBe(first.body.id);
  });

  test("with a refused key leaves the token good for the same request under another key", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers: { "idempotency-key": "1" },
    });
    const request = { body: { target: "orders", action: "rollback", to: "0" }, token: await world.token() };
    const refused = await world.send("POST", "/v1/runs", { ...request, headers: { "idempotency-key": "1" } });
    expect(refused.body.code).toBe("IDEMPOTENCY_MISMATCH");
    const other = await world.send("POST", "/v1/runs", { ...request, headers: { "idempotency-key": "2" } });
    expect(other.body.outcome).toBe("rolled_back");
  });

  test("with a key that another caller chose as well begins a run of one's own", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const headers = { "idempotency-key": "1" };
    const one = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers,
    });
    const two = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", to: "1" },
      headers,
      token: await world.token({ sub: "another" }),
    });
    expect(two.status).toBe(200);
    expect(two.body.id).not.toBe(one.body.id);
  });

  test.for(["", " ", "a b", "x".repeat(129), "schlüssel", '""'])(
    "with the malformed key %j is refused",
    async (key) => {
      const world = await createWorld();
      const { status, body } = await world.send("POST", "/v1/runs", {
        body: { target: "orders", action: "apply" },
        headers: { "idempotency-key": Buffer.from(key).toString("latin1") },
      });
      expect([status, body.code]).toEqual([400, "INVALID_REQUEST"]);
    },
  );

  test("for the release that is being applied answers with that run", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const digest = await world.bucket.publish(barrier.migration);
    const request = {
      body: { target: "orders", action: "apply", release: { digest } },
      headers: { prefer: "respond-async" },
    };
    const answers = await Promise.all([1, 2, 3].map(() => world.send("POST", "/v1/runs", request)));
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 202]);
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    await barrier.release();
    const ended = await world.send("GET", `/v1/runs/${answers[0]?.body.id}?wait=55`);
    expect(ended.body.outcome).toBe("applied");
    const listed = await world.send("GET", "/v1/runs?target=orders");
    expect(listed.body.runs).toHaveLength(1);
  });

  test("for the release of a run that is being canceled begins another", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const digest = await world.bucket.publish(barrier.migration);
    const request = {
      body: { target: "orders", action: "apply", release: { digest } },
      headers: { prefer: "respond-async" },
    };
    const first = await world.send("POST", "/v1/runs", request);
    await barrier.reached();
    await world.send("POST", `/v1/runs/${first.body.id}/cancel`, { body: {} });
    const second = await world.send("POST", "/v1/runs", request);
    expect(second.body.id).not.toBe(first.body.id);
    await barrier.release();
    // the first one's transaction may have been past its last safe point
    expect((await world.send("GET", `/v1/runs/${second.body.id}?wait=55`)).body.status).toBe("succeeded");
    await expect(world.database.query("select * from behind")).resolves.toEqual([]);
  });

  test("for different releases lets one wait for the other", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const first = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers: { prefer: "respond-async" },
    });
    await barrier.reached();
    await world.bucket.publish({ ...barrier.migration, ...orders });
    const second = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers: { prefer: "respond-async" },
    });
    await expect
      .poll(async () => (await world.send("GET", `/v1/runs/${second.body.id}`)).body.status)
      .toBe("waiting_lock");
    await barrier.release();
    const ended = await Promise.all(
      [first, second].map(({ body }) => world.send("GET", `/v1/runs/${body.id}?wait=55`)),
    );
    expect(ended.map(({ body }) => [body.outcome, body.from, body.to])).toEqual([
      ["applied", null, "1"],
      ["applied", "1", "2"],
    ]);
  });

  test("more often than runs of one target may be open is refused for now", async () => {
    const world = await createWorld({ limits: { runsPerTarget: 2 } });
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const request = { body: { target: "orders", action: "apply" }, headers: { prefer: "respond-async" } };
    await world.send("POST", "/v1/runs", request);
    await world.send("POST", "/v1/runs", request);
    const third = await world.send("POST", "/v1/runs", request);
    expect([third.status, third.body.code, third.headers.get("retry-after")]).toEqual([
      429,
      "RATE_LIMITED",
      "5",
    ]);
    await barrier.release();
    await world.app.active.drained();
    expect((await world.send("POST", "/v1/runs", { body: request.body })).status).toBe(200);
  });
});

describe("one token", () => {
  test("may look as often as it likes", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const token = await world.token();
    for (const action of ["plan", "status", "verify", "plan"]) {
      expect(
        (await world.send("POST", "/v1/runs", { body: { target: "orders", action }, token })).status,
      ).toBe(200);
    }
    expect(
      (await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" }, token })).status,
    ).toBe(200);
  });
});

describe("looking without changing", () => {
  test("plan answers with the steps and a digest, and records nothing", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { status, body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "plan" },
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      id: null,
      action: "plan",
      status: "succeeded",
      outcome: "planned",
      done: true,
    });
    expect(body.plan).toMatchObject({ release: { digest }, from: null, to: "2" });
    expect(body.plan.steps).toEqual([
      expect.objectContaining({
        version: "1",
        path: "1_users.up.sql",
        direction: "up",
        sha256: sha256(users["1_users.up.sql"]),
      }),
      expect.objectContaining({ version: "2", path: "2_orders.up.sql", direction: "up" }),
    ]);
    await expect(
      world.database.query("select to_regclass('users') as users, to_regclass('lockkeeper.runs') as runs"),
    ).resolves.toEqual([{ users: null, runs: null }]);
  });

  test("an approved plan is applied exactly, or refused when something changed", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    const planned = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "plan", release: { digest } },
    });
    const { digest: plan } = planned.body.plan;
    await world.bucket.publish({ ...users, ...orders });
    const other = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply", plan } });
    expect(other.body).toMatchObject({ code: "PLAN_CHANGED", status: 409 });
    const exact = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest }, plan },
    });
    expect(exact.body).toMatchObject({ outcome: "applied", to: "1" });
  });

  test("a plan can be for a version in either direction", async () => {
    const world = await createWorld();
    await world.bucket.publish({ ...users, ...orders });
    await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" } });
    const { body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "plan", to: "1" },
    });
    expect(body.plan.steps).toEqual([
      expect.objectContaining({ version: "2", direction: "down", path: "2_orders.down.sql" }),
    ]);
  });

  test("verify answers with the signed release, every pending body checked", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { body } = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "verify" } });
    expect(body).toMatchObject({
      outcome: "verified",
      release: { digest, version: 1, epoch: 1, migrations: 2, pending: 2 },
    });
    expect(body.release.signers).toEqual([expect.stringMatching(/^sha256:/)]);
    await tamper(world.bucket.path);
    const broken = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "verify" } });
    expect([broken.status, broken.body.code]).toEqual([422, "BLOB_DIGEST"]);
    expect(broken.body.run).toBeUndefined();
  });

  test("status answers with where the target stands", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const { body } = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "status" } });
    expect(body).toMatchObject({
      outcome: "noop",
      state: { name: "orders", position: { version: null, length: 0 }, pending: { total: 1 } },
    });
  });
});

describe("a release digest", () => {
  test.for(["production", "Production"])("is required for a database in %s", async (environment) => {
    const world = await createWorld({ environment });
    const digest = await world.bucket.publish(users);
    const without = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" } });
    expect([without.status, without.body.code]).toEqual([403, "DIGEST_REQUIRED"]);
    expect(
      (await world.send("POST", "/v1/runs", { body: { target: "orders", action: "plan" } })).status,
    ).toBe(200);
    const named = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest } },
    });
    expect(named.body.outcome).toBe("applied");
  });

  test("is required where the rule says so", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish(users);
    const token = (): Promise<string> => world.token({ role: "deployer" });
    const without = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      token: await token(),
    });
    expect([without.status, without.body.code]).toEqual([403, "DIGEST_REQUIRED"]);
    const named = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest } },
      token: await token(),
    });
    expect(named.status).toBe(200);
  });

  test("of another release than any in the bucket is refused and recorded", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const digest = `sha256:${"0".repeat(64)}`;
    const { status, body } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply", release: { digest } },
    });
    expect([status, body.code]).toEqual([422, "RELEASE_NOT_FOUND"]);
    expect((await world.send("GET", `/v1/runs/${body.run}`)).body.outcome).toBe("refused");
  });
});

describe("a rule's limit", () => {
  test("is answered with 429 and when to come back; looking at status does not count", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const token = (): Promise<string> => world.token({ role: "hurried" });
    for (const _ of [1, 2]) {
      expect(
        (
          await world.send("POST", "/v1/runs", {
            body: { target: "orders", action: "apply" },
            token: await token(),
          })
        ).status,
      ).toBe(200);
    }
    const third = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      token: await token(),
    });
    expect([third.status, third.body.code]).toEqual([429, "RATE_LIMITED"]);
    expect(Number(third.headers.get("retry-after"))).toBeGreaterThan(1700);
    expect(
      (
        await world.send("POST", "/v1/runs", {
          body: { target: "orders", action: "status" },
          token: await token(),
        })
      ).status,
    ).toBe(200);
    const other = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      token: await world.token({ role: "hurried", sub: "b" }),
    });
    expect(other.status).toBe(200);
  });
});

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** Changes one letter of every body in the bucket. */
async function tamper(bucket: string): Promise<void> {
  for (const name of await readdir(join(bucket, "blobs"))) {
    const path = join(bucket, "blobs", name);
    await chmod(path, 0o600);
    await writeFile(path, (await readFile(path, "utf8")).replace("id", "ID"));
  }
}
