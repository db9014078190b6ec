import { beforeAll, describe, expect, test } from "vitest";
import { createWorld, users, type World } from "./world.ts";

const apply = { target: "orders", action: "apply" };

/** For requests that get nowhere: they leave nothing behind, so one server does for all of them. */
let shared: World;
beforeAll(async () => {
  shared = await createWorld();
});

describe("a request's body", () => {
  test.for<[string, unknown, string]>([
    ["no target", { action: "apply" }, "/target: is missing"],
    ["no action", { target: "orders" }, "/action: is missing"],
    [
      "an unknown action",
      { ...apply, action: "destroy" },
      "/action: has to be one of apply, rollback, plan, status, verify",
    ],
    ["an action that has a command of its own", { ...apply, action: "repair" }, "/action: has to be one of"],
    ["a target that is a number", { ...apply, target: 7 }, "/target: has to be a text"],
    ["a release without digest", { ...apply, release: {} }, "/release/digest: is missing"],
    ["a release by version", { ...apply, release: { version: 3 } }, "/release/version: is not a known field"],
    [
      "a digest in capitals",
      { ...apply, release: { digest: `sha256:${"A".repeat(64)}` } },
      "/release/digest: has to be",
    ],
    [
      "a digest that is a path",
      { ...apply, release: { digest: "../../etc/passwd" } },
      "/release/digest: has to be",
    ],
    [
      "a version with letters",
      { ...apply, to: "v1" },
      "/to: has to be digits, perhaps with dots between them",
    ],
    ["a rollback to nowhere", { target: "orders", action: "rollback" }, "/to: a rollback names the version"],
    [
      "a plan for a plan",
      { target: "orders", action: "plan", plan: `sha256:${"0".repeat(64)}` },
      "/plan: only apply and rollback",
    ],
    ["a deadline in words", { ...apply, deadline: "10 minutes" }, "/deadline: has to be a duration"],
    ["a deadline of nothing", { ...apply, deadline: "PT0S" }, "/deadline: has to be a duration"],
    ["a deadline of weeks", { ...apply, deadline: "P7D" }, "/deadline: has to be a duration"],
    [
      "too many labels",
      { ...apply, labels: Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`l${n}`, "x"])) },
      "/labels: holds at most 16",
    ],
    ["a label that is no text", { ...apply, labels: { a: 1 } }, "/labels/a: has to be a text"],
    ["a label with a strange name", { ...apply, labels: { "a b": "x" } }, "/labels/a b: a label's name"],
    ["a list", [apply], "/target: is missing"],
    ["a label with a NUL", { ...apply, labels: { a: "\u0000" } }, "/labels/a: has to be one line"],
    ["a label with half a character", { ...apply, labels: { a: "\ud800" } }, "/labels/a: has to be one line"],
    ["labels in a list", { ...apply, labels: [] }, "/labels: has to be an object"],
    ["null", null, "/: has to be an object"],
  ])("with %s is refused, naming the field", async ([, body, words]) => {
    const answer = await shared.send("POST", "/v1/runs", { body });
    expect([answer.status, answer.body.code]).toEqual([400, "INVALID_REQUEST"]);
    expect(answer.body.detail).toContain(words);
  });

  test("names all wrong fields at once", async () => {
    const { body } = await shared.send("POST", "/v1/runs", { body: { action: "x", to: "y", colour: "red" } });
    for (const field of ["/target", "/action", "/to", "/colour"]) expect(body.detail).toContain(field);
  });

  test.for<[string, string]>([
    ["no JSON", "{"],
    ["two documents", '{"target":"orders","action":"plan"}{}'],
    ["a comment", '{"target":"orders","action":"plan"/* x */}'],
    ["a byte order mark", '\ufeff{"target":"orders","action":"plan"}'],
    ["a field twice", '{"target":"billing","target":"orders","action":"plan"}'],
    ["a field twice, once escaped", '{"target":"billing","\\u0074arget":"orders","action":"plan"}'],
    ["a field of every object", '{"target":"orders","action":"plan","__proto__":{"isAdmin":true}}'],
    ["a constructor", '{"target":"orders","action":"plan","labels":{"constructor":"x"}}'],
    ["very deep nesting", `${"[".repeat(8000)}${"]".repeat(8000)}`],
    ["nothing", ""],
  ])("that is or has %s is refused", async ([, text]) => {
    const { status, body } = await shared.send("POST", "/v1/runs", { text });
    expect([status, body.code]).toEqual([400, "INVALID_REQUEST"]);
    expect(body.detail).not.toContain("isAdmin");
  });

  test("of exactly 16 KiB is read, and one byte more is refused whatever Content-Length says", async () => {
    const fill = (bytes: number): string => {
      const start = '{"target":"orders","action":"status"';
      return `${start}${" ".repeat(bytes - start.length - 1)}}`;
    };
    expect((await shared.send("POST", "/v1/runs", { text: fill(16 * 1024) })).status).toBe(200);
    for (const headers of [{}, { "content-length": "10" }]) {
      const { status, body } = await shared.send("POST", "/v1/runs", { text: fill(16 * 1024 + 1), headers });
      expect([status, body.code]).toEqual([413, "BODY_TOO_LARGE"]);
    }
  });

  test("that never ends is given up after 16 KiB", async () => {
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 1024;
        controller.enqueue(new Uint8Array(1024).fill(0x20));
      },
    });
    const response = await shared.app.hono.request("/v1/runs", {
      method: "POST",
      body,
      duplex: "half",
      headers: { authorization: `Bearer ${await shared.token()}`, "content-type": "application/json" },
    });
    expect(response.status).toBe(413);
    expect(sent).toBeLessThan(64 * 1024);
  });

  test("has to be plain JSON by its headers", async () => {
    const text = JSON.stringify({ target: "orders", action: "status" });
    for (const headers of [
      { "content-type": "text/plain" },
      { "content-type": "application/x-www-form-urlencoded" },
      { "content-type": "application/jsonx" },
      { "content-encoding": "gzip" },
      { "content-encoding": "identity" },
    ] as Record<string, string>[]) {
      const { status, body } = await shared.send("POST", "/v1/runs", { text, headers });
      expect([status, body.code]).toEqual([415, "UNSUPPORTED_MEDIA_TYPE"]);
    }
    const named = await shared.send("POST", "/v1/runs", {
      text,
      headers: { "content-type": "application/json; charset=utf-8" },
    });
    expect(named.status).toBe(200);
  });
});

