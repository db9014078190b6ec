import { createHmac } from "node:crypto";
import { describe, expect, test } from "vitest";
import type { HttpLimits } from "../../src/http/limits.ts";
import { createWorld, openBarrier, orders, users, type Answer, type World } from "./world.ts";

const secrets = {
  now: "0123456789abcdef0123456789abcdef",
  before: "fedcba9876543210fedcba9876543210",
} as const;

/** A server with Flux and GitHub as senders of webhooks. */
async function createHooked(
  options: {
    readonly environment?: string;
    readonly actions?: readonly string[];
    readonly more?: object;
    readonly limits?: Partial<HttpLimits>;
  } = {},
): Promise<World> {
  const { environment = "default", actions = ["apply", "status"], more = {}, limits = {} } = options;
  return createWorld({
    environment,
    limits,
    callers: {
      hooks: {
        flux: { kind: "hmac", header: "X-Signature", prefix: "sha256=", secretFile: ["now", "before"] },
        github: { kind: "github", secretFile: "now" },
        plain: { kind: "hmac", header: "X-Plain", encoding: "base64", secretFile: "now" },
        nobody: { kind: "github", secretFile: "now" },
      },
      secrets,
      rules: ["flux", "github", "plain"].map((hook) => ({
        id: hook,
        hook,
        allow: { targets: ["orders"], actions },
        ...more,
      })),
    },
  });
}

function hex(text: string, key: string = secrets.now): string {
  return createHmac("sha256", key).update(text).digest("hex");
}

async function flux(
  world: World,
  text: string,
  path = "/v1/hooks/flux/orders",
  more: object = {},
): Promise<Answer> {
  const headers = { "x-signature": `sha256=${hex(text)}`, ...more };
  return world.send("POST", path, { token: null, text, headers });
}

const request = (body: object): string => JSON.stringify({ target: "orders", action: "apply", ...body });

describe("senders whom nobody knows yet", () => {
  test("share the memory for their bodies: what is too much is refused for now, and not what comes after them", async () => {
    const world = await createHooked({ limits: { strangersBytes: 100 } });
    /** Sends so many bytes, and then nothing until it is ended. */
    const begin = (bytes: number): { answer: Promise<Response>; end(): void } => {
      const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
      const writer = writable.getWriter();
      void writer.write(new Uint8Array(bytes)).catch(() => undefined);
      const headers = { "x-signature": `sha256=${hex("another body")}` };
      const init = { method: "POST", headers, body: readable, duplex: "half" } as const;
      const answer = Promise.resolve(world.app.hono.request("/v1/hooks/flux/orders", init));
      return { answer, end: () => void writer.close().catch(() => undefined) };
    };
    const both = [begin(80), begin(80)];
    const first = await Promise.race(both.map(async ({ answer }) => (await answer).status));
    expect(first).toBe(429);
    for (const { end } of both) end();
    const statuses = await Promise.all(both.map(async ({ answer }) => (await answer).status));
    expect(new Set(statuses)).toEqual(new Set([401, 429]));
    const next = begin(80);
    next.end();
    expect((await next.answer).status).toBe(401);
  });
});

describe("a run request that somebody has recorded", () => {
  test("is no event: at the address of a target it applies nothing, whatever it asked for", async () => {
    const world = await createHooked({ actions: ["apply", "plan", "status"] });
    const digest = await world.bucket.publish(users);
    const texts = [
      request({ action: "status" }),
      request({ action: "plan" }),
      request({ release: { digest } }),
      request({ target: "billing" }),
    ];
    for (const text of texts) {
      const { status, body } = await flux(world, text);
      expect([status, body.code]).toEqual([400, "INVALID_REQUEST"]);
    }
    expect(await world.database.query("select to_regclass('lockkeeper.runs') as runs")).toEqual([
      { runs: null },
    ]);
    expect((await flux(world, request({ action: "plan" }), "/v1/hooks/flux")).status).toBe(200);
  });
});

