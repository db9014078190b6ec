import { createHmac } from "node:crypto";
import { expect, test } from "vitest";
import { ExpectedLinks } from "../../src/audit/expected.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import { createApp } from "../../src/http/app.ts";
import { listen } from "../../src/bin/listen.ts";
import { logTo } from "../../src/report/log-writer.ts";
import { newRunId } from "../../src/runner.ts";
import { recordsOf, story, type FoundRecord } from "../audit/records.ts";
import { never } from "../support/steps.ts";
import { createWorld, openBarrier, orders, users, type World } from "./world.ts";

const apply = { target: "orders", action: "apply" } as const;
const waited = { prefer: "wait=50" } as const;

const decisions = (records: readonly FoundRecord[]): readonly FoundRecord[] =>
  records.filter(({ event }) => event === "decision");

/** All decisions, once those that nobody waits for are written. */
async function settled(world: World): Promise<readonly FoundRecord[]> {
  await world.app.drained();
  return decisions(await recordsOf(world.target.driver));
}

test("a run that is allowed has its decision before its beginning, with what the rule compared and nothing else of the token", async () => {
  const world = await createWorld();
  const digest = await world.bucket.publish({ ...users, ...orders });
  const token = await world.token({ sub: "deploy", role: "deployer", jti: "jti-1", secret: "hunter2" });
  const more = { onFailure: "keep", allow: ["breaking"] } as const;
  const body = { ...apply, release: { digest }, to: "1", ...more };
  const answer = await world.send("POST", "/v1/runs", {
    token,
    body,
    headers: { ...waited, "x-forwarded-for": "203.0.113.9", forwarded: "for=203.0.113.9" },
  });
  expect(answer.status).toBe(200);
  const records = await recordsOf(world.target.driver);
  expect(story(records)).toEqual(["decision allowed", "run.begun", "run.ended applied"]);
  const { id } = answer.body as { id: string };
  expect(records[0]).toMatchObject({
    run: id,
    action: "apply",
    target: "orders",
    stream: "orders",
    environment: "default",
    request: answer.headers.get("x-request-id"),
    trigger: "http",
    principal: {
      issuer: world.issuer.url,
      subject: "deploy",
      rule: "deployer",
      claims: { role: "deployer" },
    },
    jti: "jti-1",
    sourceIp: null,
    requested: { goal: "version 1", digest, plan: null, ...more },
  });
  expect(records[1]).toMatchObject({
    run: id,
    principal: { issuer: world.issuer.url, subject: "deploy", rule: "deployer", claims: {} },
    requested: { goal: "version 1", digest, ...more },
  });
  const texts = JSON.stringify(records);
  for (const secret of [
    "hunter2",
    token,
    "create table",
    "203.0.113.9",
    new URL(world.database.url).password,
  ])
    expect(texts).not.toContain(secret);
});

test("a request that joins a run, by the same words or by its key, is a decision about that run", async () => {
  const world = await createWorld();
  const digest = await world.bucket.publish(users);
  const body = { ...apply, release: { digest } };
  const headers = { ...waited, "idempotency-key": "deploy-7" };
  const first = await world.send("POST", "/v1/runs", { body, headers });
  const second = await world.send("POST", "/v1/runs", { body, headers });
  expect((second.body as { id: string }).id).toBe((first.body as { id: string }).id);
  const records = await settled(world);
  expect(story(records)).toEqual(["decision allowed", "decision allowed"]);
  expect(new Set(records.map(({ run }) => run)).size).toBe(1);
  expect(new Set(records.map(({ request }) => request)).size).toBe(2);
});