describe("who may ask", () => {
  test("nobody without a token, and the answer does not say why", async () => {
    for (const [method, path] of [
      ["POST", "/v1/runs"],
      ["GET", "/v1/runs"],
      ["GET", "/v1/targets"],
      ["GET", "/v1/anything"],
    ] as const) {
      const { status, body, headers } = await shared.send(method, path, { token: null });
      expect([status, body.code]).toEqual([401, "UNAUTHENTICATED"]);
      expect(headers.get("www-authenticate")).toBe('Bearer realm="lockkeeper"');
    }
  });

  test("nobody with an expired token; the reason is in the log only", async () => {
    const world = await createWorld();
    const token = await world.token({ exp: Math.floor(Date.now() / 1000) - 60 });
    const { status, body, text } = await world.send("GET", "/v1/targets", { token });
    expect([status, body.code]).toEqual([401, "UNAUTHENTICATED"]);
    expect(text).not.toMatch(/exp/);
    const line = world.log.find(({ event }) => event === "http.request");
    expect(line?.fields["reason"]).toContain("exp");
    expect(JSON.stringify(world.log)).not.toContain(token.slice(0, 30));
  });

  test("nobody by a token elsewhere than in Authorization: Bearer", async () => {
    const token = await shared.token();
    for (const headers of [
      { authorization: token },
      { authorization: `Basic ${token}` },
      { authorization: `Bearer ${token} ${token}` },
      { cookie: `token=${token}` },
    ] as Record<string, string>[]) {
      expect((await shared.send("GET", "/v1/targets", { token: null, headers })).status).toBe(401);
    }
    expect((await shared.send("GET", `/v1/targets?access_token=${token}`, { token: null })).status).toBe(401);
  });

  test("a caller that no rule knows gets the same answer for every target, real or not", async () => {
    for (const target of ["orders", "billing", "nonsense"]) {
      const { status, body } = await shared.send("GET", `/v1/targets/${target}`, {
        token: await shared.token({ role: "guest" }),
      });
      expect([status, body.code, body.detail]).toEqual([
        403,
        "NOT_ALLOWED",
        "no rule of the policy matches this caller",
      ]);
    }
  });

  test("a caller cannot tell a target of others from one that does not exist", async () => {
    const token = await shared.token({ role: "billing" });
    const answers = await Promise.all(
      ["orders", "nonsense"].map((target) => shared.send("GET", `/v1/targets/${target}`, { token })),
    );
    const strip = ({ body }: { body: Record<string, unknown> }): unknown => ({
      ...body,
      instance: "",
      detail: String(body["detail"]).replace(/"[a-z]+"/, ""),
    });
    expect(answers[0]?.body.code).toBe("UNKNOWN_TARGET");
    expect(answers.map(strip)[0]).toEqual(answers.map(strip)[1]);
  });

  test("a caller cannot tell a run of others from one that does not exist", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const token = await world.token({ role: "billing" });
    for (const id of [run.id, "orders.01ARZ3NDEKTSV4RRFFQ69G5FAV", "nonsense"]) {
      const { status, body } = await world.send("GET", `/v1/runs/${id}`, { token });
      expect([status, body.code, body.run]).toEqual([404, "UNKNOWN_RUN", undefined]);
    }
  });

  test("a caller with another right on the target is told which right is missing", async () => {
    const token = await shared.token({ role: "viewer" });
    const { status, body } = await shared.send("POST", "/v1/runs", { body: apply, token });
    expect([status, body.code, body.detail]).toEqual([
      403,
      "NOT_ALLOWED",
      '"apply" is not allowed on "orders"',
    ]);
    expect(body.hint).toContain('"viewer"');
  });

  test.for([
    ["POST", "/v1/runs", { target: "orders", action: "rollback", to: "0" }],
    ["POST", "/v1/runs", { target: "orders", action: "plan" }],
    ["POST", "/v1/runs", { target: "orders", action: "verify" }],
    ["POST", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV/cancel", {}],
    ["POST", "/v1/targets/orders/unlock", { run: "orders.01ARZ3NDEKTSV4RRFFQ69G5FAV", reason: "stuck" }],
  ] as const)("status alone does not allow %s %s %j", async ([method, path, body]) => {
    const answer = await shared.send(method, path, { body, token: await shared.token({ role: "viewer" }) });
    expect([answer.status, answer.body.code]).toEqual([403, "NOT_ALLOWED"]);
  });

  test("the right is checked before the body's release, target state or idempotency is looked at", async () => {
    const world = await createWorld();
    await world.send("POST", "/v1/runs", { body: apply, token: await world.token({ role: "viewer" }) });
    await expect(world.database.query("select to_regclass('lockkeeper.runs') as runs")).resolves.toEqual([
      { runs: null },
    ]);
  });
});

