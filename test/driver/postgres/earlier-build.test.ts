import { readFile } from "node:fs/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { begin, fence } from "../../../src/driver/postgres/lease.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { take, t } from "../../support/raw-lease.ts";
import { applyBodies, leaseOptions, never, newRun } from "../../support/steps.ts";

/**
 * Databases whose tables an earlier build of ours has made, and had runs in. Whatever a driver is asked first, it answers
 * as on any other database, and nobody has to change anything by hand.
 */

const root = { version: 2, files: [{ version: 2, document: "{}", bundles: "{}" }] };
const highWaterMark = { epoch: 1, version: 5, digest: "sha256:e" };
const beginning = {
  highWaterMark,
  root,
  releaseDigest: "sha256:e",
  fromVersion: null,
  toVersion: "2",
  steps: 1,
};
const added = { path: "2_add.up.sql", up: "CREATE TABLE added ()" };

describe.for(["first", "before-trust"])("tables of the build %s", (build) => {
  test.for(Object.entries(firstActs()))("can first be asked for %s", async ([, act]) => {
    const { driver } = await start(build);
    await act(driver);
    expect(await driver.state("orders", never)).toMatchObject({ environment: "default", targetId: "t" });
  });

  test("are brought up to date by several runners at once, whose runs come one after another", async () => {
    const { open } = await start(build);
    const drivers = await Promise.all(Array.from({ length: 6 }, () => open()));
    const tokens = await Promise.all(
      drivers.map((driver) =>
        driver.withLease(leaseOptions({ waitMs: 50_000 }), async (session) => {
          await session.begin(beginning);
          return session.token;
        }),
      ),
    );
    expect(tokens.toSorted((a, b) => a - b)).toEqual([8, 9, 10, 11, 12, 13]);
  });

  test("are then as those of a fresh database", async () => {
    const { database, driver } = await start(build);
    const fresh = await createDatabase();
    const other = await openDriver(fresh.url);
    onTestFinished(() => other.close());
    for (const each of [driver, other]) await each.withLease(leaseOptions(), () => Promise.resolve());
    expect(await columnsIn(database)).toEqual(await columnsIn(fresh));
    expect(await indexesIn(database)).toEqual(expect.arrayContaining([...(await indexesIn(fresh))]));
  });

  test("wait for a fenced transaction of that build on any stream, which is not disturbed by it", async () => {
    const { database, driver } = await start(build);
    const earlier = await database.connect();
    const key = { stream: "billing", runId: "old" };
    await database.query(`INSERT INTO ${t.streams} (name) VALUES ('billing')`);
    const token = await take(earlier, { ...key, leaseMs: 600_000 });
    await earlier.query(`${begin}; ${fence(t, { ...key, token: token ?? 0 })}`);

    await expect(driver.withLease(leaseOptions(), () => Promise.resolve())).rejects.toMatchObject({
      code: "LEASE_HELD",
      message: expect.stringContaining("earlier version of lockkeeper") as string,
    });
    // What needs no column goes on meanwhile.
    expect(await driver.audit.append("{}", never)).toMatchObject({ seq: 1 });
    await database.query(`UPDATE ${t.streams} SET expires_at = clock_timestamp() WHERE name = 'billing'`);
    const isWaiting = Promise.withResolvers<void>();
    const waiting = driver.withLease(
      leaseOptions({ waitMs: 100_000, assertStillWanted: () => isWaiting.resolve() }),
      async (session) => session.token,
    );
    await isWaiting.promise;
    await earlier.query("COMMIT");
    expect(await waiting).toBe(8);
  });
});

