import fc from "fast-check";
import type pg from "pg";
import { describe, expect, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { LeasedSession } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { heartbeat, insertStream, release, type LeaseKey } from "../../../src/driver/postgres/lease.ts";
import { createTables } from "../../../src/driver/postgres/tables.ts";
import { RunnerError } from "../../../src/error.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { emptyModel, leaseCommands, type Runner, type Stream } from "../../support/lease-machine.ts";
import { dropIndex, message, t, take, type Weakness } from "../../support/raw-lease.ts";
import { leaseOptions, never, newRun, rawStep, settings } from "../../support/steps.ts";

/** Nothing expires, and no runner says that it is alive, unless a command of the machine does. */
const leaseMs = 3_600_000;
const times = { leaseMs, heartbeatMs: 36_000_000, marginMs: 0, cancelPollMs: 36_000_000, retryMs: 1 };
const runnerCount = 3;
/** Sequences of commands, and milliseconds after which no further one is begun. */
const most = { sequences: 25, ms: 8_000 };

/** A database with our tables, in which each sequence has a stream of its own. */
interface World {
  readonly database: TestDatabase;
  readonly admin: pg.Client;
  runner(index: number, stream: string): Runner;
  readonly drivers: readonly Driver[];
}

async function startWorld(): Promise<Pick<World, "database" | "admin">> {
  const database = await createDatabase();
  const admin = await database.connect();
  await admin.query(createTables(t));
  await admin.query("CREATE TABLE effects (id serial, stream text, n int)");
  return { database, admin };
}

/** Several drivers, each with connections that the server knows by its name. */
async function driverWorld(): Promise<World> {
  const { database, admin } = await startWorld();
  const names = Array.from({ length: runnerCount }, (_, index) => `runner-${index}`);
  const drivers = await Promise.all(
    names.map((name) => openDriver(`${database.url}?application_name=${name}`, { times })),
  );
  return {
    database,
    admin,
    drivers,
    runner(index, stream) {
      const driver = drivers[index];
      if (driver === undefined) throw new TypeError("one driver for each runner");
      return driverRunner(driver, names[index] ?? "", stream, admin);
    },
  };
}

function driverRunner(driver: Driver, name: string, stream: string, admin: pg.Client): Runner {
  let held: { readonly session: LeasedSession; readonly runId: string; end(): Promise<void> } | undefined;
  return {
    async take(runId) {
      const begun = Promise.withResolvers<LeasedSession>();
      const ended = Promise.withResolvers<void>();
      const whole = driver.withLease(
        leaseOptions({ stream, run: newRun({ id: runId, stream }) }),
        (session) => {
          begun.resolve(session);
          return ended.promise;
        },
      );
      whole.catch(begun.reject);
      const session = await begun.promise.catch(unless("LEASE_HELD"));
      if (session === undefined) return undefined;
      held = {
        session,
        runId,
        end: () => {
          ended.resolve();
          return whole;
        },
      };
      return session.token;
    },
    async write(seq, sql) {
      const applied = await held?.session
        .applyInTransactions([rawStep(sql, { seq })], settings)
        .catch(unless("LEASE_LOST"));
      if (applied !== undefined && applied.failure !== null) throw applied.failure;
      return applied !== undefined;
    },
    async heartbeat() {
      const key = { stream, token: held?.session.token ?? 0, runId: held?.runId ?? "" };
      return (await admin.query(heartbeat(t, key, leaseMs))).rowCount === 1;
    },
    async release() {
      await held?.end();
      held = undefined;
    },
    async lose() {
      const own = "FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()";
      await admin.query(`SELECT pg_terminate_backend(pid) ${own}`, [name]);
      while ((await admin.query(`SELECT 1 ${own}`, [name])).rows.length > 0) await turn();
      await turn();
    },
  };
}

/** Runners that send the statements of the lease themselves, perhaps weaker ones. */
async function rawWorld(weakness: Weakness): Promise<World> {
  const { database, admin } = await startWorld();
  if (weakness.plainTakeOver === true) await admin.query(dropIndex);
  const clients = await Promise.all(Array.from({ length: runnerCount }, () => database.connect()));
  return {
    database,
    admin,
    drivers: [],
    runner(index, stream) {
      const client = clients[index];
      if (client === undefined) throw new TypeError("one connection for each runner");
      let key: LeaseKey = { stream, token: 0, runId: "" };
      return {
        async take(runId) {
          const token = await take(client, { stream, runId, leaseMs }, weakness);
          if (token !== undefined) key = { stream, token, runId };
          return token;
        },
        async write(seq, sql) {
          try {
            await client.query(message(key, seq, sql, weakness));
            return true;
          } catch (cause) {
            await client.query("ROLLBACK");
            if (cause instanceof Error && "code" in cause && cause.code === "22012") return false;
            throw cause;
          }
        },
        heartbeat: async () => (await client.query(heartbeat(t, key, leaseMs))).rowCount === 1,
        release: async () => void (await client.query(release(t, key))),
      };
    },
  };
}

let streams = 0;

/** A stream that nobody has used. */
async function startStream({ admin, runner, drivers }: World): Promise<Stream> {
  streams += 1;
  const name = `stream_${streams}`;
  await admin.query(insertStream(t, name));
  const rows = async <Row extends pg.QueryResultRow>(sql: string): Promise<Row[]> =>
    (await admin.query<Row>(sql, [name])).rows;
  const body = (n: number) => `INSERT INTO effects (stream, n) VALUES ('${name}', ${n})`;
  return {
    runners: Array.from({ length: runnerCount }, (_, index) => runner(index, name)),
    async row() {
      const [row] = await rows<{ token: string; run_id: string | null; expired: boolean }>(
        `SELECT token, run_id, coalesce(expires_at < clock_timestamp(), false) AS expired FROM ${t.streams} WHERE name = $1`,
      );
      return { token: Number(row?.token), runId: row?.run_id ?? null, isExpired: row?.expired === true };
    },
    effects: async () =>
      (await rows<{ n: number }>("SELECT n FROM effects WHERE stream = $1 ORDER BY id")).map(({ n }) => n),
    history: async () =>
      (
        await rows<{ seq: number; token: string; status: string }>(
          `SELECT seq, token, status FROM ${t.history} WHERE stream = $1 ORDER BY id`,
        )
      ).map(({ seq, token, status }) => ({ n: seq, token: Number(token), status })),
    async expire() {
      await rows(`UPDATE ${t.streams} SET expires_at = clock_timestamp() - interval '1 s' WHERE name = $1`);
    },
    body,
    async slowBody(n) {
      await admin.query("SELECT pg_advisory_lock(1, $1)", [n]);
      const waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1";
      return {
        sql: `SELECT pg_advisory_xact_lock(1, ${n}); ${body(n)}`,
        async reached(isOver) {
          while (!isOver() && (await admin.query(waiting, [n])).rows.length === 0) await turn();
        },
        go: async () => void (await admin.query("SELECT pg_advisory_unlock(1, $1)", [n])),
      };
    },
    async unlock(runId) {
      const refusal = await drivers[0]
        ?.unlock(name, runId, "the machine", never)
        .catch((cause: unknown) => cause);
      return refusal instanceof RunnerError ? refusal.code : undefined;
    },
    bump: async () => void (await rows(`UPDATE ${t.streams} SET token = token + 1 WHERE name = $1`)),
  };
}

/** Runs sequences of commands; what went wrong in the first that does not end as the model says, with its seed and the shortest sequence that shows it. */
async function search(
  world: World,
  firstSeed: number,
  sequences: number,
  ms: number,
): Promise<string | undefined> {
  const isWhole = world.drivers.length > 0;
  const property = fc.asyncProperty(leaseCommands(runnerCount, isWhole), async (commands) => {
    const stream = await startStream(world);
    try {
      await fc.asyncModelRun(() => ({ model: emptyModel(runnerCount), real: stream }), commands);
    } finally {
      for (const runner of stream.runners) await runner.release();
    }
  });
  const giveUpAt = performance.now() + ms;
  for (let n = 0; n < sequences && (n === 0 || performance.now() < giveUpAt); n += 1) {
    const details = await fc.check(property, { seed: firstSeed + n, numRuns: 1, endOnFailure: !isWhole });
    if (details.failed) return `${fc.defaultReportMessage(details)}\n${String(details.errorInstance)}`;
  }
  return undefined;
}

function unless(code: RunnerError["code"]): (cause: unknown) => undefined {
  return (cause) => {
    if (cause instanceof RunnerError && cause.code === code) return undefined;
    throw cause;
  };
}

/** Lets the sockets that have something to say have their turn. */
function turn(): Promise<void> {
  return new Promise((resolve) => void setTimeout(resolve, 5));
}

describe("the lease as a state machine", () => {
  test("whatever drivers, the clock, a person and the network do: the database agrees with the model after each command", async () => {
    const world = await driverWorld();
    try {
      expect(await search(world, Date.now() % 1_000_000, most.sequences, most.ms)).toBeUndefined();
    } finally {
      for (const driver of world.drivers) await driver.close();
    }
  }, 120_000);

  test("holds for the statements of the lease alone", async () => {
    expect(await search(await rawWorld({}), 1, 10, most.ms)).toBeUndefined();
  }, 120_000);

  test.for([
    ["the fence does not raise", { silentFence: true }],
    ["a take-over is a plain UPDATE, and the token has no index", { plainTakeOver: true }],
  ] as const)(
    "finds a runner that writes without the lease where %s (negative control)",
    { timeout: 120_000 },
    async ([, weakness]) => {
      expect(await search(await rawWorld(weakness), 1, 200, 100_000)).toContain("seed");
    },
  );
});
