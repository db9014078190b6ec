import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { chooseSettings, loadConfig } from "../../src/bin/config.ts";
import { defaultLimits } from "../../src/bin/settings.ts";
import type { TargetChoice } from "../../src/cli/context.ts";

const nothing: TargetChoice = {
  target: undefined,
  config: undefined,
  source: undefined,
  database: undefined,
  databaseSecret: undefined,
  passwordFile: undefined,
  passwordSecret: undefined,
  databaseIam: undefined,
  directDatabase: undefined,
  schema: undefined,
  stream: undefined,
  environment: undefined,
  trust: [],
  isUnsigned: false,
  format: undefined,
  placeholders: {},
  allowsLate: false,
  limits: {
    waitMs: undefined,
    lockTimeoutMs: undefined,
    statementTimeoutMs: undefined,
    deadlineMs: undefined,
  },
  orphans: undefined,
  dependencies: undefined,
  backup: { command: undefined, url: undefined, headerFile: undefined, timeoutMs: undefined },
  storage: { s3Endpoint: undefined, s3Region: undefined, s3PathStyle: undefined, gcsEndpoint: undefined },
};

const text = `
version: 1
publicUrl: https://migrate.example/
listen: "[::1]:9000"
policy: callers/policy.json
trust: { prod: { threshold: 2, keys: [alice.pub, bob.pub] } }
s3: { endpoint: "http://127.0.0.1:9000", region: eu-west-1 }
targets:
  orders-prod:
    engine: postgres
    environment: production
    stream: orders
    source: s3://bucket/orders
    trust: prod
    database: { urlFile: secrets/db, passwordFile: /abs/password, schema: migrations }
    limits: { wait: 1m, deadline: 15m }
    onFailure: rollback
    orphans: cancel
    backup: { command: [./backup.sh, --fast], timeout: 2h }
    s3: { region: us-east-1 }
  orders-dev:
    engine: postgres
    stream: orders
    source: ./releases
    database: { urlEnv: DEV_DATABASE }
`;

describe("a configuration", () => {
  test("has its paths relative to the file and its durations in milliseconds", async () => {
    const { folder, file } = await write();
    const config = await loadConfig(file);
    expect(config).toMatchObject({
      publicUrl: "https://migrate.example",
      listen: { host: "::1", port: 9000 },
      policyFile: join(folder, "callers/policy.json"),
    });
    expect(config.targets.get("orders-prod")).toMatchObject({
      name: "orders-prod",
      source: "s3://bucket/orders",
      trust: { kind: "section", folder, value: { threshold: 2 } },
      database: {
        url: { kind: "file", path: join(folder, "secrets/db") },
        password: { kind: "file", path: "/abs/password" },
        schema: "migrations",
      },
      limits: { waitMs: 60_000, lockTimeoutMs: 5_000, statementTimeoutMs: 0, deadlineMs: 900_000 },
      onFailure: "rollback",
      backup: { kind: "command", argv: [join(folder, "backup.sh"), "--fast"], timeoutMs: 7_200_000 },
      storage: { s3: { endpoint: "http://127.0.0.1:9000", region: "us-east-1" }, gcs: {} },
    });
    expect(config.targets.get("orders-dev")).toMatchObject({
      environment: "default",
      source: join(folder, "releases"),
      trust: undefined,
      database: { url: { kind: "variable", name: "DEV_DATABASE" } },
      limits: defaultLimits,
    });
  });
});

describe("a target's settings", () => {
  test("are the file's where nothing else is said", async () => {
    const { file } = await write();
    const settings = await chooseSettings({ ...nothing, target: "orders-prod", config: file }, {});
    expect(settings).toMatchObject({
      name: "orders-prod",
      stream: "orders",
      environment: "production",
      limits: { waitMs: 60_000 },
      orphans: "cancel",
    });
  });

  test("take a backup from the flags, with the file's time, and never two", async () => {
    const { file } = await write();
    const choose = (backup: Partial<TargetChoice["backup"]>) =>
      chooseSettings(
        { ...nothing, target: "orders-prod", config: file, backup: { ...nothing.backup, ...backup } },
        {},
      );
    const url = "https://backup.example";
    expect((await choose({ url })).backup).toEqual({
      kind: "webhook",
      url,
      headerFile: undefined,
      timeoutMs: 7_200_000,
    });
    expect((await choose({ command: ["a"], timeoutMs: 5 })).backup).toEqual({
      kind: "command",
      argv: ["a"],
      timeoutMs: 5,
    });
    await expect(choose({ command: ["a"], url })).rejects.toMatchObject({ code: "USAGE" });
    await expect(choose({ headerFile: "h" })).rejects.toMatchObject({ code: "USAGE" });
  });

  test("are the flags' where flag and file differ", async () => {
    const { file } = await write();
    const choice: TargetChoice = {
      ...nothing,
      target: "orders-prod",
      config: file,
      source: "./other",
      stream: "other",
      trust: ["carol.pub"],
      database: "postgres://h/other",
      orphans: "wait",
      limits: { ...nothing.limits, waitMs: 5 },
      storage: { ...nothing.storage, s3PathStyle: true },
    };
    expect(await chooseSettings(choice, {})).toMatchObject({
      source: "./other",
      stream: "other",
      trust: { kind: "files", paths: ["carol.pub"] },
      // the file's password belongs to the file's URL
      database: {
        url: { kind: "text", url: "postgres://h/other" },
        password: undefined,
        schema: "migrations",
      },
      limits: { waitMs: 5, deadlineMs: 900_000 },
      orphans: "wait",
      storage: { s3: { endpoint: "http://127.0.0.1:9000", region: "us-east-1", forcePathStyle: true } },
    });
  });

  test("take DATABASE_URL only where no target names a database", async () => {
    const { file } = await write();
    const variables = { DATABASE_URL: "postgres://h/app" };
    const named = await chooseSettings({ ...nothing, target: "orders-dev", config: file }, variables);
    const unnamed = await chooseSettings(nothing, variables);
    expect(named.database?.url).toEqual({ kind: "variable", name: "DEV_DATABASE" });
    expect(unnamed.database?.url).toEqual({ kind: "text", url: "postgres://h/app" });
    expect(
      (await chooseSettings({ ...nothing, database: "postgres://h/flag" }, variables)).database?.url,
    ).toEqual({
      kind: "text",
      url: "postgres://h/flag",
    });
  });

  test("name the nearest target where the one asked for is not there", async () => {
    const { file } = await write();
    await expect(
      chooseSettings({ ...nothing, target: "order-prod", config: file }, {}),
    ).rejects.toMatchObject({
      code: "UNKNOWN_TARGET",
      hint: "did you mean orders-prod?",
    });
  });

  test("refuse --unsigned for a target that trusts keys, and beside --trust", async () => {
    const { file } = await write();
    const unsigned = { ...nothing, isUnsigned: true };
    await expect(
      chooseSettings({ ...unsigned, target: "orders-prod", config: file }, {}),
    ).rejects.toMatchObject({ code: "UNSIGNED_REFUSED" });
    await expect(chooseSettings({ ...unsigned, trust: ["a.pub"] }, {})).rejects.toMatchObject({
      code: "USAGE",
    });
    expect(await chooseSettings({ ...unsigned, target: "orders-dev", config: file }, {})).toMatchObject({
      trust: { kind: "unsigned" },
    });
  });
});

async function write(): Promise<{ readonly folder: string; readonly file: string }> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-config-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "lockkeeper.yaml");
  await writeFile(file, text);
  return { folder, file };
}
