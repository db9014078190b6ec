import { randomBytes } from "node:crypto";
import path from "node:path";
import { readFile, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { receiver } from "../notify/receiver.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { deploy, functionArn, functionUrlEvent, localFunction, s3Event } from "./lambda-rig.ts";

needs("versitygw");

let s3: S3Server;
beforeAll(async () => {
  s3 = await startS3("versitygw");
});
afterAll(() => s3.stop());

const one = { "1_one.up.sql": "create table effects (n int); insert into effects values (1);" };
const two = { ...one, "2_two.up.sql": "insert into effects values (2);" };
const broken = { ...one, "2_two.up.sql": "insert into nowhere values (2);" };

const work = { lockkeeper: { work: { target: "orders" } } };

describe("a function that a gateway calls", () => {
  test("begins a run in an execution of its own, waits for it by the database, and closes its connections", async () => {
    const { publish, variables, database } = await deploy(s3);
    const digest = await publish(two);
    const { invoke, handedOver, log } = await localFunction(variables);
    const event = functionUrlEvent("POST", "/v1/runs", {
      target: "orders",
      action: "apply",
      release: { digest },
    });
    const answer = (await invoke(event)) as { statusCode: number; body: string };
    const run = JSON.parse(answer.body) as Record<string, unknown>;
    expect(answer).toMatchObject({ statusCode: 200, isBase64Encoded: false });
    expect(run).toMatchObject({ status: "succeeded", outcome: "applied", to: "2" });
    expect(run["links"]).toMatchObject({
      self: `https://abc.lambda-url.us-east-1.on.aws/v1/runs/${String(run["id"])}`,
    });
    expect(handedOver).toEqual([work]);
    expect(await database.query("select n from effects order by n")).toEqual([{ n: 1 }, { n: 2 }]);
    expect(log.find(({ event: name }) => name === "http.request")).toMatchObject({
      status: 200,
      aws_request_id: expect.any(String),
    });

    // Its stream is no stream there: it tells what is known, and ends.
    const stream = await invoke(functionUrlEvent("GET", `/v1/runs/${String(run["id"])}/events`));
    expect(stream).toMatchObject({
      statusCode: 200,
      headers: { "content-type": "text/event-stream; charset=utf-8" },
      body: expect.stringContaining("event: run.done"),
    });
    const open =
      "select count(*)::int as n from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    await expect.poll(async () => (await database.query(open))[0]?.["n"]).toBe(0);
  });

  test("answers 202 when its own time is over before the run's", async () => {
    const { publish, variables, database } = await deploy(s3);
    const digest = await publish({ "1_one.up.sql": "select pg_advisory_xact_lock(7);" });
    const gate = await database.connect();
    await gate.query("select pg_advisory_lock(7)");
    const { invoke } = await localFunction(variables);
    const event = functionUrlEvent("POST", "/v1/runs", {
      target: "orders",
      action: "apply",
      release: { digest },
    });
    const answer = (await invoke(event, 8_000)) as { statusCode: number; body: string };
    expect(answer.statusCode).toBe(202);
    await gate.query("select pg_advisory_unlock(7)");
    const { id } = JSON.parse(answer.body) as { id: string };
    await expect
      .poll(() => database.query("select status from lockkeeper.runs where id = $1", [id]))
      .toEqual([{ status: "succeeded" }]);
  });

  test("says no more to callers than its code when it is configured wrong, and the log says what it is", async () => {
    const { folder, variables } = await deploy(s3);
    await writeFile(path.join(folder, "policy.json"), "{");
    const { invoke, log } = await localFunction(variables);
    const answer = (await invoke(functionUrlEvent("GET", "/v1/targets"))) as { body: string };
    expect(answer).toMatchObject({ statusCode: 500 });
    expect(JSON.parse(answer.body)).toMatchObject({ code: "CONFIG" });
    expect(answer.body).not.toContain("policy.json");
    expect(log.at(-1)).toMatchObject({ event: "function.failed", code: "CONFIG" });
  });

  test("answers 503 when it may not start another execution, and the run has ended", async () => {
    const { publish, variables, database } = await deploy(s3);
    const digest = await publish(one);
    const { invoke } = await localFunction(variables, { answersHandOver: 403 });
    const body = { target: "orders", action: "apply", release: { digest } };
    const answer = (await invoke(functionUrlEvent("POST", "/v1/runs", body))) as { body: string };
    expect(answer).toMatchObject({ statusCode: 503 });
    expect(JSON.parse(answer.body)).toMatchObject({
      code: "HAND_OVER_FAILED",
      hint: expect.stringContaining("lambda:InvokeFunction"),
    });
    // Recorded before the answer: afterwards the process may be frozen.
    const ends = "select status, error ->> 'code' as code from lockkeeper.runs";
    expect(await database.query(ends)).toEqual([{ status: "failed", code: "HAND_OVER_FAILED" }]);
  });
});

describe("a function that a bucket's event wakes", () => {
  test("applies the release in this very invocation; a duplicate finds nothing to do", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(two);
    const { invoke, handedOver } = await localFunction(deployed.variables);
    expect(await invoke(s3Event(deployed))).toEqual({
      woken: [
        {
          target: "orders",
          kind: "run",
          run: { id: expect.stringMatching(/^orders\./), status: "succeeded", outcome: "applied" },
        },
      ],
    });
    expect(await invoke(s3Event(deployed))).toEqual({ woken: [{ target: "orders", kind: "up-to-date" }] });
    expect(handedOver).toEqual([]);
    expect(
      await deployed.database.query(
        "select trigger, caller ->> 'issuer' as issuer, caller ->> 'subject' as subject from lockkeeper.runs",
      ),
    ).toEqual([{ trigger: "event", issuer: "urn:lockkeeper:event:s3", subject: functionArn }]);
  });

  test("tells who is to be told before it answers, also one who is slow to take it", async () => {
    const slow = await receiver(() => ({ status: 204, afterMs: 1_500 }));
    const webhook = `{ url: "${slow.url}", secretFile: hook.secret }`;
    const deployed = await deploy(s3, { config: `notify: [{ webhook: ${webhook}, on: [succeeded] }]` });
    await writeFile(path.join(deployed.folder, "hook.secret"), `whsec_${randomBytes(32).toString("base64")}`);
    await deployed.publish(one);
    const { invoke, log } = await localFunction(deployed.variables);
    await invoke(s3Event(deployed));
    await deployed.publish(two);
    await invoke(s3Event(deployed));
    expect(slow.received.map(({ json }) => json.data.to)).toEqual(["1", "2"]);
    expect(log.filter(({ event }) => event === "notification.lost")).toEqual([]);
  });

  test("has the worker execute it where another function is the worker, and never itself", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(two);
    const LOCKKEEPER_WORKER_FUNCTION = "lockkeeper-worker";
    const { invoke, handedOver } = await localFunction({ ...deployed.variables, LOCKKEEPER_WORKER_FUNCTION });
    const begun = { kind: "run", run: { status: expect.stringMatching(/^(?!failed)/) } };
    expect(await invoke(s3Event(deployed))).toMatchObject({ woken: [begun] });
    expect(handedOver).toEqual([work]);
    const ends = "select status from lockkeeper.runs";
    await expect.poll(() => deployed.database.query(ends)).toEqual([{ status: "succeeded" }]);
  });

  test("takes a failed migration for done, and asks for another delivery where the database cannot be reached", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(broken);
    const { invoke } = await localFunction(deployed.variables);
    expect(await invoke(s3Event(deployed))).toMatchObject({
      woken: [{ target: "orders", kind: "run", run: { status: "failed" }, code: "MIGRATION_FAILED" }],
    });
    expect(await invoke(s3Event(deployed))).toMatchObject({
      woken: [{ target: "orders", kind: "left-alone", code: "FAILED_BEFORE" }],
    });
    await writeFile(path.join(deployed.folder, "db-url"), "postgres://nobody:x@127.0.0.1:1/none");
    const { invoke: again } = await localFunction(deployed.variables);
    const thrown: unknown = await again(s3Event(deployed)).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(Error);
    expect(thrown).toMatchObject({ name: "DATABASE_UNAVAILABLE" });
    expect((thrown as Error).stack).not.toContain("\n");
  });

  test("names of a queue's batch the messages that are to come again, and no others", async () => {
    const away = `  away: { engine: postgres, stream: away, source: "s3://away/x", trust: team, database: { url: "postgres://a@127.0.0.1:1/none" } }`;
    const deployed = await deploy(s3, { more: away });
    await deployed.publish(one);
    const { invoke, handedOver } = await localFunction(deployed.variables);
    const message = (messageId: string, body: unknown): object => ({
      messageId,
      eventSource: "aws:sqs",
      body: JSON.stringify(body),
      attributes: {},
    });
    const Records = [
      message("good", s3Event(deployed)),
      message("away", s3Event({ bucket: "away" }, "x/head.json")),
      message("other object", s3Event(deployed, "orders/blobs/x")),
      message("unknown", { hello: 1 }),
    ];
    expect(await invoke({ Records })).toEqual({ batchItemFailures: [{ itemIdentifier: "away" }] });
    // Two targets: each has a whole execution for itself.
    expect(handedOver).toEqual([work]);
    await expect
      .poll(() => deployed.database.query("select status from lockkeeper.runs"))
      .toEqual([{ status: "succeeded" }]);
  });

  test("opens what one target needs, and nothing of the fifty others", async () => {
    const others = Array.from(
      { length: 50 },
      (_, n) =>
        `  t${n}: { engine: mongodb, stream: t${n}, source: "gs://bucket/t${n}", trust: gone, database: { urlFile: gone-${n} } }`,
    );
    const deployed = await deploy(s3, { more: others.join("\n") });
    const file = path.join(deployed.folder, "lockkeeper.yaml");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replace("trust: {", "trust: { gone: { keys: [gone.pub] },"));
    await deployed.publish(one);
    const { invoke } = await localFunction(deployed.variables);
    expect(await invoke(s3Event(deployed))).toMatchObject({
      woken: [{ kind: "run", run: { status: "succeeded" } }],
    });
    await expect(invoke({ lockkeeper: { work: { target: "t7" } } })).rejects.toMatchObject({
      name: "USAGE",
    });
  });
});

