import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGcs, startS3 } from "../support/bucket.ts";
import type { BucketServer, S3Server } from "../support/bucket.ts";
import { createMongoDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { createIssuer } from "../support/token.ts";
import { folderWith, run, start } from "./program.ts";

needs("mongodb");

const files = {
  "m/000001_users.up.json": `[
  { "create": "users", "validator": { "$jsonSchema": { "required": ["email"] } } },
  { "createIndexes": "users", "indexes": [{ "key": { "email": 1 }, "name": "by_email", "unique": true }] },
  { "insert": "users", "documents": [{ "_id": 1, "email": "Ada@x.org" }, { "_id": 2, "email": "Bob@x.org" }] }
]`,
  "m/000001_users.down.json": '[{ "drop": "users" }]',
  "m/000002_status.up.json": `[
  { "aggregate": "users", "pipeline": [
    { "$addFields": { "status": { "$ifNull": ["$status", "new"] } } }, { "$out": "users" }
  ], "cursor": {}, "allowDiskUse": true }
]`,
  "m/000002_status.down.json":
    '[{ "update": "users", "updates": [{ "q": {}, "u": [{ "$unset": ["status"] }], "multi": true }] }]',
  "m/000003_lower.up.json": `[
  { "$lockkeeper": { "backfill": true, "table": "users", "batch": 1 } },
  { "update": "users", "updates": [
    { "q": {}, "u": [{ "$set": { "email": { "$toLower": "$email" } } }], "multi": true }
  ] }
]`,
  "m/000003_lower.down.json": "[]",
};

/** The files published to a bucket, and a database; each call must succeed. */
async function release(bucket: string, variables: Readonly<Record<string, string>>) {
  const database = await createMongoDatabase();
  const folder = await folderWith(files);
  const call = async (...argv: readonly string[]) => {
    const ended = await run(argv, folder, { ...variables, DATABASE_URL: database.url });
    expect(ended, ended.stderr).toMatchObject({ code: 0 });
    return ended.stdout;
  };
  await call("keygen", "--out", "k");
  const published = await call("publish", "m", `${bucket}/shop`, "--stream", "shop", "--key", "k");
  expect(published).toContain("outcome     published");
  const users = () => database.db.collection("users").find().sort({ _id: 1 }).toArray();
  const flags = ["--source", `${bucket}/shop`, "--stream", "shop", "--trust", "k.pub"];
  const follow = (...argv: readonly string[]) => call(...argv, ...flags);
  return { call, follow, users };
}

const applied = [
  { _id: 1, email: "ada@x.org", status: "new" },
  { _id: 2, email: "bob@x.org", status: "new" },
];

describe("MongoDB from S3", () => {
  needs("versitygw");
  let server: S3Server;
  beforeAll(async () => (server = await startS3("versitygw")));
  afterAll(() => server.stop());

  test("is brought up, looked at, taken back and brought up again", { timeout: 180_000 }, async () => {
    const { call, follow, users } = await release(await server.createBucket(), {
      AWS_ACCESS_KEY_ID: server.credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.credentials.secretAccessKey,
      AWS_ENDPOINT_URL: server.endpoint,
      AWS_REGION: "us-east-1",
    });
    expect(await follow("up")).toContain("3 migrations done");
    expect(await users()).toEqual(applied);
    expect(await follow("status")).toMatch(/version +000003 \(3 applied\)/);
    expect(await follow("down", "1")).toContain("000003_lower.down.json");
    expect(await follow("goto", "1")).toContain("000002_status.down.json");
    expect(await users()).toEqual(applied.map(({ _id, email }) => ({ _id, email })));
    expect(await follow("goto", "3")).toContain("2 migrations done");
    expect(await users()).toEqual(applied);
    expect(await call("history", "--stream", "shop")).toMatch(/000003_lower\.up\.json/);
  });
});

describe("MongoDB from GCS", () => {
  needs("fake-gcs-server");
  let server: BucketServer;
  beforeAll(async () => (server = await startGcs()));
  afterAll(() => server.stop());

  test("is brought up by a pod that starts", { timeout: 180_000 }, async () => {
    const bucket = (await server.createBucket()).replace("gs://", "gcs://");
    const { follow, users } = await release(bucket, { STORAGE_EMULATOR_HOST: new URL(server.endpoint).host });
    expect(await follow("converge")).toContain("3 migrations done");
    expect(await follow("converge")).toContain("nothing to do");
    expect(await users()).toEqual(applied);
  });
});

describe("MongoDB, as the program is called", () => {
  test(
    "refuses a release for PostgreSQL, and a target whose URL is of another engine",
    { timeout: 120_000 },
    async () => {
      const database = await createMongoDatabase();
      const folder = await folderWith({
        "sql/1_a.up.sql": "select 1;",
        "lockkeeper.yaml": `
version: 1
trust: { t: { keys: [k.pub] } }
targets:
  shop: { engine: postgres, stream: shop, source: ./b, trust: t, database: { urlEnv: SHOP } }
`,
      });
      await run(["keygen", "--out", "k"], folder);
      await run(["publish", "sql", "b", "--stream", "shop", "--key", "k"], folder);
      const release = ["--source", "b", "--stream", "shop", "--trust", "k.pub"];
      const wrong = await run(["up", ...release, "--database", database.url], folder);
      expect(wrong).toMatchObject({ code: 20, stderr: expect.stringContaining("WRONG_ENGINE") });
      const target = await run(["up", "--target", "shop"], folder, { SHOP: database.url });
      expect(target).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('target "shop" is for postgres, and its database URL for mongodb'),
      });
      expect(await database.db.collections()).toEqual([]);
    },
  );

  test(
    "takes plain files, tells what golang-migrate would not take, and where a command failed",
    { timeout: 120_000 },
    async () => {
      const database = await createMongoDatabase();
      const folder = await folderWith({
        "m/1_a.up.json":
          '[{ "insert": "c", "documents": [{ "_id": 1, "at": { "$date": "2026-01-01T00:00:00Z" } }] }]',
        "m/2_b.up.json":
          '[\n{ "insert": "c", "documents": [{ "_id": 2 }] },\n{ "insert": "c", "documents": [{ "_id": 1 }] }]',
      });
      const argv = ["up", "--source", "m", "--unsigned", "--stream", "shop", "--database", database.url];
      const failed = await run(argv, folder);
      expect(failed).toMatchObject({ code: 21 });
      expect(failed.stderr).toContain("1_a.up.json:1:51: golang-migrate would not take this file");
      expect(failed.stderr).toMatch(/2_b\.up\.json:3.*11000/);
      expect(await database.db.collection("c").findOne({ _id: 1 as never })).toEqual({
        _id: 1,
        at: new Date("2026-01-01T00:00:00Z"),
      });
      expect((await run(["version", "--stream", "shop", "--database", database.url], folder)).stdout).toBe(
        "1\n",
      );
    },
  );

  test("does all that golang-migrate's users write, up and down", { timeout: 120_000 }, async () => {
    const database = await createMongoDatabase();
    const users = (pipeline: readonly unknown[]) => ({
      aggregate: "users",
      pipeline: [...pipeline, { $out: "users" }],
      cursor: {},
      allowDiskUse: true,
    });
    const names = ["first", "last", "tags"].map((field) => ({ key: { [field]: 1 }, name: `by_${field}` }));
    const folder = await folderWith({
      "m/1_users.up.json": JSON.stringify([
        {
          insert: "users",
          documents: [{ _id: 1, first: "Ada", last: "L", tags: ["a", "b"], x: 1, y: 2, z: 3 }],
        },
        { createIndexes: "users", indexes: names },
        { createUser: database.name, pwd: "secret", roles: [{ role: "readWrite", db: database.name }] },
      ]),
      "m/1_users.down.json": JSON.stringify([{ dropUser: database.name }, { drop: "users" }]),
      "m/2_shape.up.json": JSON.stringify([
        users([{ $addFields: { state: { $ifNull: ["$state", "new"] }, at: "$$NOW" } }]),
        users([{ $addFields: { labels: { $map: { input: "$tags", as: "t", in: { $toUpper: "$$t" } } } } }]),
        users([{ $unset: "x" }]),
        users([{ $unset: ["y", "z"] }]),
        users([
          {
            $project: {
              first: 1,
              last: 1,
              labels: 1,
              state: 1,
              at: 1,
              full: { $concat: ["$first", " ", "$last"] },
            },
          },
        ]),
        { createIndexes: "users", indexes: names },
        // with an array of names in a server of MongoDB's own; SecantusDB takes one at a time
        ...["by_first", "by_last"].map((index) => ({ dropIndexes: "users", index })),
        { collMod: "users", validator: { $jsonSchema: { required: ["full"] } }, validationLevel: "strict" },
      ]),
      "m/2_shape.down.json": JSON.stringify([
        { collMod: "users", validator: {}, validationLevel: "off" },
        { update: "users", updates: [{ q: {}, u: { $unset: { full: "", labels: "" } }, multi: true }] },
      ]),
    });
    const flags = ["--source", "m", "--unsigned", "--stream", "shop", "--database", database.url];
    const up = await run(["up", ...flags], folder);
    expect(up, up.stderr).toMatchObject({ code: 0, stdout: expect.stringContaining("2 migrations done") });
    expect(up.stderr).not.toContain("golang-migrate would not");
    expect(await database.db.collection("users").findOne()).toEqual({
      _id: 1,
      first: "Ada",
      last: "L",
      full: "Ada L",
      state: "new",
      at: expect.any(Date),
      labels: ["A", "B"],
    });
    expect((await database.db.collection("users").indexes()).map(({ name }) => name)).toEqual([
      "_id_",
      "by_tags",
    ]);
    await expect(database.db.collection("users").insertOne({})).rejects.toMatchObject({ code: 121 });
    expect((await database.db.command({ usersInfo: database.name }))["users"]).toHaveLength(1);

    const down = await run(["goto", "0", ...flags], folder);
    expect(down, down.stderr).toMatchObject({ code: 0 });
    expect((await database.db.command({ usersInfo: database.name }))["users"]).toEqual([]);
    expect(await database.db.listCollections({ name: "users" }).toArray()).toEqual([]);
  });

  test(
    "is brought up over HTTP by a caller that knows neither its URL nor its commands",
    { timeout: 180_000 },
    async () => {
      const [database, issuer] = await Promise.all([createMongoDatabase(), createIssuer()]);
      const folder = await folderWith({
        ...files,
        "jwks.json": issuer.jwks,
        "policy.json": issuer.policy("shop"),
        "lockkeeper.yaml": `
version: 1
policy: policy.json
trust: { t: { keys: [k.pub] } }
targets:
  shop: { engine: mongodb, stream: shop, source: ./b, trust: t, database: { urlEnv: SHOP } }
`,
      });
      await run(["keygen", "--out", "k"], folder);
      await run(["publish", "m", "b", "--stream", "shop", "--key", "k"], folder);
      const server = start(["serve", "--config", "lockkeeper.yaml", "--listen", "127.0.0.1:0"], folder, {
        SHOP: database.url,
      });
      await expect.poll(() => server.said().stdout).toContain("server.started");
      const url = /"url":"(http[^"]+)"/.exec(server.said().stdout)?.[1];
      const headers = { authorization: `Bearer ${await issuer.token()}`, "content-type": "application/json" };
      const body = JSON.stringify({ target: "shop", action: "apply" });
      const posted = await fetch(`${url}/v1/runs`, { method: "POST", headers, body });
      const { id } = v.parse(v.object({ id: v.string() }), await posted.json());
      await expect
        .poll(async () => (await fetch(`${url}/v1/runs/${id}`, { headers })).json())
        .toMatchObject({ done: true });
      const ended = await fetch(`${url}/v1/runs/${id}`, { headers });
      expect(await ended.json()).toMatchObject({ status: "succeeded", outcome: "applied", to: "000003" });
      expect(await database.db.collection("users").countDocuments({ status: "new" })).toBe(2);
      expect(server.said().stdout).not.toContain(database.url);
    },
  );
});
