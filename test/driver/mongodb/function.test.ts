import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";
import { RunnerError } from "../../../src/error.ts";
import type { RunEvent } from "../../../src/executor/event.ts";
import { plainReleases } from "../../../src/release/folder/plain.ts";
import { run, type RunRequest, type Target } from "../../../src/runner.ts";
import {
  createMongoDatabase,
  ownMongo,
  type MongoServer,
  type MongoTestDatabase,
} from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";
import { type Files, never, tempFolder } from "../../support/release.ts";
import { requestOf } from "../../support/target.ts";

needs("mongodb", "secantusdb");

interface World {
  readonly database: MongoTestDatabase;
  readonly events: RunEvent[];
  write(name: string, text: string): Promise<void>;
  run(change?: Partial<RunRequest>, target?: Partial<Target>, signal?: AbortSignal): ReturnType<typeof run>;
  names(): Promise<readonly unknown[]>;
  history(): Promise<readonly string[]>;
  /** Fails the next commands of such a name. */
  fail(command: string, data: object, times?: number): Promise<void>;
}

const users = {
  "1_users.up.json": '[{ "insert": "users", "documents": [{ "name": "ada" }] }]',
  "1_users.down.json": '[{ "drop": "users" }]',
};

/** A target on a folder of plain files, as the command line has it. */
async function world(files: Files, server?: MongoServer): Promise<World> {
  const database = await createMongoDatabase(server === undefined ? {} : { server });
  const folder = await tempFolder({ ...users, ...files });
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const events: RunEvent[] = [];
  const target: Target = {
    name: "t",
    stream: "s",
    environment: "default",
    releases: plainReleases({
      source: folder.source,
      stream: "s",
      environment: "default",
      engine: "mongodb",
      allowLate: false,
    }),
    driver,
    limits: { waitMs: 20_000, lockTimeoutMs: 5_000, statementTimeoutMs: 0, deadlineMs: 0 },
    mayRunCode: true,
  };
  return {
    database,
    events,
    write: (name, text) => writeFile(join(folder.path, name), text),
    run: (change = {}, more = {}, signal = never) =>
      run(
        requestOf(target, change),
        { ...target, ...more },
        { signal, emit: (event) => events.push(event), now: () => new Date() },
      ),
    names: async () =>
      (await database.db.collection("users").find().sort({ name: 1 }).toArray()).map(
        (user): unknown => user["name"],
      ),
    history: async () =>
      (await database.db.collection("lockkeeper.history").find().sort({ id: 1 }).toArray()).map((entry) =>
        [entry["direction"], entry["version"], entry["status"]].join(" "),
      ),
    fail: async (command, data, times = 1) => {
      await database.client.db("admin").command({
        configureFailPoint: "failCommand",
        mode: { times },
        data: { failCommands: [command], ...data },
      });
    },
  };
}

/** A program whose function has these lines; its third line is the first of them. */
const program = (lines: string): string =>
  `import type { MigrationFunction } from "lockkeeper";
const up: MigrationFunction<"mongodb"> = async ({ db, session, log, signal, version, direction }) => { const users = db.collection("users");
${lines}
};
export default up;
`;
const half = `  await users.insertOne({ name: "half" }, { session });`;
const whole = program(`  await users.insertOne({ name: "whole" }, { session });`);

/** What a test and a program of it tell each other: they live in one process. */
function meeting() {
  const name = `lockkeeperTest${Math.random().toString(36).slice(2)}`;
  const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  Reflect.set(globalThis, name, () => {
    reached.resolve();
    return released.promise;
  });
  onTestFinished(() => {
    released.resolve();
    Reflect.deleteProperty(globalThis, name);
  });
  return {
    reached: reached.promise,
    goOn: () => released.resolve(),
    lines: `await (globalThis as any).${name}();`,
  };
}

