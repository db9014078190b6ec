import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGcs, startS3 } from "../support/bucket.ts";
import type { BucketServer, S3Server } from "../support/bucket.ts";
import { createDatabase } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { folderWith, run } from "./program.ts";

const migrations = {
  "m/1_users.up.sql": "create table users (id int);",
  "m/1_users.down.sql": "drop table users;",
};

/** From keys to an applied release through a bucket that variables and flags lead to. */
async function throughBucket(
  bucket: string,
  variables: Readonly<Record<string, string>>,
  flags: readonly string[] = [],
): Promise<void> {
  const database = await createDatabase();
  const folder = await folderWith(migrations);
  const call = (...argv: string[]) =>
    run([...argv, ...flags], folder, { ...variables, DATABASE_URL: database.url });
  expect(await run(["keygen", "--out", "k"], folder)).toMatchObject({ code: 0 });
  const published = await call("publish", "m", `${bucket}/orders`, "--stream", "orders", "--key", "k");
  expect(published).toMatchObject({ code: 0, stdout: expect.stringContaining("published") });
  const release = ["--source", `${bucket}/orders`, "--stream", "orders", "--trust", "k.pub"];
  expect(await call("up", ...release)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("1 migration done"),
  });
  expect(await call("up", ...release)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("nothing to do"),
  });
  expect(await database.query("select to_regclass('users') is not null as there")).toEqual([{ there: true }]);
}

describe("S3", () => {
  needs("versitygw");
  let server: S3Server;
  beforeAll(async () => (server = await startS3("versitygw")));
  afterAll(() => server.stop());
  const keys = (): Record<string, string> => ({
    AWS_ACCESS_KEY_ID: server.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.credentials.secretAccessKey,
  });

  test("is reached by the usual variables of AWS", { timeout: 90_000 }, async () => {
    const variables = { ...keys(), AWS_ENDPOINT_URL: server.endpoint, AWS_REGION: "us-east-1" };
    await throughBucket(await server.createBucket(), variables);
  });

  test("is reached by flags", { timeout: 90_000 }, async () => {
    const flags = ["--s3-endpoint", server.endpoint, "--s3-region", "us-east-1", "--s3-path-style"];
    await throughBucket(await server.createBucket(), keys(), flags);
  });

  test("that refuses the keys is exit 31, and neither key is printed", { timeout: 90_000 }, async () => {
    const folder = await folderWith(migrations);
    const variables = {
      AWS_ACCESS_KEY_ID: "wrong",
      AWS_SECRET_ACCESS_KEY: "hunter2hunter2",
      AWS_REGION: "us-east-1",
    };
    const argv = [
      "release",
      "show",
      "--source",
      `${await server.createBucket()}/orders`,
      "--s3-endpoint",
      server.endpoint,
    ];
    const { code, stdout, stderr } = await run([...argv, "--verbose"], folder, variables);
    expect({ code, stdout }).toEqual({ code: 31, stdout: "" });
    expect(stderr).toContain("code:     SOURCE_DENIED");
    expect(stderr).not.toContain("hunter2");
  });
});

describe("GCS", () => {
  needs("fake-gcs-server");
  let server: BucketServer;
  beforeAll(async () => (server = await startGcs()));
  afterAll(() => server.stop());

  test(
    "is reached by the emulator's variable, with or without http://, and gcs:// is gs://",
    { timeout: 90_000 },
    async () => {
      const host = new URL(server.endpoint).host;
      const bucket = await server.createBucket();
      await throughBucket(bucket.replace("gs://", "gcs://"), { STORAGE_EMULATOR_HOST: host });
    },
  );

  test("is reached by a flag", { timeout: 90_000 }, async () => {
    await throughBucket(await server.createBucket(), {}, ["--gcs-endpoint", server.endpoint]);
  });
});

describe("a database", () => {
  const password = "p@ss/w%rd #?&='\"+:€";

  test(
    "takes a password with any character from a file, for a URL with parameters",
    { timeout: 60_000 },
    async () => {
      const database = await createDatabase();
      const role = `r_${database.name}`;
      await database.query(`create role ${role} login password '${password.replace("'", "''")}'`);
      try {
        const folder = await folderWith({ password: `${password}\n`, wrong: "another\n" });
        const url = new URL(database.url);
        const shown = `postgres://${role}@${url.host}/${database.name}?application_name=test`;
        expect(
          await run(["version", "--database", shown, "--password-file", "password"], folder),
        ).toMatchObject({ code: 0, stdout: "0\n" });
        const wrong = await run(
          ["version", "--database", shown, "--password-file", "wrong", "--verbose"],
          folder,
        );
        expect(wrong).toMatchObject({
          code: 31,
          stderr: expect.stringContaining("code:     DATABASE_DENIED"),
        });
        expect(wrong.stderr).not.toContain("another");
      } finally {
        await database.query(`drop role ${role}`);
      }
    },
  );

  test("gives the stream its name, unless that cannot be one", { timeout: 60_000 }, async () => {
    const database = await createDatabase();
    const folder = await folderWith(migrations);
    const version = await run(["version", "--output", "json"], folder, { DATABASE_URL: database.url });
    expect(JSON.parse(version.stdout)).toEqual({ stream: database.name, version: null, applied: 0 });
    const odd = await run(["version", "--database", "postgres://h/my%20app"], folder);
    expect(odd).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("--stream <name> (or LOCKKEEPER_STREAM) is missing"),
    });
  });

  test("can keep lockkeeper's tables in another schema", { timeout: 60_000 }, async () => {
    const database = await createDatabase();
    const folder = await folderWith(migrations);
    const argv = [
      "up",
      "--source",
      "m",
      "--unsigned",
      "--schema",
      "kept_elsewhere",
      "--direct-database",
      database.url,
    ];
    expect(await run(argv, folder, { DATABASE_URL: database.url })).toMatchObject({ code: 0 });
    expect(await database.query("select count(*)::int as n from kept_elsewhere.history")).toEqual([{ n: 1 }]);
  });
});
