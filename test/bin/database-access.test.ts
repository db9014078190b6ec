import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  CreateSecretCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
} from "@aws-sdk/client-secrets-manager";
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFinished,
  test,
  vi,
} from "vitest";
import { keptAccess } from "../../src/bin/kept-access.ts";
import { readAccess } from "../../src/bin/open-database.ts";
import { credentialOf, urlOfSecret } from "../../src/bin/secret-content.ts";
import type { AccessSettings } from "../../src/bin/settings.ts";
import { openDriver } from "../../src/driver/open.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { createDatabase } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { never } from "../support/steps.ts";
import { folderWith, run } from "./program.ts";

afterEach(() => void vi.unstubAllEnvs());

describe("the content of a secret", () => {
  const rds = {
    engine: "postgres",
    host: "orders.c0ffee.eu-west-1.rds.amazonaws.com",
    port: 5433,
    username: "run ner",
    password: "p@ss/w?rd",
    dbname: "orders",
  };

  test.for<[string, string, string]>([
    ["a URL", "postgres://u:p@h/d\n", "postgres://u:p@h/d"],
    [
      "what RDS keeps",
      JSON.stringify(rds),
      "postgres://run%20ner:p%40ss%2Fw%3Frd@orders.c0ffee.eu-west-1.rds.amazonaws.com:5433/orders?sslmode=verify-full",
    ],
    [
      "the same with its port as text, of another host",
      JSON.stringify({ ...rds, port: "5432", host: "db.internal", engine: "aurora-postgresql" }),
      "postgres://run%20ner:p%40ss%2Fw%3Frd@db.internal:5432/orders",
    ],
  ])("is a database's URL: %s", ([, content, url]) => {
    expect(urlOfSecret(content, "s")).toBe(url);
  });

  test.for<[string, object, string]>([
    [
      "what RDS manages by itself, which has no host",
      { username: "u", password: "planted" },
      "passwordSecret",
    ],
    ["a host that is more than one", { ...rds, host: "h/planted" }, "passwordSecret"],
    ["no database", { ...rds, dbname: undefined }, "passwordSecret"],
    ["another engine", { ...rds, engine: "mysql" }, "URL"],
  ])("is no database's URL: %s", ([, content, hint]) => {
    const error = thrownBy(() => urlOfSecret(JSON.stringify(content), "orders"));
    expect(error).toMatchObject({ code: "CONFIG", hint: expect.stringContaining(hint) });
    expect(JSON.stringify(error) + String(error)).not.toMatch(/planted|p@ss/);
  });

  test("is a password, or user and password; a password may begin with a brace", () => {
    expect(credentialOf("p w\n", "s")).toEqual({ user: undefined, password: "p w" });
    expect(credentialOf('{"username":"u","password":"p","engine":"x"}', "s")).toEqual({
      user: "u",
      password: "p",
    });
    expect(credentialOf("{hunter2", "s")).toEqual({ user: undefined, password: "{hunter2" });
    expect(thrownBy(() => credentialOf('{"username":"u"}', "s"))).toMatchObject({ code: "CONFIG" });
  });
});

describe("tokens", () => {
  test("are for PostgreSQL", async () => {
    const access: AccessSettings = {
      url: { kind: "text", url: "mongodb://u@h/d" },
      password: { kind: "iam", platform: "rds", endpoint: undefined },
    };
    await expect(
      keptAccess(access, () => Promise.resolve("mongodb://u@h/d"), undefined, {}),
    ).rejects.toMatchObject({
      code: "CONFIG",
    });
  });

  test("are of the platform that is named, for people without parameters", async () => {
    const access = await readAccess(
      {
        url: { kind: "text", url: "postgres://u@h/d?sslmode=verify-full" },
        password: { kind: "iam", platform: "cloud-sql", endpoint: undefined },
      },
      "postgres",
      {},
    );
    expect(access).toMatchObject({
      engine: "postgres",
      shown: "postgres://u@h/d",
      token: { mayStayLocal: true },
    });
  });
});

