import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver, Orphan, OrphanPolicy } from "../../../src/driver/driver.ts";
import type { LeasedSession, ProbeVerdict } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { startPgBouncer } from "../../support/pgbouncer.ts";
import { startProxy } from "../../support/proxy.ts";
import { leaseOptions, settings, statementStep, transactionSteps } from "../../support/steps.ts";

needs("pgbouncer");

const building = "CREATE INDEX CONCURRENTLY i ON t (a)";

/** What a runner does when it vanishes, and how its backend is told from others. */
interface Work {
  readonly sql: string;
  apply(session: LeasedSession): Promise<unknown>;
}

const inStatements: Work = {
  sql: building,
  apply: async (session) =>
    session.applyStatements(await statementStep(`${building};`), settings, () => undefined),
};

const inTransaction: Work = {
  sql: "ALTER TABLE t ADD b int",
  apply: async (session) =>
    session.applyInTransactions(
      await transactionSteps([{ path: "1_b.up.sql", up: "ALTER TABLE t ADD b int;" }]),
      settings,
    ),
};

interface Site {
  readonly database: TestDatabase;
  /** ends what keeps the statement waiting */
  unblock(): Promise<void>;
  /** the pid of the backend that works on for nobody */
  readonly pid: number;
  /** a lease is asked for, and what its holder says is kept */
  take<T>(
    waitMs: number,
    orphans: OrphanPolicy,
    work: (session: LeasedSession) => Promise<T>,
    onOrphan?: (orphan: Orphan) => void,
  ): Promise<T>;
}

/** A runner whose machine vanishes while its statement waits: nothing is closed, so the server knows nothing of it. */
async function vanished(work: Work, isPooled: boolean): Promise<Site> {
  const database = await createDatabase();
  await database.query("CREATE TABLE t (a int)");
  const url = isPooled ? (await startPgBouncer(database.url, { poolSize: 8 })).url : database.url;
  const proxy = await startProxy(url);
  const blocker = await database.connect();
  await blocker.query("BEGIN; INSERT INTO t VALUES (1)");
  const dead = await openDriver(proxy.url);
  onTestFinished(() => dead.close());
  const death = new AbortController();
  const gone = dead
    .withLease(leaseOptions({ signal: death.signal }), (session) => work.apply(session))
    .catch(() => undefined);
  let rows: { pid: number }[] = [];
  while (rows.length === 0) {
    rows = await database.query<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/*lockkeeper:orders:1*/%' AND strpos(query, $1) > 0 AND wait_event_type = 'Lock'",
      [work.sql],
    );
  }
  // A pooler notices that its client is gone, and leaves the server's backend to itself.
  if (isPooled) proxy.onRequest(() => proxy.cut());
  else proxy.stall(true);
  if (isPooled) proxy.cut();
  death.abort(new Error("vanished"));
  if (isPooled) await gone;
  await database.query("UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 s'");
  // The fence of the dead runner: its session would end by itself after one lease.
  if (!isPooled)
    await database.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND query LIKE '%lockkeeper%'",
    );
  const driver: Driver = await openDriver(url);
  onTestFinished(() => driver.close());
  return {
    database,
    unblock: async () => void (await blocker.query("ROLLBACK")),
    pid: rows[0]?.pid ?? 0,
    take: (waitMs, orphans, next, onOrphan = () => undefined) =>
      driver.withLease(leaseOptions({ waitMs, orphans, onOrphan }), next),
  };
}

/** Goes on with what the dead runner left. */
async function goOn(session: LeasedSession): Promise<readonly ProbeVerdict[]> {
  const verdicts: ProbeVerdict[] = [];
  const { unfinished } = await session.state();
  await session.applyStatements(await statementStep(`${building};`, { unfinished }), settings, (progress) => {
    if (progress.kind === "probed") verdicts.push(progress.verdict);
  });
  return verdicts;
}

const validIndexes =
  "SELECT indexrelid::regclass::text AS i, indisvalid AS valid FROM pg_index WHERE indrelid = 't'::regclass";