describe("addresses and methods", () => {
  test("that are not there are problems", async () => {
    for (const path of ["/v1", "/v1/nothing", "/healthz", "/v1/runs/x/y/z"]) {
      const { status, body } = await shared.send("GET", path);
      expect([path, status, body.code]).toEqual([path, 404, "NOT_FOUND"]);
    }
  });

  test("another method than those of an address is 405 with Allow, also for HEAD and OPTIONS", async () => {
    for (const [method, path, allow] of [
      ["DELETE", "/v1/runs", "POST, GET"],
      ["PUT", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV", "GET"],
      ["GET", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV/cancel", "POST"],
      ["HEAD", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV/events", "GET"],
      ["OPTIONS", "/v1/runs", "POST, GET"],
      ["POST", "/health/live", "GET"],
    ] as const) {
      const { status, headers } = await shared.send(method, path);
      expect([method, path, status, headers.get("allow")]).toEqual([method, path, 405, allow]);
      expect(headers.get("access-control-allow-origin")).toBeNull();
    }
  });

  test("answers carry headers that keep them out of caches and browsers", async () => {
    for (const path of ["/health/live", "/v1/targets", "/nothing"]) {
      const { headers } = await shared.send("GET", path);
      expect(Object.fromEntries(headers)).toMatchObject({
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
        "referrer-policy": "no-referrer",
        "strict-transport-security": "max-age=31536000",
      });
      expect(headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    }
  });

  test("health, version and description need no token", async () => {
    for (const path of ["/health/live", "/health/ready", "/version", "/openapi.json"]) {
      expect((await shared.send("GET", path, { token: null })).status).toBe(200);
    }
  });

  test("a server that stops is not ready and takes no runs, but still answers", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    world.stop();
    const ready = await world.send("GET", "/health/ready", { token: null });
    expect([ready.status, ready.body.code]).toEqual([503, "STOPPING"]);
    const { status, body, headers } = await world.send("POST", "/v1/runs", { body: apply });
    expect([status, body.code, headers.get("retry-after")]).toEqual([503, "STOPPING", "5"]);
    expect((await world.send("GET", "/v1/targets/orders")).status).toBe(200);
  });
});

describe("a database that does not answer", () => {
  test("is a problem after a while, and worth another try", async () => {
    const world = await createWorld({ limits: { readMs: 300 } });
    await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", { body: apply });
    const client = await world.database.connect();
    await client.query("begin; lock table lockkeeper.history in access exclusive mode");
    const { status, body } = await world.send("GET", "/v1/targets/orders/history");
    expect([status, body.code, body.retryable]).toEqual([504, "DEADLINE", true]);
    await client.query("rollback");
    expect((await world.send("GET", "/v1/targets/orders/history")).status).toBe(200);
  });
});

describe("a fault of the server's own", () => {
  test("shows its code and the request's name; the log says where it came from, without its message", async () => {
    const world = await createWorld();
    const broken = {
      ...world.target,
      driver: { ...world.target.driver, run: () => Promise.reject(new TypeError("secret detail")) },
    };
    const { createApp } = await import("../../src/http/app.ts");
    const { hono } = createApp({ ...world.deps, targets: new Map([["orders", broken]]) });
    const response = await hono.request("/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV", {
      headers: { authorization: `Bearer ${await world.token()}` },
    });
    const text = await response.text();
    expect(response.status).toBe(500);
    expect(JSON.parse(text)).toMatchObject({
      code: "INTERNAL",
      instance: expect.stringMatching(/^urn:uuid:/),
    });
    expect(text).not.toContain("secret");
    const fault = world.log.find(({ event }) => event === "http.fault");
    expect(fault?.fields["origin"]).toMatch(/^TypeError/);
    expect(JSON.stringify(world.log)).not.toContain("secret");
    expect(fault?.fields["request"]).toBe(response.headers.get("x-request-id"));
  });
});
