import { createHmac } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { makeWiring } from "../../src/bin/wire.ts";
import { call } from "../cli/terminal.ts";
import { createWorld, users, type OtherCallers, type World } from "../http/world.ts";
import { createDatabase } from "../support/database.ts";
import { recordOutbound } from "../support/outbound.ts";
import { folderSource, makeKey, publishTo, tempFolder } from "../support/release.ts";
import { runsOf } from "../support/runs-of.ts";

const apply = { target: "orders", action: "apply" } as const;
const secret = "0123456789abcdef0123456789abcdef";
const flux: OtherCallers = {
  hooks: { flux: { kind: "hmac", header: "X-Signature", prefix: "sha256=", secretFile: "hmac" } },
  secrets: { hmac: secret },
  rules: [{ id: "flux", hook: "flux", allow: { targets: ["orders"], actions: ["apply"] } }],
};

function hmac(body: string): string {
  return createHmac("sha256", secret).update(body).digest("hex");
}

/** For requests that get nowhere, and so leave nothing behind. */
let world: World;
beforeAll(async () => {
  world = await createWorld({ callers: flux });
});

describe("attack 47: a request that names where to go", () => {
  const elsewhere = "http://169.254.169.254/latest/meta-data";

  test.for([
    "bucket",
    "url",
    "source",
    "sql",
    "databaseUrl",
    "database",
    "file",
    "issuer",
    "key",
    "stream",
    "environment",
    "trust",
    "unsigned",
    "verify",
  ])("47 a body with the field %s is refused, from a caller and from a webhook", async (field) => {
    const { hosts } = recordOutbound();
    const body = { ...apply, [field]: elsewhere };
    const text = JSON.stringify(body);
    const headers = { "x-signature": `sha256=${hmac(text)}` };
    for (const answer of [
      await world.send("POST", "/v1/runs", { body }),
      await world.send("POST", "/v1/hooks/flux", { token: null, text, headers }),
    ]) {
      expect([answer.status, answer.body.code]).toEqual([400, "INVALID_REQUEST"]);
      expect(answer.body.detail).toContain(`/${field}: is not a known field`);
      expect(answer.text).not.toContain("169.254");
    }
    expect(hosts).toEqual([]);
    expect(await runsOf(world.database)).toBe(0);
  });

  test("47 a query names nothing either", async () => {
    for (const query of [`bucket=${elsewhere}`, "unsigned=1", `source=gs://evil/x`]) {
      const answer = await world.send("POST", `/v1/runs?${query}`, { body: apply });
      expect([answer.status, answer.body.code]).toEqual([400, "INVALID_REQUEST"]);
    }
    for (const path of [
      "/v1/runs?target=orders&url=http://evil.test",
      "/v1/targets/orders?source=s3://evil",
      "/v1/runs?target=orders&target=billing",
      "/v1/targets?x=1",
    ])
      expect((await world.send("GET", path)).status).toBe(400);
    expect(await runsOf(world.database)).toBe(0);
  });

  test("47 a target's name that is an address finds no target", async () => {
    const { hosts } = recordOutbound();
    for (const target of [
      elsewhere,
      "gs://bucket/x",
      "s3://bucket",
      "orders/../billing",
      "ORDERS",
      " orders",
    ]) {
      const answer = await world.send("POST", "/v1/runs", { body: { target, action: "apply" } });
      expect([answer.status, answer.body.code]).toEqual([404, "UNKNOWN_TARGET"]);
    }
    expect(hosts).toEqual([]);
  });

  test("47 Host and forwarding headers change no link and no decision", async () => {
    const site = await createWorld();
    await site.bucket.publish(users);
    const headers = {
      host: "evil.test",
      "x-forwarded-host": "evil.test",
      "x-forwarded-proto": "http",
      "x-forwarded-for": "127.0.0.1",
      "x-original-url": "/v1/targets/orders/unlock",
      "x-http-method-override": "GET",
      forwarded: "host=evil.test",
      prefer: "respond-async",
    };
    const answer = await site.send("POST", "/v1/runs", { body: apply, headers });
    expect(answer.text).not.toContain("evil.test");
    expect(answer.headers.get("location") ?? answer.body.links.self).toMatch(
      /^https:\/\/migrate\.test\/base\/v1\/runs\//,
    );
  });

  test("47 a webhook's body that names a bucket, an address or a run only proves who sent it", async () => {
    const { hosts } = recordOutbound();
    const site = await createWorld({ callers: flux });
    await site.bucket.publish(users);
    for (const text of [
      '{"Records":[{"s3":{"bucket":{"name":"evil"},"object":{"key":"head.json"}}}]}',
      '{"bucket":"evil","name":"gs://evil/head.json","mediaLink":"http://169.254.169.254/"}',
      elsewhere,
      '{"target":"billing","action":"rollback","to":"0","sql":"drop table users"}',
      "\u0000\u0001",
    ]) {
      const headers = { "x-signature": `sha256=${hmac(text)}`, prefer: "wait=50" };
      const { body } = await site.send("POST", "/v1/hooks/flux/orders", { token: null, text, headers });
      expect(body).toMatchObject({ target: "orders", action: "apply", status: "succeeded", to: "1" });
    }
    expect(await runsOf(site.database)).toBe(5);
    expect(hosts).toEqual([]);
  });

  test("47 an id that no run can have is refused, before a database sees it", async () => {
    for (const path of ["/v1/runs?target=orders&pageToken=%00", "/v1/targets/orders/history?run=a'b"])
      expect((await world.send("GET", path)).status).toBe(400);
    for (const id of ["orders.%00", "orders.'", "%2e%2e", "orders%2F..%2Fx.01ARZ3NDEKTSV4RRFFQ69G5FAV"])
      expect((await world.send("GET", `/v1/runs/${id}`)).status).toBe(404);
  });

  test("47 no route takes an event without a signature", async () => {
    for (const path of ["/", "/events", "/v1/events", "/v1/hooks", "/v1/hooks/"]) {
      const answer = await world.app.hono.request(path, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: '{"Records":[{"s3":{"bucket":{"name":"evil"}}}]}',
      });
      expect([401, 404]).toContain(answer.status);
    }
  });
});