describe("a statement that outlives its runner", () => {
  test.for([
    ["directly", false],
    ["through a pooler", true],
  ] as const)(
    "is named to who waits for it in vain, and counts when it ends well, %s",
    async ([, isPooled]) => {
      const { database, take, unblock, pid } = await vanished(inStatements, isPooled);
      const seen: Orphan[] = [];
      const refused = take(
        0,
        "wait",
        () => Promise.resolve(),
        (orphan) => seen.push(orphan),
      );
      await expect(refused).rejects.toMatchObject({ code: "LEASE_HELD", fields: { pid } });
      await expect(refused).rejects.toThrow(
        /which has died, is still under way on the server \(backend \d+, since 20/,
      );
      expect(seen).toMatchObject([
        { pid, isCanceled: false, runId: expect.stringMatching(/^t\./) as string },
      ]);

      const verdicts = await take(60_000, "wait", goOn, () => void unblock());
      expect(verdicts).toEqual(["done"]);
      expect(await database.query(validIndexes)).toEqual([{ i: "i", valid: true }]);
    },
  );

  test.for([
    ["directly", false],
    ["through a pooler", true],
  ] as const)(
    "is cancelled where that is asked for, and what it leaves is cleared away, %s",
    async ([, isPooled]) => {
      const { database, take, unblock, pid } = await vanished(inStatements, isPooled);
      const seen: Orphan[] = [];
      const verdicts = await take(
        60_000,
        "cancel",
        (session) => unblock().then(() => goOn(session)),
        (orphan) => seen.push(orphan),
      );
      expect(seen[0]).toMatchObject({ pid, isCanceled: true });
      expect(verdicts).toEqual(["cleared"]);
      expect(await database.query(validIndexes)).toEqual([{ i: "i", valid: true }]);
    },
  );

  test("in a transaction is waited for or cancelled in the same way", async () => {
    const { database, take, unblock, pid } = await vanished(inTransaction, false);
    await expect(take(0, "wait", () => Promise.resolve())).rejects.toMatchObject({
      code: "LEASE_HELD",
      fields: { pid },
    });
    const position = await take(60_000, "cancel", async (session) => (await session.state()).position.length);
    expect(position).toBe(0);
    await unblock();
    await take(60_000, "wait", inTransaction.apply);
    expect(await database.query("SELECT status FROM lockkeeper.history")).toEqual([{ status: "done" }]);
  });

  test("is not that of another stream, and an application's statement is nobody's", async () => {
    const { database, unblock, pid } = await vanished(inStatements, false);
    const driver = await openDriver(database.url);
    onTestFinished(() => driver.close());
    const seen: Orphan[] = [];
    const options = leaseOptions({
      stream: "order",
      orphans: "cancel",
      onOrphan: (orphan) => seen.push(orphan),
    });
    await driver.withLease(options, () => Promise.resolve());
    expect(seen).toEqual([]);
    expect(await database.query(`SELECT state FROM pg_stat_activity WHERE pid = ${pid}`)).toEqual([
      { state: "active" },
    ]);
    await unblock();
  });

  test.for([
    ["idle", "SELECT 1"],
    // As a cancelled statement leaves it: settings that were local to the transaction are gone, its time-out among them.
    ["in a failed transaction", "BEGIN; SELECT 1 / 0"],
  ] as const)(
    "may have ended, and its session stay %s: of a process that is frozen or gone, and is ended on the server",
    async ([, last]) => {
      const database = await createDatabase();
      const driver = await openDriver(database.url);
      onTestFinished(() => driver.close());
      await driver.withLease(leaseOptions(), () => Promise.resolve());
      const frozen = await database.connect();
      await frozen.query("SELECT pg_advisory_lock(hashtextextended('lockkeeper/worker/orders', 0))");
      await frozen.query(last).catch(() => undefined);
      const seen: Orphan[] = [];
      const token = await driver.withLease(
        leaseOptions({ waitMs: 60_000, onOrphan: (orphan) => seen.push(orphan) }),
        (session) => Promise.resolve(session.token),
      );
      expect(token).toBe(2);
      expect(seen).toMatchObject([{ isCanceled: true }]);
      await expect(frozen.query("SELECT 1")).rejects.toBeDefined();
    },
  );
});