test("every kind of refusal on a target that there is is recorded, with its code and the rules that know the caller", async () => {
  const world = await createWorld({ environment: "production" });
  const digest = await world.bucket.publish(users);
  const named = { ...apply, release: { digest } };
  const ask = async (claims: object, body: unknown, expected: string): Promise<void> => {
    const { body: problem } = await world.send("POST", "/v1/runs", {
      token: await world.token({ ...claims }),
      body,
    });
    expect((problem as { code: string }).code).toBe(expected);
  };
  await ask({ role: "viewer", sub: "v" }, named, "NOT_ALLOWED");
  await ask({ role: "nobody", sub: "n" }, named, "NOT_ALLOWED");
  await ask({ role: "billing", sub: "b" }, named, "UNKNOWN_TARGET");
  await ask({ role: "admin", sub: "a" }, apply, "DIGEST_REQUIRED");
  await ask({ role: "deployer", sub: "d" }, { ...named, onFailure: "rollback" }, "NOT_ALLOWED");
  const used = { role: "admin", sub: "a", jti: "once" };
  await world.send("POST", "/v1/runs", { token: await world.token(used), body: named, headers: waited });
  await ask(used, { ...named, labels: { other: "words" } }, "REPLAY");
  for (let n = 0; n < 2; n += 1)
    await world.send("POST", "/v1/runs", {
      token: await world.token({ role: "hurried", sub: "h" }),
      body: named,
    });
  await ask({ role: "hurried", sub: "h" }, named, "RATE_LIMITED");
  const refused = (await settled(world)).filter(({ outcome }) => outcome === "refused");
  // nobody waits for a refusal's record, so two of them may stand the other way round
  const told = refused
    .map(({ principal, action, code, requested }) => [
      principal.subject,
      action,
      code,
      principal.rule,
      principal.claims,
      requested.digest,
    ])
    .toSorted((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  expect(told).toEqual([
    ["a", "apply", "DIGEST_REQUIRED", "admin", { role: "admin" }, null],
    ["a", "apply", "REPLAY", "admin", { role: "admin" }, digest],
    ["b", "apply", "UNKNOWN_TARGET", "billing", { role: "billing" }, digest],
    ["d", "rollback", "NOT_ALLOWED", "deployer", { role: "deployer" }, digest],
    ["h", "apply", "RATE_LIMITED", "hurried", { role: "hurried" }, digest],
    ["n", "apply", "NOT_ALLOWED", null, {}, digest],
    ["v", "apply", "NOT_ALLOWED", "viewer", { role: "viewer" }, digest],
  ]);
});

test("what is only read, is about no target, or comes from nobody known has no record", async () => {
  const world = await createWorld();
  const digest = await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: { ...apply, release: { digest } }, headers: waited });
  const before = await settled(world);
  await world.send("GET", "/v1/targets/orders");
  await world.send("POST", "/v1/runs", { body: { target: "orders", action: "plan" } });
  await world.send("GET", `/v1/runs/${newRunId("orders")}`);
  await world.send("POST", "/v1/runs", { body: { ...apply, target: "no-such" } });
  const billing = await world.token({ role: "billing" });
  await world.send("POST", "/v1/runs", { token: billing, body: { ...apply, target: "billing" } });
  await world.send("POST", "/v1/runs", { token: null, body: apply });
  await world.send("POST", "/v1/runs", { token: "ey.e.y", body: apply });
  expect(await settled(world)).toEqual(before);
});

test("a refusal of a reader is recorded, of a cancel and an unlock what was allowed and what came of it", async () => {
  const world = await createWorld();
  const barrier = await openBarrier(world);
  await world.bucket.publish({ ...barrier.migration });
  const { body: run } = await world.send("POST", "/v1/runs", {
    body: apply,
    headers: { prefer: "respond-async" },
  });
  const { id } = run as { id: string };
  await barrier.reached();
  const viewer = await world.token({ role: "viewer", sub: "v" });
  await world.send("POST", "/v1/runs", { token: viewer, body: { target: "orders", action: "plan" } });
  await world.send("POST", `/v1/runs/${id}/cancel`, { token: viewer });
  const other = newRunId("orders");
  await world.send("POST", "/v1/targets/orders/unlock", { body: { run: other, reason: "too slow" } });
  await world.send("POST", `/v1/runs/${id}/cancel`, { body: { reason: "wrong release" } });
  await barrier.release();
  const records = (await settled(world)).filter(({ action }) => action !== "apply");
  expect(
    records.map(({ action, outcome, code, run: about, reason }) => [action, outcome, code, about, reason]),
  ).toEqual(
    expect.arrayContaining([
      ["plan", "refused", "NOT_ALLOWED", null, null],
      ["cancel", "refused", "NOT_ALLOWED", null, null],
      ["unlock", "allowed", null, other, "too slow"],
      ["cancel", "allowed", null, id, "wrong release"],
    ]),
  );
  const unlocked = (await recordsOf(world.target.driver)).filter(({ event }) => event === "unlocked");
  expect(unlocked.map(({ outcome, code, principal }) => [outcome, code, principal.rule])).toEqual([
    [null, null, "admin"],
    ["refused", "UNKNOWN_RUN", "admin"],
  ]);
});

test("refusals are recorded up to a limit for each caller, for all that no rule knows together; then they are counted", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  let now = Date.now();
  const app = createApp({ ...world.deps, now: () => new Date(now) });
  const refuse = async (role: string, sub: string): Promise<void> => {
    const token = await world.token({ role, sub });
    const response = await app.hono.request("/v1/runs", {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(apply),
    });
    expect(response.status).toBe(403);
  };
  for (let n = 0; n < 70; n += 1) await refuse("stranger", `s${n}`);
  for (let n = 0; n < 62; n += 1) await refuse("viewer", "v");
  await refuse("viewer", "w");
  const recorded = async (): Promise<readonly FoundRecord[]> =>
    decisions(await recordsOf(world.target.driver));
  const subjects = async (): Promise<string> =>
    (await recorded()).map(({ principal }) => principal.subject.charAt(0)).join("");
  // the first is the run that was allowed
  const full = `c${"s".repeat(60)}${"v".repeat(60)}w`;
  await expect.poll(subjects, { timeout: 30_000 }).toBe(full);
  now += 61_000;
  await refuse("viewer", "v");
  await refuse("stranger", "s");
  await expect.poll(subjects, { timeout: 30_000 }).toBe(`${full}vs`);
  expect((await recorded()).map(({ leftOut }) => leftOut).slice(-3)).toEqual([0, 2, 10]);
});