describe("a database whose password is in a file", () => {
  test("is reached with what is there now: a mounted secret is renewed in place", async () => {
    const database = await createDatabase({ endsWith: "file" });
    const role = `mounted_${database.name.slice(-8)}`;
    await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'planted-first'`);
    onTestFinished(async () => {
      await database.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
      await database.drop();
    });
    const url = `postgres://${role}@${new URL(database.url).host}/${database.name}`;
    const folder = await folderWith({ url, password: "planted-first\n" });
    const path = join(folder, "password");
    const access = await readAccess(
      { url: { kind: "file", path: join(folder, "url") }, password: { kind: "file", path } },
      "postgres",
      {},
    );
    const driver = await openDriver(access);
    onTestFinished(() => driver.close());
    const state = (): Promise<string> => driver.state("orders", never).then(() => "known", String);
    expect(await state()).toBe("known");
    await database.query(`ALTER ROLE ${role} PASSWORD 'planted-second'`);
    await database.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`);
    let refusal = "";
    const refused = async (): Promise<string> => (refusal = await state());
    await expect.poll(refused, { timeout: 60_000 }).toContain("password authentication failed");
    expect(refusal).not.toContain("planted");
    await writeFile(path, "planted-second\n");
    expect(await state()).toBe("known");
  });

  test.for([
    ["a URL that cannot be used", "postgres://h", undefined, "USAGE"],
    ["another engine's for a token", "mongodb://u@h/d", "rds", "CONFIG"],
    ["a token and a password", "postgres://u:planted@h/d", "rds", "USAGE"],
    ["a token without TLS", "postgres://u@h/d?sslmode=prefer", "cloud-sql", "USAGE"],
  ] as const)("is refused before anybody asks it anything for %s", async ([, url, platform, code]) => {
    const folder = await folderWith({ url });
    const path = join(folder, "url");
    const password =
      platform === undefined ? undefined : ({ kind: "iam", platform, endpoint: undefined } as const);
    const reading = readAccess({ url: { kind: "file", path }, password }, undefined, {});
    await expect(reading).rejects.toMatchObject({ code, message: expect.not.stringContaining("planted") });
  });
});

describe("a database whose secret AWS keeps", () => {
  needs("ministack");
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3("ministack");
  });
  afterAll(() => server.stop());
  let variables: Record<string, string> = {};
  beforeEach(() => {
    variables = {
      AWS_ENDPOINT_URL_SECRETS_MANAGER: server.endpoint,
      AWS_ACCESS_KEY_ID: server.credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.credentials.secretAccessKey,
    };
  });

  const migrations = { "m/1_users.up.sql": "create table users (id int);" };

  async function keep(name: string, content: unknown) {
    const client = new SecretsManagerClient({
      endpoint: server.endpoint,
      region: "us-east-1",
      credentials: server.credentials,
    });
    onTestFinished(() => client.destroy());
    const text = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
    const { ARN = "" } = await client.send(
      new CreateSecretCommand({ Name: name, SecretString: text(content) }),
    );
    const put = (value: unknown) =>
      client.send(new PutSecretValueCommand({ SecretId: ARN, SecretString: text(value) }));
    return { arn: ARN, put };
  }

  test(
    "is migrated by the command line, by RDS's JSON and by a password beside a URL",
    { timeout: 120_000 },
    async () => {
      const database = await createDatabase();
      const { username, password, hostname: host, port } = new URL(database.url);
      const json = await keep("json", {
        engine: "postgres",
        username,
        password,
        host,
        port: Number(port),
        dbname: database.name,
      });
      const managed = await keep("managed", { username, password });
      const folder = await folderWith(migrations);
      const up = ["up", "--source", "m", "--unsigned", "--output", "json", "--database-secret", json.arn];
      const applied = await run(up, folder, variables);
      expect(applied).toMatchObject({ code: 0, stderr: expect.not.stringContaining(password) });
      expect(JSON.parse(applied.stdout)).toMatchObject({ outcome: "applied", target: database.name });
      const bare = `postgres://${host}:${port}/${database.name}`;
      const version = ["version", "--password-secret", managed.arn, "--database", bare];
      expect((await run(version, folder, variables)).stdout.trim()).toBe("1");
    },
  );

  test(
    "is reached through a rotation of its password by a driver that stays open, and no error says either",
    { timeout: 120_000 },
    async () => {
      for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
      const database = await createDatabase({ endsWith: "file" });
      const role = `rotated_${database.name.slice(-8)}`;
      await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'planted-first'`);
      onTestFinished(async () => {
        await database.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
        await database.drop();
      });
      const { host } = new URL(database.url);
      const secret = await keep("rotated", { username: role, password: "planted-first" });
      const access = await readAccess(
        {
          url: { kind: "text", url: `postgres://${host}/${database.name}` },
          password: { kind: "secret", name: secret.arn },
        },
        "postgres",
        variables,
      );
      const driver = await openDriver(access);
      onTestFinished(() => driver.close());
      const state = (): Promise<string> => driver.state("orders", never).then(() => "known", String);
      expect(await state()).toBe("known");
      await database.query(`ALTER ROLE ${role} PASSWORD 'planted-second'`);
      await database.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'`,
      );
      let refusal = "";
      const refused = async (): Promise<string> => (refusal = await state());
      await expect.poll(refused, { timeout: 60_000 }).toContain("password authentication failed");
      expect(refusal).not.toContain("planted");
      await secret.put({ username: role, password: "planted-second" });
      expect(await state()).toBe("known");
      expect(driver.url).toBe(`postgres://${role}@${host}/${database.name}`);
    },
  );
});

function thrownBy(call: () => unknown): unknown {
  try {
    return call();
  } catch (thrown) {
    return thrown;
  }
}