test("a role that may not change the tables is told so, and state can be read without", async () => {
  const { database, driver } = await start("before-trust");
  await database.query("ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC");
  const role = `reader_${Date.now()}`;
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'r'`);
  onTestFinished(async () => {
    await database.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  });
  await database.query(
    `GRANT USAGE ON SCHEMA lockkeeper TO ${role}; GRANT SELECT ON ALL TABLES IN SCHEMA lockkeeper TO ${role}`,
  );
  const url = new URL(database.url);
  url.username = role;
  url.password = "r";
  const reader = await openDriver(url.href);
  onTestFinished(() => reader.close());
  expect(await reader.state("orders", never)).toMatchObject({ rootVersion: null, position: { length: 1 } });
  expect(await reader.history("orders", {}, never)).toHaveLength(1);
  expect(await reader.roots("orders", never)).toEqual([]);
  await expect(reader.setPaused("orders", true, never)).rejects.toMatchObject({ code: "DATABASE_DENIED" });
  await expect(reader.audit.append("{}", never)).rejects.toMatchObject({ code: "DATABASE_DENIED" });
  expect((await driver.state("orders", never)).paused).toBe(false);
});

/** Every question and act of a driver, as the first thing that it does. */
function firstActs(): Readonly<Record<string, (driver: Driver) => Promise<void>>> {
  return {
    state: async (driver) => {
      expect(await driver.state("orders", never)).toMatchObject({
        position: { length: 1, chain: "c1", version: "1" },
        highWaterMark: { epoch: 1, version: 4, digest: "sha256:d" },
        rootVersion: null,
        inStep: null,
        failed: null,
      });
    },
    history: async (driver) => {
      expect(await driver.history("orders", {}, never)).toMatchObject([{ seq: 1, checkpoint: null }]);
    },
    runs: async (driver) => {
      expect(await driver.run("t.old", never)).toMatchObject({ attempt: 0, backup: null });
      expect(await driver.runs({ target: "t", limit: 5 }, never)).toHaveLength(1);
    },
    "runs to pick up": async (driver) => {
      expect(await driver.pickUpRuns({ target: "t", own: [], limit: 5 }, never)).toEqual([]);
    },
    "a change of a run": async (driver) => {
      await driver.updateRun("t.old", { status: "failed", outcome: "failed" }, never);
      expect(await driver.run("t.old", never)).toMatchObject({ status: "failed" });
    },
    "a run to be accepted": async (driver) => {
      expect(await driver.acceptRun(newRun(), never)).toMatchObject({ kind: "accepted" });
    },
    "an entry of the audit log": async (driver) => {
      expect(await driver.audit.read({ after: 0, limit: 5 }, never)).toEqual([]);
      expect(await driver.audit.append("{}", never)).toMatchObject({ seq: 1 });
    },
    roots: async (driver) => {
      expect(await driver.roots("orders", never)).toEqual([]);
    },
    "a pause": async (driver) => {
      expect(await driver.setPaused("orders", true, never)).toBe(true);
    },
    "a reset of trust": async (driver) => {
      expect(await driver.resetTrust("orders", { releases: true }, never)).toEqual({
        rootVersion: null,
        highWaterMark: { epoch: 1, version: 4, digest: "sha256:d" },
      });
    },
    "the lease": async (driver) => {
      await driver.withLease(leaseOptions(), async (session) => {
        await session.state();
        await session.begin(beginning);
        expect(await session.state()).toMatchObject({ rootVersion: 2, highWaterMark });
        expect(
          (await applyBodies(session, [{ path: "1_first.up.sql", up: "SELECT 1" }, added], 2)).failure,
        ).toBeNull();
      });
      expect(await driver.roots("orders", never)).toEqual(root.files);
      const entries = await driver.history("orders", {}, never);
      expect(entries.map(({ seq, status }) => [seq, status])).toEqual([
        [1, "done"],
        [2, "done"],
      ]);
    },
  };
}

/** Each with its type, default and whether it may be empty; in which order, nothing depends on. */
function columnsIn(database: TestDatabase): Promise<readonly unknown[]> {
  return database.query(
    `SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns
     WHERE table_schema = 'lockkeeper' ORDER BY 1, 2`,
  );
}

function indexesIn(database: TestDatabase): Promise<readonly unknown[]> {
  return database.query("SELECT indexdef FROM pg_indexes WHERE schemaname = 'lockkeeper' ORDER BY 1");
}

interface Started {
  readonly database: TestDatabase;
  readonly driver: Driver;
  open(): Promise<Driver>;
}

/** Tables as that build made them, with one migration applied by a run that has not been seen to end. */
async function start(build: string): Promise<Started> {
  const database = await createDatabase();
  await database.query(
    await readFile(`${import.meta.dirname}/../../vectors/earlier-tables/${build}.sql`, "utf8"),
  );
  await database.query(`
    INSERT INTO lockkeeper.streams (name, environment, target_id, epoch, version, release, completed, token)
    VALUES ('orders', 'default', 't', 1, 4, 'sha256:d', 'sha256:d', 7);
    INSERT INTO lockkeeper.history (stream, seq, version, path, direction, sha256, size, chain, origin, status, statements_done,
     statements, signed, run_id, token, started_at, duration_ms, applied_by)
    VALUES ('orders', 1, '1', '1_first.up.sql', 'up', 's1', 8, 'c1', 'run', 'done', 1, 1, true, 't.old', 7, now(), 1, 'tester');
    INSERT INTO lockkeeper.runs (id, target, stream, action, status, trigger, caller, labels)
    VALUES ('t.old', 't', 'orders', 'apply', 'running', 'cli', '{}', '{}')`);
  const open = async (): Promise<Driver> => {
    const driver = await openDriver(database.url);
    onTestFinished(() => driver.close());
    return driver;
  };
  return { database, driver: await open(), open };
}