test("whoever repeats one recorded webhook, or has many names, cannot fill the log", async () => {
  const secret = "0123456789abcdef0123456789abcdef";
  const world = await createWorld({
    limits: { refusalRecords: 100 },
    callers: {
      hooks: { flux: { kind: "hmac", header: "X-Signature", secretFile: "flux" } },
      secrets: { flux: secret },
      rules: [{ id: "flux", hook: "flux", allow: { targets: ["orders"], actions: ["apply"] } }],
    },
  });
  await world.bucket.publish(users);
  // what an hour allows comes back with time, and a slow machine has more of it
  const still = new Date();
  const app = createApp({ ...world.deps, now: () => still });
  const recorded = async (): Promise<readonly FoundRecord[]> => {
    await app.drained();
    return decisions(await recordsOf(world.target.driver));
  };
  const deliver = async (body: string): Promise<void> => {
    const headers = { ...waited, "x-signature": createHmac("sha256", secret).update(body).digest("hex") };
    const answer = await app.hono.request("/v1/hooks/flux/orders", { method: "POST", headers, body });
    expect(answer.status).toBe(200);
  };
  for (let n = 0; n < 70; n += 1) await deliver("one");
  expect(await recorded()).toHaveLength(1 + 60);
  // what is new is always recorded
  await deliver("two");
  expect((await recorded()).at(-1)).toMatchObject({ outcome: "allowed", leftOut: 9 });
  for (let n = 0; n < 50; n += 1) {
    const authorization = `Bearer ${await world.token({ role: "viewer", sub: `v${n}` })}`;
    const headers = { authorization, "content-type": "application/json" };
    const init = { method: "POST", headers, body: JSON.stringify(apply) };
    expect((await app.hono.request("/v1/runs", init)).status).toBe(403);
  }
  expect(await recorded()).toHaveLength(62 + 40);
});

test("one token that repeats an unlock or a cancel cannot fill the log", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  const still = new Date();
  const app = createApp({ ...world.deps, now: () => still });
  const headers = { authorization: `Bearer ${await world.token()}`, "content-type": "application/json" };
  const body = JSON.stringify({ run: newRunId("orders"), reason: "again" });
  const codes: string[] = [];
  for (let n = 0; n < 125; n += 1) {
    const init = { method: "POST", headers, body };
    const answer = await app.hono.request("/v1/targets/orders/unlock", init);
    codes.push(((await answer.json()) as { code: string }).code);
  }
  expect(codes).toEqual([
    ...Array.from({ length: 120 }, () => "UNKNOWN_RUN"),
    ...Array.from({ length: 5 }, () => "RATE_LIMITED"),
  ]);
  await app.drained();
  const records = decisions(await recordsOf(world.target.driver));
  expect(records.filter(({ action }) => action === "unlock")).toHaveLength(120 + 5);
});

test("where it cannot be recorded that something is allowed, nothing comes of it; a refusal stays one", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  await world.database.query(`create function refuse() returns trigger language plpgsql as
    $$begin raise exception 'nobody writes here'; end$$`);
  await world.database.query(
    "create trigger refuse before insert on lockkeeper.audit for each row execute function refuse()",
  );
  await world.bucket.publish({ ...users, ...orders });
  const answer = await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  expect(answer).toMatchObject({ status: 503, body: { code: "AUDIT_UNAVAILABLE" } });
  const cancel = await world.send("POST", `/v1/targets/orders/unlock`, {
    body: { run: newRunId("orders"), reason: "x" },
  });
  expect(cancel).toMatchObject({ status: 503, body: { code: "AUDIT_UNAVAILABLE" } });
  const token = await world.token({ role: "viewer" });
  expect(await world.send("POST", "/v1/runs", { token, body: apply })).toMatchObject({ status: 403 });
  await world.app.drained();
  expect(world.log).toContainEqual(
    expect.objectContaining({
      event: "audit.unwritten",
      fields: expect.objectContaining({ code: "AUDIT_UNAVAILABLE" }) as unknown,
    }),
  );
  expect(await world.database.query("select to_regclass('public.orders') is null as absent")).toEqual([
    { absent: true },
  ]);
  const ended = "select from lockkeeper.runs where ended_at is null";
  await expect.poll(async () => (await world.database.query(ended)).length, { timeout: 20_000 }).toBe(0);
});

