import { execFile, spawn } from "node:child_process";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

import { beforeAll, describe, expect, onTestFinished, test } from "vitest";

import { startGcs, startS3 } from "../support/bucket.ts";
import { createDatabase, ownPostgres, type PostgresServer, type TestDatabase } from "../support/database.ts";
import { needs, part } from "../support/parts.ts";
import { tempFolder } from "../support/release.ts";
import { createIssuer } from "../support/token.ts";
import { openWire } from "../support/wire.ts";

needs("versitygw", "fake-gcs-server", "psql", "pg_dump");

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
const corpus = join(import.meta.dirname, "superplane");
const upFiles = readdirSync(corpus)
  .filter((name) => name.endsWith(".up.sql"))
  .toSorted();

/** PostgreSQL 15, because pg_dump 15 compares what it made. */
let server: PostgresServer;
let expected: string;

beforeAll(async () => {
  server = await ownPostgres({ major: 15 });
  const byPsql = await createDatabase({ server });
  const files = upFiles.flatMap((name) => ["-f", join(corpus, name)]);
  await run(part("psql"), ["-qX", "-v", "ON_ERROR_STOP=1", "-d", byPsql.url, ...files], {
    maxBuffer: 1 << 26,
  });
  expected = await schemaOf(byPsql);
}, 120_000);

/** What pg_dump says of a database, less our own schema and the random marks of newer pg_dumps. */
async function schemaOf(database: TestDatabase): Promise<string> {
  const { stdout } = await run(
    part("pg_dump"),
    ["--schema-only", "--exclude-schema=lockkeeper", "-d", database.url],
    { maxBuffer: 1 << 26 },
  );
  return stdout.replaceAll(/^\\(?:un)?restrict .*$/gm, "");
}

/** The command line as a process of its own. */
async function lockkeeper(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  cwd: string,
): Promise<string> {
  const { stdout } = await run(process.execPath, [join(root, "src/bin/cli.ts"), ...args], {
    cwd,
    env: { PATH: process.env["PATH"] ?? "", HOME: cwd, ...env },
    maxBuffer: 1 << 26,
  });
  return stdout;
}

