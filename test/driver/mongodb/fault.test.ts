import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { LeasedSession } from "../../../src/driver/session.ts";
import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import {
  createMongoDatabase,
  ownMongo,
  type MongoServer,
  type MongoTestDatabase,
} from "../../support/mongo.ts";
import { type Passage, portOf, startMongoProxy, throughProxy } from "../../support/mongo-proxy.ts";
import { needs } from "../../support/parts.ts";
import { declaration, leaseOptions, never, newRun } from "../../support/steps.ts";

needs("secantusdb");

let server: MongoServer;
beforeAll(async () => {
  server = await ownMongo({});
});

/** A lease that lives through a busy machine, also while the driver looks for its server again. */
const times = { leaseMs: 120_000, heartbeatMs: 5_000, marginMs: 1_000, cancelPollMs: 1_000 };

const beginning = {
  highWaterMark: { epoch: 1, version: 1, digest: "sha256:d" },
  releaseDigest: "sha256:d",
  fromVersion: null,
  toVersion: "1",
  steps: 1,
  statementSteps: 2,
};

/** All that a run writes of our own state. */
async function work(session: LeasedSession): Promise<void> {
  await session.state();
  await session.begin(beginning);
  await session.declare([await declaration({ path: "1_a.up.json", up: `[{"ping": 1}]` })]);
  await session.finish({ status: "succeeded", outcome: "applied", completed: "sha256:d" });
}

/** A driver behind a proxy that counts commands, and does something to one of them. */
async function throughFaults(database: MongoTestDatabase) {
  const faults = { seen: 0, at: -1, passage: "pass" as Passage, names: [] as string[] };
  const proxy = await startMongoProxy(portOf(database.url), (command) => {
    const [name = ""] = Object.keys(command);
    if (name === "hello" || name === "ismaster" || name === "endSessions") return "pass";
    const isIt = faults.seen === faults.at;
    faults.seen += 1;
    faults.names.push(name);
    return isIt ? faults.passage : "pass";
  });
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  const driver = openMongo(throughProxy(database.url, proxy), { times });
  onTestFinished(() => driver.close());
  return { driver, faults };
}

/** Milliseconds after which no further command is hit: each run of the tests takes some of them. */
const longestMs = 4_000;

function* inAnyOrder(count: number): Generator<number> {
  const giveUpAt = performance.now() + longestMs;
  const places = Array.from({ length: count }, (_, place) => ({ place, order: Math.random() }));
  for (const { place } of places.toSorted((a, b) => a.order - b.order)) {
    yield place;
    if (performance.now() > giveUpAt) return;
  }
}

/** What a stream and its run look like at the end. */
async function whatIsThere(driver: Driver, stream: string, runId: string): Promise<unknown> {
  const [state, history, run] = await Promise.all([
    driver.state(stream, never),
    driver.history(stream, {}, never),
    driver.run(runId, never),
  ]);
  return {
    completed: state.completed,
    lease: state.lease,
    entries: history.length,
    status: run?.status,
    attempt: run?.attempt,
  };
}

const done = { completed: "sha256:d", lease: null, entries: 1, status: "succeeded", attempt: 1 };

describe("a connection that is lost under a command of our own state", () => {
  test.for([
    ["cut", "new"],
    ["cut", "known"],
    ["swallow", "new"],
    ["swallow", "known"],
  ] as const)(
    "and is %s: the run writes all of it once on a stream that is %s, as if nothing had happened",
    async ([passage, kind]) => {
      const database = await createMongoDatabase({ server });
      const { driver, faults } = await throughFaults(database);
      const round = async (stream: string, at: number): Promise<string> => {
        const run = newRun({ stream });
        if (kind === "known") await driver.withLease(leaseOptions({ stream }), () => Promise.resolve());
        Object.assign(faults, { seen: 0, at, passage, names: [] });
        const looked = await driver.state(stream, never);
        await driver.withLease(leaseOptions({ stream, run, looked }), work);
        return run.id;
      };
      await round("first", -1);
      const runId = await round("clean", -1);
      expect(await whatIsThere(driver, "clean", runId)).toEqual(done);
      const commands = [...faults.names];
      expect(commands.length).toBeGreaterThan(10);
      for (const at of inAnyOrder(commands.length)) {
        const stream = `${passage} ${at} ${commands[at]}`;
        const hit = await round(stream, at);
        faults.at = -1;
        expect(await whatIsThere(driver, stream, hit), stream).toEqual(done);
      }
    },
  );

  test("on a server without transactions is met by writing again what says how things are", async () => {
    const database = await createMongoDatabase({ server: await ownMongo({ standalone: true }) });
    const { driver, faults } = await throughFaults(database);
    await driver.withLease(leaseOptions({ stream: "first" }), () => Promise.resolve());
    for (const at of inAnyOrder(12)) {
      const stream = `swallow ${at}`;
      const run = newRun({ stream });
      await driver.withLease(leaseOptions({ stream, run }), async (session) => {
        Object.assign(faults, { seen: 0, at, passage: "swallow" });
        await work(session);
      });
      faults.at = -1;
      expect(await whatIsThere(driver, stream, run.id), stream).toEqual(done);
    }
  });
});

describe("a server that answers with an error of its own", () => {
  test("because it is no longer the primary, is asked again until there is one", async () => {
    const database = await createMongoDatabase({ server });
    const driver = openMongo(database.url, { times });
    onTestFinished(() => driver.close());
    const run = newRun();
    await driver.withLease(leaseOptions({ run }), async (session) => {
      await database.client.db("admin").command({
        configureFailPoint: "failCommand",
        mode: { times: 2 },
        data: {
          failCommands: ["findAndModify", "update", "commitTransaction"],
          errorCode: 10_107,
          errorLabels: [],
        },
      });
      await work(session);
    });
    expect(await whatIsThere(driver, "orders", run.id)).toEqual(done);
  });

  test("because it has no transactions although it is a replica set, is used without them", async () => {
    const database = await createMongoDatabase({ server });
    const driver = openMongo(database.url, { times });
    onTestFinished(() => driver.close());
    const run = newRun();
    await database.client.db("admin").command({
      configureFailPoint: "failCommand",
      mode: { times: 1 },
      data: { failCommands: ["commitTransaction"], errorCode: 59 },
    });
    await driver.withLease(leaseOptions({ run }), work);
    expect(await whatIsThere(driver, "orders", run.id)).toEqual(done);
  });
});

describe("a network that swallows everything", () => {
  test("ends the run when its lease may no longer be trusted, and does not keep it waiting", async () => {
    const { url } = await createMongoDatabase({ server });
    const silence = { isOn: false };
    const proxy = await startMongoProxy(portOf(url), async () => {
      if (silence.isOn) await new Promise(() => undefined);
      return "pass";
    });
    onTestFinished(() => proxy[Symbol.asyncDispose]());
    const short = { leaseMs: 15_000, heartbeatMs: 500, marginMs: 13_000, cancelPollMs: 100 };
    const driver = openMongo(throughProxy(url, proxy), { times: short });
    onTestFinished(() => driver.close());
    const lease = driver.withLease(leaseOptions(), async (session) => {
      silence.isOn = true;
      await session.finish({ status: "succeeded" });
    });
    await expect(lease).rejects.toMatchObject({ code: "LEASE_LOST" });
  });
});