test("where the database makes another decision of it, the run does not begin, now or later", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  await world.database.query(`create function forge() returns trigger language plpgsql as $$begin
    new.text := replace(new.text, '"decision"', '"declared"'); return new; end$$`);
  await world.database.query(
    "create trigger forge before insert on lockkeeper.audit for each row execute function forge()",
  );
  await world.bucket.publish({ ...users, ...orders });
  const answer = await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  expect(answer).toMatchObject({ status: 409, body: { code: "AUDIT_BROKEN" } });
  const newest =
    "select status, outcome, error->>'code' as code from lockkeeper.runs order by created_at desc limit 1";
  await expect
    .poll(() => world.database.query(newest), { timeout: 20_000 })
    .toEqual([{ status: "failed", outcome: "failed", code: "AUDIT_BROKEN" }]);
  expect(await world.database.query("select to_regclass('public.orders') is null as absent")).toEqual([
    { absent: true },
  ]);
});

test("the server's log has every record with its link, which prove the chain", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: waited });
  const token = await world.token({ role: "viewer" });
  await world.send("POST", "/v1/runs", { token, body: apply });
  await world.app.drained();
  const lines: string[] = [];
  const log = logTo({ write: (line) => lines.push(line) }, () => new Date());
  for (const record of world.log) log(record);
  const entries = await world.target.driver.audit.read({ after: 0, limit: 100 }, never);
  expect(entries).toHaveLength(4);
  const logged = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const { seq, sha256, previous, text } of entries) {
    expect(logged.filter((line) => line["event"] === "audit" && line["seq"] === seq)).toMatchObject([
      { level: "info", sha256, previous, target: "orders", record: JSON.parse(text) as unknown },
    ]);
  }
  const expected = new ExpectedLinks("orders");
  for (const line of lines) expected.addLine(line);
  expect(await verifyAudit(world.target.driver.audit, expected.links, never)).toMatchObject({
    entries: 4,
    expected: 4,
  });
});

test("the address is that of the socket's other end, whatever headers say", async () => {
  const world = await createWorld();
  const stop = new AbortController();
  const server = await listen({ ...world.deps, signal: stop.signal }, { host: "127.0.0.1", port: 0 });
  const response = await fetch(`${server.url}/v1/targets/orders/unlock`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${await world.token({ role: "viewer" })}`,
      "content-type": "application/json",
      "x-forwarded-for": "203.0.113.9",
      "x-real-ip": "203.0.113.9",
    },
    body: "{}",
  });
  expect(response.status).toBe(403);
  await response.body?.cancel();
  stop.abort();
  await server.stopped;
  expect(decisions(await recordsOf(world.target.driver))).toMatchObject([
    { action: "unlock", outcome: "refused", sourceIp: "127.0.0.1" },
  ]);
});

test("a webhook's request is recorded as that of its sender, without anything of its body or its signature", async () => {
  const secret = "0123456789abcdef0123456789abcdef";
  const world = await createWorld({
    callers: {
      hooks: { flux: { kind: "hmac", header: "X-Signature", prefix: "sha256=", secretFile: "flux" } },
      secrets: { flux: secret },
      rules: [{ id: "flux-orders", hook: "flux", allow: { targets: ["orders"], actions: ["apply"] } }],
    },
  });
  await world.bucket.publish(users);
  const text = '{"token":"hunter2"}';
  const signature = createHmac("sha256", secret).update(text).digest("hex");
  const headers = { ...waited, "x-signature": `sha256=${signature}` };
  const answer = await world.send("POST", "/v1/hooks/flux/orders", { token: null, text, headers });
  expect(answer.status).toBe(200);
  const records = await recordsOf(world.target.driver);
  expect(story(records)).toEqual(["decision allowed", "run.begun", "run.ended applied"]);
  expect(records[0]).toMatchObject({
    trigger: "event",
    principal: { issuer: "urn:lockkeeper:hook:flux", subject: "flux", rule: "flux-orders", claims: {} },
    requested: { goal: "latest", digest: null, plan: null },
  });
  for (const hidden of ["hunter2", secret, signature]) expect(JSON.stringify(records)).not.toContain(hidden);
  const other = '{"target":"orders","action":"rollback","to":"0"}';
  const signed = createHmac("sha256", secret).update(other).digest("hex");
  const refused = await world.send("POST", "/v1/hooks/flux", {
    token: null,
    text: other,
    headers: { "x-signature": `sha256=${signed}` },
  });
  expect(refused.status).toBe(403);
  expect((await settled(world)).at(-1)).toMatchObject({
    action: "rollback",
    outcome: "refused",
    trigger: "event",
  });
});