describe("attack 48: verification is to be turned off", () => {
  test.for<[string, string, object, Readonly<Record<string, string>>]>([
    ["a field", "/v1/runs", { ...apply, unsigned: true }, {}],
    ["a label's neighbour", "/v1/runs", { ...apply, labels: {}, "--unsigned": true }, {}],
    ["a query", "/v1/runs?unsigned=true", apply, {}],
  ])("48 over HTTP %s is refused", async ([, path, body, headers]) => {
    const answer = await world.send("POST", path, { body, headers });
    expect([answer.status, answer.body.code]).toEqual([400, "INVALID_REQUEST"]);
    expect(await runsOf(world.database)).toBe(0);
  });

  test("48 over HTTP a header or an allowance changes nothing: what nobody trusted has signed is refused", async () => {
    const site = await createWorld();
    await publishTo(folderSource(site.bucket.path), users, { keys: [makeKey()] });
    const headers = { "lockkeeper-unsigned": "1", "x-unsigned": "true", unsigned: "1" };
    const answer = await site.send("POST", "/v1/runs", { body: apply, headers });
    expect([answer.status, answer.body.code]).toEqual([422, "THRESHOLD"]);
    const allowed = await site.send("POST", "/v1/runs", { body: { ...apply, allow: ["unsigned"] } });
    expect([allowed.status, allowed.body.code]).toEqual([400, "INVALID_REQUEST"]);
    await expect(site.database.query("select to_regclass('users') as users")).resolves.toEqual([
      { users: null },
    ]);
  });

  /** A folder of plain files and a database, and the command line upon them. */
  async function createPlain() {
    const [database, { path, ...made }] = await Promise.all([createDatabase(), tempFolder({ ...users })]);
    onTestFinished(() => made[Symbol.asyncDispose]());
    const up = (more: readonly string[], variables: Readonly<Record<string, string>> = {}) =>
      call(["up", "--database", database.url, "--stream", "orders", ...more], {
        variables,
        wiring: makeWiring(variables),
      });
    const isThere = async (): Promise<boolean> =>
      (await database.query("select to_regclass('users') as users"))[0]?.users !== null;
    return { database, path, up, isThere };
  }

  test("48 no variable of the environment turns it off", async () => {
    const { path, up, isThere } = await createPlain();
    const variables = { LOCKKEEPER_UNSIGNED: "1", UNSIGNED: "1", LOCKKEEPER_TRUST: "" };
    const { code, stderr } = await up(["--source", path], variables);
    expect(code).toBe(2);
    expect(stderr).toContain("--trust");
    expect(await isThere()).toBe(false);
  });

  test("48 no configuration key turns it off", async () => {
    const { path, up, isThere, database } = await createPlain();
    const file = join(path, "lockkeeper.yaml");
    const target = `{ engine: postgres, unsigned: true, stream: orders, source: "${path}", database: { url: "${database.url}" } }`;
    await writeFile(file, `version: 1\ntargets:\n  orders: ${target}\n`);
    const { code, stderr } = await up(["--config", file, "--target", "orders"]);
    expect(code).toBe(2);
    expect(stderr).toContain("unsigned");
    expect(await isThere()).toBe(false);
  });

  test("48 a protected environment refuses a plain folder", async () => {
    const { path, up, isThere } = await createPlain();
    for (const environment of ["production", "Production"]) {
      const { code, stderr } = await up(["--source", path, "--unsigned", "--environment", environment]);
      expect([code, stderr]).toEqual([20, expect.stringContaining("UNSIGNED_REFUSED")]);
    }
    expect(await isThere()).toBe(false);
  });

  test("48 a database with a high-water mark refuses a plain folder", async () => {
    const { path, up, database } = await createPlain();
    const key = makeKey();
    const { path: bucket, ...made } = await tempFolder({ "key.pub": key.publicPem });
    onTestFinished(() => made[Symbol.asyncDispose]());
    await publishTo(folderSource(bucket), users, { keys: [key] });
    expect((await up(["--source", bucket, "--trust", join(bucket, "key.pub")])).code).toBe(0);
    await writeFile(join(path, "2_evil.up.sql"), "create table evil (id int);");
    const { code, stderr } = await up(["--source", path, "--unsigned"]);
    expect([code, stderr]).toEqual([20, expect.stringContaining("UNSIGNED_REFUSED")]);
    await expect(database.query("select to_regclass('evil') as evil")).resolves.toEqual([{ evil: null }]);
  });
});