/** Calls the test from a program, each time that it runs. */
function visit() {
  const name = `lockkeeperTest${Math.random().toString(36).slice(2)}`;
  onTestFinished(() => void Reflect.deleteProperty(globalThis, name));
  return {
    lines: `await (globalThis as any).${name}();`,
    onVisit(call: (time: number) => Promise<unknown>) {
      let time = 0;
      Reflect.set(globalThis, name, () => call((time += 1)));
    },
  };
}

describe("a program for MongoDB", () => {
  test("is one transaction with its history entry, up and down", async () => {
    const here = await world({
      "2_fill.up.ts": program(`
        await users.insertMany([{ name: "bob" }, { name: "eve" }], { session });
        for await (const { _id, name } of users.find({}, { session }).sort({ name: 1 }))
          await users.updateOne({ _id }, { $set: { length: name.length } }, { session });
        const [sum] = await users.aggregate([{ $group: { _id: null, n: { $sum: "$length" } } }], { session }).toArray();
        log(\`\${direction} \${version} \${sum.n} \${await users.countDocuments({}, { session })} \${signal.aborted}\`);`),
      "2_fill.down.js":
        "export default async ({ db, session }) => { await db.collection('users').deleteMany({ name: { $ne: 'ada' } }, { session }); };",
    });
    expect(await here.run()).toMatchObject({ status: "succeeded", done: [{}, { path: "2_fill.up.ts" }] });
    expect(here.events).toContainEqual({ kind: "step.output", path: "2_fill.up.ts", line: "up 2 9 3 false" });
    expect(await here.names()).toEqual(["ada", "bob", "eve"]);
    const down = { goal: { kind: "steps", direction: "down", count: 1 }, action: "rollback" } as const;
    expect(await here.run(down)).toMatchObject({ error: null });
    expect(await here.names()).toEqual(["ada"]);
    expect(await here.history()).toEqual(["up 1 done", "up 2 done", "down 2 done"]);
  });

  test.for<readonly [string, string, string, string]>([
    [
      "throws",
      "  throw new Error('no luck');",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:9: no luck; nothing of this migration was applied",
    ],
    [
      "sends what the server refuses",
      "  await users.updateOne({}, { $nothing: 'topsecret' }, { session });",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:3: ",
    ],
    [
      "meets a key that is there, in many at once",
      "  await users.insertMany([{ _id: 'topsecret' }, { _id: 'topsecret' }] as any, { session });",
      "MIGRATION_FAILED",
      "2_x.up.ts:4:3: DuplicateKey 11000: ",
    ],
    [
      "wraps what the server said",
      "  await users.insertMany([{ _id: 1 }, { _id: 1 }] as any, { session }).catch((cause) => { throw new Error('oh topsecret', { cause }); });",
      "MIGRATION_FAILED",
      "DuplicateKey 11000: ",
    ],
    [
      "does not say its session",
      "  await users.insertOne({ name: 'outside' });",
      "MIGRATION_FAILED",
      '2_x.up.ts:4:15: "2_x.up.ts" calls the database without its session',
    ],
    [
      "does not say its session, and goes on",
      "  await users.find({}).toArray().catch(() => []);",
      "MIGRATION_FAILED",
      '"2_x.up.ts" calls the database without its session',
    ],
    [
      "begins a transaction of its own",
      "  await db.client.withSession((own) => own.withTransaction(() => users.insertOne({ name: 'own' }, { session: own })));",
      "MIGRATION_FAILED",
      '"2_x.up.ts" calls the database without its session',
    ],
    [
      "commits",
      "  await session.commitTransaction();",
      "TRANSACTION_CONTROL",
      '2_x.up.ts:4:17: "2_x.up.ts" calls commitTransaction',
    ],
    [
      "disconnects",
      "  await db.client.close();",
      "TRANSACTION_CONTROL",
      '2_x.up.ts:4:19: "2_x.up.ts" calls close',
    ],
    [
      "misuses the driver",
      "  await users.updateOne({}, { plain: 1 } as any, { session });",
      "MIGRATION_FAILED",
      "Update document requires atomic operators; nothing of this migration was applied",
    ],
    [
      "throws a password",
      "  throw new Error('mongodb://u:topsecret@h/x is away');",
      "MIGRATION_FAILED",
      "mongodb://…@h/x is away",
    ],
  ])("that %s leaves nothing behind and is told with its line", async ([, line, code, said]) => {
    const here = await world({ "2_x.up.ts": program(`${half}\n${line}`) });
    const { error } = await here.run();
    expect(error).toMatchObject({
      code,
      message: expect.stringContaining(said) as string,
      fields: { migration: "2_x.up.ts", version: "2" },
    });
    expect(`${error?.message} ${error?.hint}`).not.toContain("topsecret");
    expect(await here.names()).toEqual(["ada"]);
    expect(await here.history()).toEqual(["up 1 done", "up 2 failed"]);
    expect(here.events.filter(({ kind }) => kind === "step.retried")).toEqual([]);
    await here.write("2_x.up.ts", whole);
    expect(await here.run()).toMatchObject({ error: null });
    expect(await here.names()).toEqual(["ada", "whole"]);
  });

  test.for([
    ["a write conflict", "insert", { errorCode: 112, errorLabels: ["TransientTransactionError"] }],
    ["a lost connection", "insert", { closeConnection: true }],
    ["a lost connection at its commit", "commitTransaction", { closeConnection: true }],
    [
      "a transaction that is gone at its commit",
      "commitTransaction",
      { errorCode: 251, errorLabels: ["TransientTransactionError"] },
    ],
  ] as const)("takes effect once although it meets %s", async ([, command, data]) => {
    const before = visit();
    const here = await world({ "2_x.up.ts": program(`  ${before.lines}\n${half.replace("half", "whole")}`) });
    before.onVisit((n) => (n === 1 ? here.fail(command, data) : Promise.resolve()));
    expect(await here.run()).toMatchObject({ error: null });
    expect(await here.names()).toEqual(["ada", "whole"]);
    expect(await here.history()).toEqual(["up 1 done", "up 2 done"]);
  });

  test(
    "goes on at once where the end of its first transaction was lost with the connection",
    { timeout: 50_000 },
    async () => {
      const middle = visit();
      const here = await world({ "2_x.up.ts": program(`${half}\n  ${middle.lines}\n${half}`) });
      const data = { failCommands: ["insert", "abortTransaction"], closeConnection: true };
      const mode = { times: 3 };
      const admin = here.database.client.db("admin");
      middle.onVisit((time) =>
        time === 1 ? admin.command({ configureFailPoint: "failCommand", mode, data }) : Promise.resolve(),
      );
      // The server itself ends it after a minute, later than this test.
      expect(await here.run()).toMatchObject({ error: null });
      expect(await here.names()).toEqual(["ada", "half", "half"]);
      expect(await here.history()).toEqual(["up 1 done", "up 2 done"]);
    },
  );

  test("is told to ask first where it goes on in a transaction that the server has ended", async () => {
    const here = await world({
      "2_x.up.ts": program(
        `  await users.insertMany([{ _id: 1 }, { _id: 1 }] as any, { session }).catch(() => undefined);\n  await users.insertOne({ name: "late" }, { session });`,
      ),
    });
    const { error } = await here.run();
    expect(error).toMatchObject({
      code: "MIGRATION_FAILED",
      message: expect.stringContaining("2_x.up.ts:4:3: NoSuchTransaction 251") as string,
      hint: expect.stringContaining("also where the program catches it") as string,
    });
    expect(here.events.filter(({ kind }) => kind === "step.retried")).toHaveLength(2);
    expect(await here.names()).toEqual(["ada"]);
  });

  test("can send nothing once its transaction is over", async () => {
    const late = meeting();
    const told = Promise.withResolvers<string>();
    Reflect.set(globalThis, "lockkeeperLateMongo", told.resolve);
    onTestFinished(() => void Reflect.deleteProperty(globalThis, "lockkeeperLateMongo"));
    const here = await world({
      "2_x.up.ts": program(
        `  void (async () => { ${late.lines}\n await users.insertOne({ name: "late" }, { session }); })().catch((e) => (globalThis as any).lockkeeperLateMongo(String(e)));`,
      ),
    });
    expect(await here.run()).toMatchObject({ error: null });
    late.goOn();
    expect(await told.promise).toContain("expired session");
    expect(await here.names()).toEqual(["ada"]);
  });

  test(
    "is stopped by a cancel although it does not listen, and nothing of it stays",
    { timeout: 120_000 },
    async () => {
      const deaf = meeting();
      const here = await world({ "2_x.up.ts": program(`${half}\n${deaf.lines}\n${half}`) });
      const stop = new AbortController();
      const running = here.run({}, {}, stop.signal);
      await deaf.reached;
      stop.abort(new RunnerError("DEADLINE", "too late"));
      expect(await running).toMatchObject({ error: { code: "DEADLINE" }, done: [{ version: "1" }] });
      deaf.goOn();
      expect(await here.names()).toEqual(["ada"]);
      expect(await here.history()).toEqual(["up 1 done"]);
      await here.write("2_x.up.ts", whole);
      expect(await here.run()).toMatchObject({ error: null });
      expect(await here.names()).toEqual(["ada", "whole"]);
    },
  );

  test(
    "of a run that has lost its lease leaves nothing, whatever it does afterwards",
    { timeout: 120_000 },
    async () => {
      const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const middle = visit();
      middle.onVisit((time) => {
        reached.resolve();
        return time === 1 ? released.promise : Promise.resolve();
      });
      const here = await world({
        "2_x.up.ts": program(`${half.replace("half", "whole")}\n  ${middle.lines}\n  log("going on");`),
      });
      const stale = here.run();
      await reached.promise;
      const leases = here.database.db.collection("lockkeeper.leases");
      const token: unknown = (await leases.findOne())?.["token"];
      const next = here.run({
        limits: { waitMs: 60_000, lockTimeoutMs: 0, statementTimeoutMs: 0, deadlineMs: 0 },
      });
      // Its heartbeats go on, so it is made to look dead until the next one has believed it.
      await expect
        .poll(
          async () => {
            await leases.updateOne({ token }, { $set: { renewedAt: new Date(0) } });
            return (await leases.findOne())?.["token"] === token;
          },
          { timeout: 60_000 },
        )
        .toBe(false);
      expect(await next).toMatchObject({ error: null, done: [{ path: "2_x.up.ts" }] });
      released.resolve();
      expect(await stale).toMatchObject({ error: { code: "LEASE_LOST" } });
      expect(await here.names()).toEqual(["ada", "whole"]);
      expect(await here.history()).toEqual(["up 1 done", "up 2 done"]);
    },
  );

  test("is refused before the lease is taken where nobody said that programs may run", async () => {
    const here = await world({ "2_x.up.ts": whole });
    expect(await here.run({}, { mayRunCode: false })).toMatchObject({
      outcome: "refused",
      done: [],
      error: { code: "CODE_REFUSED", fields: { migration: "2_x.up.ts", version: "2" } },
    });
    expect(here.events.map(({ kind }) => kind)).not.toContain("lease.acquired");
  });

  test("is refused by a server without transactions before anything is done", async () => {
    const here = await world({ "2_x.up.ts": whole }, await ownMongo({ standalone: true }));
    const { error, done } = await here.run();
    expect(error).toMatchObject({
      code: "DATABASE_UNSUPPORTED",
      hint: expect.stringContaining("replica set") as string,
      fields: { migration: "2_x.up.ts" },
    });
    expect(done).toEqual([]);
    expect(await here.names()).toEqual([]);
    expect(await here.history()).toEqual([]);
  });
});