describe("a webhook for a target", () => {
  test("applies what is newest, and answers at once", async () => {
    const world = await createHooked();
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { status, body, headers } = await flux(world, '{"severity":"info"}');
    expect(status).toBe(202);
    expect(headers.get("location")).toBe(body.links.self);
    expect(body.trigger).toEqual({
      kind: "event",
      actor: "flux",
      issuer: "urn:lockkeeper:hook:flux",
      rule: "flux",
    });
    await barrier.release();
    const ended = await world.send("GET", `/v1/runs/${body.id}?wait=50`);
    expect(ended.body).toMatchObject({ status: "succeeded", outcome: "applied", to: "1" });
  });

  test("waits for the end when it is asked to", async () => {
    const world = await createHooked();
    await world.bucket.publish(users);
    const { status, body, headers } = await flux(world, "{}", undefined, { prefer: "wait=50" });
    expect([status, body.outcome, headers.get("preference-applied")]).toEqual([200, "applied", "wait=50"]);
  });

  test("sent again is the same run, also when it has ended", async () => {
    const world = await createHooked();
    await world.bucket.publish(users);
    const first = await flux(world, "{}", undefined, { prefer: "wait=50" });
    await world.bucket.publish({ ...users, ...orders });
    expect((await flux(world, "{}")).body).toEqual(first.body);
    expect((await flux(world, '{"next":1}', undefined, { prefer: "wait=50" })).body.to).toBe("2");
  });

  test("undoes no rollback, because nobody has asked", async () => {
    const world = await createHooked();
    await world.bucket.publish({ ...users, ...orders });
    await world.send("POST", "/v1/runs", { body: JSON.parse(request({})) });
    const back = { target: "orders", action: "rollback", to: "1" };
    expect((await world.send("POST", "/v1/runs", { body: back })).body.outcome).toBe("rolled_back");
    const { status, body } = await flux(world, "{}", undefined, { prefer: "wait=50" });
    expect([status, body.code ?? body.error?.code]).toEqual([expect.any(Number), "HELD"]);
  });

  test("cannot be for a production database, which takes only a digest that was named", async () => {
    const world = await createHooked({ environment: "production" });
    const digest = await world.bucket.publish(users);
    const blind = await flux(world, "{}");
    expect([blind.status, blind.body.code]).toEqual([403, "DIGEST_REQUIRED"]);
    const unnamed = await flux(world, request({}), "/v1/hooks/flux");
    expect([unnamed.status, unnamed.body.code]).toEqual([403, "DIGEST_REQUIRED"]);
    const named = await flux(world, request({ release: { digest } }), "/v1/hooks/flux", {
      prefer: "wait=50",
    });
    expect([named.status, named.body.outcome]).toEqual([200, "applied"]);
  });

  test("takes both secrets while one is being replaced", async () => {
    const world = await createHooked();
    await world.bucket.publish(users);
    for (const key of Object.values(secrets)) {
      const headers = { "x-signature": `sha256=${hex(key, key)}` };
      const answer = await world.send("POST", "/v1/hooks/flux/orders", { token: null, text: key, headers });
      expect([200, 202]).toContain(answer.status);
    }
  });

  test("may carry its digest in base64, without a prefix", async () => {
    const world = await createHooked();
    await world.bucket.publish(users);
    const headers = { "x-plain": createHmac("sha256", secrets.now).update("{}").digest("base64") };
    const answer = await world.send("POST", "/v1/hooks/plain/orders", { token: null, text: "{}", headers });
    expect([200, 202]).toContain(answer.status);
  });

  test("may have a long body, as GitHub's have, but not a huge one", async () => {
    const world = await createHooked();
    await world.bucket.publish(users);
    expect([200, 202]).toContain((await flux(world, "x".repeat(256 * 1024))).status);
    expect((await flux(world, "x".repeat(256 * 1024 + 1))).status).toBe(401);
    const long = await flux(world, request({ labels: { a: "x".repeat(17_000) } }), "/v1/hooks/flux");
    expect([long.status, long.body.code]).toEqual([413, "BODY_TOO_LARGE"]);
  });

  test("of GitHub is taken for its signature; its ping begins nothing", async () => {
    const world = await createHooked();
    await world.bucket.publish(users);
    const send = (event: string, text: string): Promise<Answer> =>
      world.send("POST", "/v1/hooks/github/orders", {
        token: null,
        text,
        headers: { "x-hub-signature-256": `sha256=${hex(text)}`, "x-github-event": event },
      });
    expect((await send("ping", '{"zen":"Keep it logically awesome."}')).status).toBe(204);
    expect((await world.send("GET", "/v1/runs?target=orders")).body.runs).toEqual([]);
    expect([200, 202]).toContain((await send("release", '{"action":"published"}')).status);
  });

  test("is refused by a policy that has no rule for it, or not for this", async () => {
    const world = await createHooked({ actions: ["status"] });
    await world.bucket.publish(users);
    const denied = await flux(world, "{}");
    expect([denied.status, denied.body.code]).toEqual([403, "NOT_ALLOWED"]);
    const unseen = await flux(world, "{}", "/v1/hooks/flux/billing");
    expect([unseen.status, unseen.body.code]).toEqual([404, "UNKNOWN_TARGET"]);
    const headers = { "x-hub-signature-256": `sha256=${hex("{}")}` };
    const stranger = await world.send("POST", "/v1/hooks/nobody/orders", {
      token: null,
      text: "{}",
      headers,
    });
    expect([stranger.status, stranger.body.code]).toEqual([403, "NOT_ALLOWED"]);
    const look = await flux(world, request({ action: "status" }), "/v1/hooks/flux");
    expect([look.status, look.body.state.name]).toEqual([200, "orders"]);
  });

  test("has a rate of its own", async () => {
    const world = await createHooked({ more: { limit: { perHour: 2 } } });
    await world.bucket.publish(users);
    const statuses = [];
    for (const body of ["1", "2", "3"]) statuses.push((await flux(world, body)).status);
    expect(statuses[2]).toBe(429);
  });

  test("takes no other method, and no query", async () => {
    const world = await createHooked();
    expect((await world.send("GET", "/v1/hooks/flux/orders", { token: null })).status).toBe(405);
    expect((await flux(world, "{}", "/v1/hooks/flux/orders?x=1")).status).toBe(400);
  });
});

describe("a webhook with a run request of its own", () => {
  test("asks for what the request says, within the rule", async () => {
    const world = await createHooked({ actions: ["apply", "plan"] });
    const digest = await world.bucket.publish({ ...users, ...orders });
    const planned = await flux(world, request({ action: "plan" }), "/v1/hooks/flux");
    expect([planned.status, planned.body.outcome]).toEqual([200, "planned"]);
    const text = request({ release: { digest }, to: "1", labels: { commit: "3f2a9b1" } });
    const { body } = await flux(world, text, "/v1/hooks/flux", { prefer: "wait=50" });
    expect(body).toMatchObject({ outcome: "applied", to: "1", labels: { commit: "3f2a9b1" } });
    const back = await flux(world, request({ action: "rollback", to: "0" }), "/v1/hooks/flux");
    expect([back.status, back.body.code]).toEqual([403, "NOT_ALLOWED"]);
    expect(back.body.hint).toBe(
      "a webhook can be allowed status, plan, verify, apply, and nothing else: ask with a token",
    );
  });
});