describe("178 migrations of a public project, released", () => {
  test(
    "come up from S3 among 1,200 other objects by command line, go down, and cost one request when there is nothing to do",
    { timeout: 180_000 },
    async () => {
      const s3 = await startS3("versitygw");
      onTestFinished(() => s3.stop());
      const wire = await openWire(Number(new URL(s3.endpoint).port), "http");
      onTestFinished(() => wire[Symbol.asyncDispose]());
      const bucket = await s3.createBucket();
      const clutter = Array.from({ length: 1_200 }, (_, index) =>
        s3.put(bucket, `orders/${String(index).padStart(4, "0")}_other.txt`, Buffer.from("not a release")),
      );
      await Promise.all(clutter);

      await using folder = await tempFolder();
      const database = await createDatabase({ server });
      const env = {
        AWS_ACCESS_KEY_ID: s3.credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: s3.credentials.secretAccessKey,
        AWS_REGION: "us-east-1",
        LOCKKEEPER_S3_ENDPOINT: `http://127.0.0.1:${wire.port}`,
        LOCKKEEPER_S3_PATH_STYLE: "true",
        DATABASE_URL: database.url,
      };
      const at = [
        "--source",
        `${bucket}/orders`,
        "--stream",
        "orders",
        "--trust",
        "key.pub",
        "--output",
        "json",
      ];
      await lockkeeper(["keygen", "--out", "key"], env, folder.path);
      await lockkeeper(
        ["publish", corpus, `${bucket}/orders`, "--stream", "orders", "--key", "key"],
        env,
        folder.path,
      );
      wire.reset();

      const first = JSON.parse(await lockkeeper(["up", ...at], env, folder.path)) as {
        outcome: string;
        done: unknown[];
      };
      expect(first).toMatchObject({ outcome: "applied" });
      expect(first.done).toHaveLength(upFiles.length);
      expect(await schemaOf(database)).toBe(expected);
      // head, release, manifest and one pack of all bodies; no listing
      expect(wire.asked()).toHaveLength(4);
      wire.reset();

      expect(JSON.parse(await lockkeeper(["up", ...at], env, folder.path))).toMatchObject({
        outcome: "noop",
      });
      expect(wire.asked()).toEqual([expect.stringMatching(/^GET .*head\.json/)]);

      // Most down files of this project are empty: its tables stay, and only the history goes back.
      const down = JSON.parse(await lockkeeper(["goto", "0", ...at], env, folder.path)) as {
        done: unknown[];
      };
      expect(down.done).toHaveLength(upFiles.length);
      await database.query("DROP SCHEMA public CASCADE");
      await database.query("CREATE SCHEMA public");
      const again = JSON.parse(await lockkeeper(["up", ...at], env, folder.path)) as { done: unknown[] };
      expect(again.done).toHaveLength(upFiles.length);
    },
  );

  test("come up from Google Cloud Storage over HTTP", { timeout: 180_000 }, async () => {
    const gcs = await startGcs();
    onTestFinished(() => gcs.stop());
    const bucket = await gcs.createBucket();
    await using folder = await tempFolder();
    const database = await createDatabase({ server });
    const issuer = await createIssuer({ url: "https://ci.example" });
    const env = { LOCKKEEPER_GCS_ENDPOINT: gcs.endpoint, METADATA_SERVER_DETECTION: "none" };
    await lockkeeper(["keygen", "--out", "key"], env, folder.path);
    await lockkeeper(
      ["publish", corpus, `${bucket}/orders`, "--stream", "orders", "--key", "key"],
      env,
      folder.path,
    );

    const policy = {
      schema: "urn:lockkeeper:policy:v1",
      audience: "https://migrate.test",
      issuers: { ci: { issuer: issuer.url, jwksFile: "jwks.json", algs: ["ES256"], maxTokenAge: "10m" } },
      rules: [
        {
          id: "ci",
          issuer: "ci",
          match: { sub: "ci" },
          allow: { targets: ["orders"], actions: ["apply", "status"] },
        },
      ],
    };
    const configuration = {
      version: 1,
      publicUrl: "http://127.0.0.1",
      policy: "policy.json",
      trust: { ci: { threshold: 1, keys: ["key.pub"] } },
      gcs: { endpoint: gcs.endpoint },
      targets: {
        orders: {
          engine: "postgres",
          stream: "orders",
          source: `${bucket}/orders`,
          trust: "ci",
          database: { urlFile: "url" },
        },
      },
    };
    const files = {
      "jwks.json": issuer.jwks,
      "policy.json": JSON.stringify(policy),
      "lockkeeper.yaml": JSON.stringify(configuration),
      url: database.url,
    };
    for (const [name, text] of Object.entries(files))
      writeFileSync(join(folder.path, name), text, { mode: 0o600 });
    const url = await serve(folder.path, env);

    const response = await fetch(`${url}/v1/runs`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${await issuer.token()}`,
        "content-type": "application/json",
        prefer: "wait=55",
      },
      body: JSON.stringify({ target: "orders", action: "apply" }),
    });
    expect(await response.json()).toMatchObject({
      status: "succeeded",
      outcome: "applied",
      progress: { applied: upFiles.length, total: upFiles.length },
    });
    expect(response.status).toBe(200);
    expect(await schemaOf(database)).toBe(expected);
  });
});

/** Serves the folder's configuration on a free port until the test ends. */
async function serve(cwd: string, env: Readonly<Record<string, string>>): Promise<string> {
  const child = spawn(process.execPath, [join(root, "src/bin/cli.ts"), "serve", "--listen", "127.0.0.1:0"], {
    cwd,
    env: { PATH: process.env["PATH"] ?? "", HOME: cwd, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGTERM"));
  const seen: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    seen.push(line);
    const url = /listens on (http\S+)/.exec(line)?.[1];
    if (url === undefined) continue;
    child.stderr.resume();
    return url;
  }
  throw new Error(`the server ended before it listened: ${seen.join("\n")}`);
}