describe("a function that something else calls", () => {
  test.for([
    ["rubbish", { hello: "world" }],
    ["nothing", null],
    ["a work message of another shape", { lockkeeper: { work: { target: "orders", sql: "drop" } } }],
    ["a test of S3's", { Service: "Amazon S3", Event: "s3:TestEvent", Bucket: "b" }],
  ] as const)("takes %s for done, and logs it", async ([, event]) => {
    const { variables, database } = await deploy(s3);
    const { invoke, log } = await localFunction(variables);
    expect(await invoke(event)).toEqual({ woken: [] });
    expect(log.map(({ event: name }) => name)).toEqual(["event.received"]);
    expect(await database.query("select from pg_namespace where nspname = 'lockkeeper'")).toEqual([]);
  });

  test("is woken by a schedule for what no event has told it, and by name", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(one);
    const { invoke, handedOver } = await localFunction(deployed.variables);
    const schedule = { source: "aws.events", "detail-type": "Scheduled Event", detail: {} };
    expect(await invoke(schedule)).toMatchObject({ woken: [{ target: "orders", kind: "run" }] });
    await expect
      .poll(() => deployed.database.query("select status, trigger from lockkeeper.runs"))
      .toEqual([{ status: "succeeded", trigger: "converge" }]);
    expect(handedOver).toEqual([work]);
    await deployed.publish(two);
    expect(await invoke({ lockkeeper: { wake: { target: "orders" } } })).toMatchObject({
      woken: [{ target: "orders", kind: "run", run: { status: "succeeded" } }],
    });
    expect(await invoke({ lockkeeper: { sweep: {} } })).toEqual({
      woken: [{ target: "orders", kind: "up-to-date" }],
    });
  });

  test("begins with its sweep what an execution was to do that never came", async () => {
    const { publish, variables, database } = await deploy(s3);
    const digest = await publish(one);
    const { invoke, handedOver } = await localFunction(variables, { loses: 1 });
    const body = { target: "orders", action: "apply", release: { digest } };
    const asked = functionUrlEvent("POST", "/v1/runs", body, { prefer: "respond-async" });
    expect(await invoke(asked)).toMatchObject({ statusCode: 202 });
    const ends = "select status, trigger from lockkeeper.runs where ended_at is not null";
    expect(await database.query(ends)).toEqual([]);
    await invoke({ lockkeeper: { sweep: {} } });
    await expect.poll(async () => (await database.query("select from effects")).length).toBe(1);
    await expect.poll(() => database.query(ends)).toContainEqual({ status: "succeeded", trigger: "http" });
    expect(handedOver.length).toBeGreaterThanOrEqual(2);
  });

  test("answers several at once in one process, and none takes another's connections away", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(two);
    const { invoke } = await localFunction(deployed.variables);
    const events = Array.from({ length: 12 }, (_, n) =>
      n % 3 === 0
        ? functionUrlEvent("GET", "/v1/targets/orders")
        : n % 3 === 1
          ? s3Event(deployed)
          : { hello: n },
    );
    const answers = await Promise.all(events.map((event) => invoke(event)));
    const statuses = answers.filter((_, n) => n % 3 === 0);
    expect(statuses).toEqual(Array.from({ length: 4 }, () => expect.objectContaining({ statusCode: 200 })));
    const runs = await deployed.database.query("select status from lockkeeper.runs");
    expect(runs).toEqual([{ status: "succeeded" }]);
    expect(await deployed.database.query("select from effects")).toHaveLength(2);
  });

  test("says that its time is too short, and begins nothing that it could only pass on", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(one);
    const { invoke, handedOver } = await localFunction(deployed.variables);
    await expect(invoke(s3Event(deployed), 3_000)).rejects.toMatchObject({
      name: "CONFIG",
      message: expect.stringContaining("set its timeout to 60 s at the least"),
    });
    expect(handedOver).toEqual([]);
    const tables = "select from pg_namespace where nspname = 'lockkeeper'";
    expect(await deployed.database.query(tables)).toEqual([]);
  });

  test("says each time what is wrong with its configuration, until it is mended", async () => {
    const deployed = await deploy(s3);
    await deployed.publish(one);
    const file = path.join(deployed.folder, "lockkeeper.yaml");
    const right = await readFile(file, "utf8");
    await writeFile(file, right.replace("engine: postgres", "engine: oracle"));
    const { invoke, log } = await localFunction(deployed.variables);
    for (const _ of [1, 2]) {
      await expect(invoke(s3Event(deployed))).rejects.toMatchObject({
        name: "CONFIG",
        message: expect.stringContaining("lockkeeper.yaml:5:"),
      });
    }
    expect(log.map(({ event, level }) => [event, level])).toEqual([
      ["function.failed", "error"],
      ["function.failed", "error"],
    ]);
    await writeFile(file, right);
    expect(await invoke(s3Event(deployed))).toMatchObject({ woken: [{ run: { status: "succeeded" } }] });
  });
});
