import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { StatementProgress, StatementStep } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { RunnerError } from "../../../src/error.ts";
import type { HistoryEntry } from "../../../src/history/entry.ts";
import { silentTimes, until } from "../../conformance/driver-start.ts";
import { createDatabase, ownPostgres, type TestDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { startPgBouncer } from "../../support/pgbouncer.ts";
import { startProxy } from "../../support/proxy.ts";
import { leaseOptions, never, newRun, settings, shortTimes, statementStep } from "../../support/steps.ts";

let database: TestDatabase;
let driver: Driver;

async function start(...prepared: readonly string[]): Promise<void> {
  database = await createDatabase();
  for (const sql of prepared) await database.query(sql);
  driver = await open(database.url);
}

async function open(url: string, times = shortTimes): Promise<Driver> {
  const opened = await openDriver(url, { times });
  onTestFinished(() => opened.close());
  return opened;
}

type Backfilled = Extract<StatementProgress, { kind: "backfill" }>;

interface RunOptions {
  readonly on?: Driver;
  readonly signal?: AbortSignal;
  readonly own?: Partial<typeof settings>;
  readonly runId?: string;
  readonly onProgress?: (progress: Backfilled) => void;
}

/** Runs a body under a lease of its own, going on after what the newest entry says, and gives the error it ended with. */
async function run(step: StatementStep, options: RunOptions = {}): Promise<Error | undefined> {
  const { on = driver, signal = never, own = {}, runId, onProgress } = options;
  const named = runId === undefined ? {} : { run: newRun({ id: runId }) };
  const tell = (progress: StatementProgress) => {
    if (progress.kind === "backfill") onProgress?.(progress);
  };
  try {
    await on.withLease(leaseOptions({ signal, waitMs: 30_000, ...named }), async (session) => {
      const { unfinished } = await session.state();
      await session.applyStatements({ ...step, unfinished }, { ...settings, ...own }, tell);
    });
    return undefined;
  } catch (error) {
    return error as Error;
  }
}

/** `n = n + 1` along a key: what is not 1 afterwards was missed, or done twice. */
function counting(key: string, options = "", one = "1"): Promise<StatementStep> {
  return statementStep(
    `-- lockkeeper: backfill table=t key=${key} ${options}\nUPDATE t SET n = n + ${one} FROM batch WHERE t.${key} = batch.${key};`,
  );
}

function table(type: string, values: string): readonly string[] {
  return [
    `CREATE TABLE t (id ${type} PRIMARY KEY, n int NOT NULL DEFAULT 0)`,
    `INSERT INTO t (id) ${values}`,
    // Notes how many rows each of the statements has changed.
    "CREATE TABLE ranges (no serial, size int)",
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ranges (size) SELECT count(*) FROM changed; RETURN NULL; END $$",
    "CREATE TRIGGER note AFTER UPDATE ON t REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note()",
  ];
}

const integers = (last: number) => table("int", `SELECT generate_series(1, ${last})`);

async function newest(): Promise<HistoryEntry> {
  const [entry] = await driver.history("orders", { last: 1 }, never);
  if (entry === undefined) throw new Error("the history is empty");
  return entry;
}

/** How many rows have which count. */
async function counts(): Promise<Record<string, number>> {
  const rows = await database.query<{ n: number; rows: number }>(
    "SELECT n, count(*)::int AS rows FROM t GROUP BY n ORDER BY n",
  );
  return Object.fromEntries(rows.map(({ n, rows: count }) => [n, count]));
}

async function sizes(): Promise<readonly number[]> {
  return (await database.query<{ size: number }>("SELECT size FROM ranges ORDER BY no")).map(
    ({ size }) => size,
  );
}

/** A table `busy` that the throttle reads, and a header's line that does so. */
const switchTable = ["CREATE TABLE busy AS SELECT true AS is_on"];
const throttled = "\n-- lockkeeper: throttle SELECT is_on FROM busy";

const types: readonly (readonly [type: string, values: string])[] = [
  ["int", "SELECT generate_series(-20, 80)"],
  ["bigint", "SELECT 9007199254740993 + g * 3 FROM generate_series(0, 100) g"],
  ["numeric", "SELECT g / 7.0 FROM generate_series(0, 100) g"],
  ["float8", "SELECT g / 7.0 - 3 FROM generate_series(0, 100) g"],
  ["uuid", "SELECT gen_random_uuid() FROM generate_series(0, 100)"],
  [
    "text",
    `SELECT x FROM unnest(ARRAY['', ' ', 'a', 'A', 'ä', 'Z', 'zz', 'a''b', 'a"b', '{a,b}', 'a' || chr(92) || 'b', chr(92), '$$', '--', '/*', 'a' || chr(10) || 'b',
     '%', 'null', 'ß', '日本', '😀']) x UNION ALL SELECT chr(200 + g) || g FROM generate_series(0, 79) g`,
  ],
  ['text COLLATE "C"', "SELECT chr(200 - g) || chr(60 + g) FROM generate_series(0, 100) g"],
  ["varchar(8)", "SELECT 'x' || g FROM generate_series(0, 100) g"],
  ["char(8)", "SELECT 'x' || g FROM generate_series(0, 100) g"],
  ["bytea", "SELECT decode(md5(g::text), 'hex') FROM generate_series(0, 100) g"],
  [
    "timestamptz",
    "SELECT timestamptz '2024-03-31 00:00+01' + g * interval '17 min 0.000001 s' FROM generate_series(0, 100) g",
  ],
  ["date", "SELECT date '0044-03-15 BC' + g FROM generate_series(0, 100) g"],
  ["interval", "SELECT (g - 50) * interval '1 mon -3 days 04:05' FROM generate_series(0, 100) g"],
];

describe("a backfill", () => {
  test(
    "reaches every row once along keys of any type, whatever the session writes them like",
    { timeout: 60_000 },
    async () => {
      await start();
      await database.query(
        `ALTER DATABASE ${database.name} SET DateStyle = 'SQL, DMY'; ALTER DATABASE ${database.name} SET IntervalStyle = 'sql_standard';
       ALTER DATABASE ${database.name} SET TimeZone = 'Asia/Kolkata'; ALTER DATABASE ${database.name} SET bytea_output = 'escape';
       ALTER DATABASE ${database.name} SET extra_float_digits = -5; ALTER DATABASE ${database.name} SET standard_conforming_strings = off`,
      );
      const step = await counting("id", "batch=7");
      for (const [type, values] of types) {
        await database.query("DROP TABLE IF EXISTS t, ranges; DROP FUNCTION IF EXISTS note");
        for (const sql of table(type, values)) await database.query(sql);
        const reports: Backfilled[] = [];
        expect(await run(step, { onProgress: (report) => void reports.push(report) }), type).toBeUndefined();
        expect(await counts(), type).toEqual({ 1: 101 });
        expect(await sizes(), type).toEqual([...Array.from({ length: 14 }, () => 7), 3]);
        expect(reports.at(-1)).toMatchObject({ rows: 101, fraction: 1, secondsLeft: 0, isThrottled: false });
      }
      expect(await newest()).toMatchObject({
        status: "done",
        statementsDone: 1,
        statements: 1,
        checkpoint: null,
      });
    },
  );

  test.for([18, 14] as const)(
    "reaches every row once along a key of several columns with odd names, on PostgreSQL %i",
    { timeout: 60_000 },
    async (major) => {
      const server = major === 18 ? undefined : await ownPostgres({ major });
      database = await createDatabase(server === undefined ? {} : { server });
      await database.query(
        `CREATE SCHEMA "My app"; CREATE TABLE "My app".k1 ("n" uuid NOT NULL, k0 text NOT NULL, "A b" bigint NOT NULL, x int NOT NULL DEFAULT 0);
         CREATE INDEX ON "My app".k1 (n DESC, k0 DESC, "A b" DESC) INCLUDE (x);
         INSERT INTO "My app".k1 SELECT ('00000000-0000-0000-0000-00000000000' || g % 3)::uuid, 'x' || g % 7, g % 5 FROM generate_series(1, 300) g`,
      );
      driver = await open(database.url);
      const step = await statementStep(
        `-- lockkeeper: backfill table="My app".K1 key=n,k0,"A b" batch=10\nUPDATE "My app".k1 t SET x = x + 1 FROM (SELECT DISTINCT * FROM batch) b WHERE (t.n, t.k0, t."A b") = (b.n, b.k0, b."A b")`,
      );
      expect(await run(step)).toBeUndefined();
      expect(await database.query('SELECT x, count(*)::int AS rows FROM "My app".k1 GROUP BY 1')).toEqual([
        { x: 1, rows: 300 },
      ]);
    },
  );

  test("an empty table is done at once, and a table of one row by one range", async () => {
    await start(...table("int", "SELECT 1 WHERE false"));
    expect(await run(await counting("id"))).toBeUndefined();
    expect(await sizes()).toEqual([]);
    await database.query("INSERT INTO t VALUES (1)");
    expect(await run(await counting("id"))).toBeUndefined();
    expect(await sizes()).toEqual([1]);
    expect(await newest()).toMatchObject({ status: "done" });
  });

  test("rows that others add above the cursor meanwhile are reached, those they delete are no hindrance", async () => {
    await start(...integers(400), ...switchTable);
    const stop = new AbortController();
    const others = await database.connect();
    const working = (async () => {
      for (let n = 1000; !stop.signal.aborted; n += 2) {
        await others.query(
          `INSERT INTO t VALUES (${n}), (${n + 1}); DELETE FROM t WHERE id IN (${n + 1}, ${n - 999})`,
        );
      }
    })();
    const onProgress = ({ isThrottled }: Backfilled) => {
      if (isThrottled && !stop.signal.aborted)
        void until(async () => (await counts())["0"] !== undefined).then(async () => {
          stop.abort();
          await working;
          await database.query("UPDATE busy SET is_on = false");
        });
    };
    expect(await run(await counting("id", `batch=20${throttled}`), { onProgress })).toBeUndefined();
    expect(Object.keys(await counts())).toEqual(["1"]);
    expect((await database.query("SELECT 1 FROM t WHERE id >= 1000")).length).toBeGreaterThan(0);
  });

  test("whoever keeps adding rows behind its end does not keep it going for ever", async () => {
    await start(...integers(3));
    await database.query(
      "CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t SELECT max(id) + 1 FROM t; RETURN NULL; END $$",
    );
    await database.query("CREATE TRIGGER grow AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION grow()");
    expect(await run(await counting("id", "batch=2"))).toBeUndefined();
    expect(await counts()).toMatchObject({ 0: 1 });
  });

  test("runs whatever can name the relation batch, up or down", async () => {
    await start(...integers(0), "CREATE TABLE copy (id int PRIMARY KEY, n int)");
    for (const sql of [
      "DELETE FROM t USING batch WHERE t.id = batch.id AND t.id % 2 = 0",
      "INSERT INTO copy WITH twice AS (SELECT id, id * 2 AS n FROM batch) SELECT * FROM twice WHERE id % 2 = 0 RETURNING id",
      "with moved AS (DELETE FROM t USING batch WHERE t.id = batch.id AND t.id % 2 = 0 RETURNING t.*) INSERT INTO copy SELECT id, id * 2 FROM moved",
      "WITH -- why\nRECURSIVE up (id) AS (SELECT id FROM batch UNION SELECT id FROM up) INSERT INTO copy SELECT id, id * 2 FROM up WHERE id % 2 = 0",
      "WITH recursive AS (SELECT id FROM batch) INSERT INTO copy SELECT id, id * 2 FROM recursive WHERE id % 2 = 0",
      "MERGE INTO copy USING batch ON copy.id = batch.id WHEN NOT MATCHED AND batch.id % 2 = 0 THEN INSERT VALUES (batch.id, batch.id * 2)",
    ]) {
      await database.query("TRUNCATE t, copy");
      await database.query("INSERT INTO t SELECT generate_series(1, 50)");
      const step = await statementStep(`-- lockkeeper: backfill table=t key=id batch=10\n${sql}`);
      const reports: Backfilled[] = [];
      const onProgress = (report: Backfilled) => void reports.push(report);
      expect(await run({ ...step, direction: "down" }, { onProgress }), sql).toBeUndefined();
      expect(reports.at(-1), sql).toMatchObject({ rows: 25 });
      expect(await newest(), sql).toMatchObject({ status: "done", direction: "down" });
      const copies = await database.query("SELECT id FROM copy WHERE n = id * 2");
      expect(copies, sql).toHaveLength(sql.startsWith("DELETE") ? 0 : 25);
      const left = await database.query("SELECT id FROM t WHERE id % 2 = 0");
      expect(left, sql).toHaveLength(sql.includes("DELETE") ? 0 : 25);
    }
  });
});

describe("a backfill that is cut off", () => {
  test("by the death of its runner goes on where it was, wherever it died", async () => {
    await start(...integers(200));
    const step = await counting("id", "batch=5");
    const deaths: (Error | undefined)[] = [];
    for (let round = 0; round < 12; round += 1) {
      const proxy = await startProxy(database.url);
      const dying = await open(proxy.url);
      const dead = new AbortController();
      const die = () => {
        proxy.cut();
        dead.abort();
      };
      let left = 1 + (round % 4);
      let isDying = false;
      proxy.onRequest((bytes) => {
        if (isDying) return die();
        if (!bytes.includes("WITH batch AS") || (left -= 1) > 0) return;
        isDying = true;
        // Before the server has read it, or while it works, or when it has done.
        if (round % 3 === 0) die();
        else setTimeout(die, round);
      });
      deaths.push(await run(step, { on: dying, signal: dead.signal }));
      await database.query(
        "UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 second' WHERE holder IS NOT NULL",
      );
    }
    expect(deaths).not.toContain(undefined);
    expect(await newest()).toMatchObject({
      status: "started",
      checkpoint: { kind: "backfill", statement: 0 },
    });
    expect(await run(step)).toBeUndefined();
    expect(await counts()).toEqual({ 1: 200 });
    expect(await sizes()).toEqual(Array.from({ length: 40 }, () => 5));
  });

  test("by a lost connection goes on by itself, on the server's side too", async () => {
    await start(...integers(100), "CREATE SEQUENCE tries");
    // Every seventh range ends its own session, at its beginning or when its row is written.
    await database.query(
      "CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF nextval('tries') % 7 = 3 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$",
    );
    await database.query(
      "CREATE TRIGGER a BEFORE UPDATE ON t EXECUTE FUNCTION crash(); CREATE TRIGGER b AFTER UPDATE ON t EXECUTE FUNCTION crash()",
    );
    const retries: string[] = [];
    const own = {
      onRetry: (_: string, attempt: number, state: string) => void retries.push(`${attempt} ${state}`),
    };
    expect(await run(await counting("id", "batch=10"), { own })).toBeUndefined();
    expect(retries).toContain("1 57P01");
    expect(await counts()).toEqual({ 1: 100 });
    expect(await newest()).toMatchObject({ status: "done" });
  });

  test("by another runner that took over can change nothing more", async () => {
    await start(...integers(100), ...switchTable);
    const stale = await open(database.url, silentTimes);
    const step = await counting("id", `batch=5${throttled}`);
    const waiting = Promise.withResolvers<void>();
    const old = run(step, { on: stale, onProgress: () => waiting.resolve() });
    await waiting.promise;
    await database.query(
      "UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 second'",
    );
    await database.query("UPDATE busy SET is_on = false");
    expect(await run(step)).toBeUndefined();
    expect(await old).toMatchObject({ code: "LEASE_LOST" });
    expect(await counts()).toEqual({ 1: 100 });
    expect(await newest()).toMatchObject({ status: "done", token: 2 });
  });

  test("by a person's cancel or a deadline keeps what is done, says so, and goes on in the next run", async () => {
    await start(...integers(100));
    const step = await counting("id", "batch=10 pause=1h");
    const runId = newRun().id;
    const canceled = run(step, { runId });
    await until(async () => (await counts())["1"] === 10);
    expect(await driver.requestCancel(runId, "lunch", never)).toBe(true);
    expect(await canceled).toMatchObject({ code: "CANCELED" });
    expect(await newest()).toMatchObject({
      status: "failed",
      error: { code: "CANCELED" },
      checkpoint: { kind: "backfill", cursor: ["10"], rows: 10 },
    });

    const stop = new AbortController();
    const late = run(step, { signal: stop.signal });
    await until(async () => (await counts())["1"] === 20);
    stop.abort(new RunnerError("DEADLINE", "the time is over"));
    expect(await late).toMatchObject({ code: "DEADLINE" });
    expect(await newest()).toMatchObject({
      error: { code: "DEADLINE" },
      checkpoint: { cursor: ["20"], rows: 20 },
    });

    const reports: Backfilled[] = [];
    const onProgress = (report: Backfilled) => void reports.push(report);
    expect(await run(await counting("id", "batch=40"), { onProgress })).toBeUndefined();
    expect(await sizes()).toEqual([10, 10, 40, 40]);
    expect(reports[0]).toMatchObject({ rows: 60 });
    expect(reports[0]?.fraction).toBeCloseTo(59 / 99);
    expect(await counts()).toEqual({ 1: 100 });
  });

  test("between the commit of a range and the answer does not forget that the range is done", async () => {
    await start(...integers(40));
    const [gate, blocker] = [await database.connect(), await database.connect()];
    await gate.query("SELECT pg_advisory_lock(1)");
    const stop = new AbortController();
    const one = "1 + CASE WHEN t.id = 15 THEN (pg_advisory_xact_lock(1) IS NULL)::int ELSE 0 END";
    const step = await counting("id", "batch=10", one);
    const stopped = run(step, { signal: stop.signal });
    const waiting = (type: string) =>
      until(
        async () =>
          (
            await database.query(
              `SELECT 1 FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE a.datname = current_database() AND NOT l.granted AND l.locktype = '${type}'`,
            )
          ).length > 0,
      );
    await waiting("advisory");
    // The next in the queue for the table: it comes between the range and the question for the one after it.
    await blocker.query("BEGIN");
    const locked = blocker.query("LOCK TABLE t");
    await waiting("relation");
    await gate.query("SELECT pg_advisory_unlock(1)");
    await locked;
    await waiting("relation");
    stop.abort(new RunnerError("DEADLINE", "the time is over"));
    expect(await stopped).toMatchObject({ code: "DEADLINE" });
    await blocker.query("COMMIT");
    expect(await newest()).toMatchObject({ status: "failed", checkpoint: { cursor: ["20"] } });
    expect(await run(step)).toBeUndefined();
    expect(await counts()).toEqual({ 1: 40 });
  });

  test("in the middle of a range is ended on the server", async () => {
    await start(...integers(20));
    const stop = new AbortController();
    const step = await counting(
      "id",
      "batch=10",
      "CASE WHEN t.id > 10 AND pg_sleep(300) IS NULL THEN 2 ELSE 1 END",
    );
    const stopped = run(step, { signal: stop.signal });
    const asleep = () =>
      database.query(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
      );
    await until(async () => (await asleep()).length > 0);
    stop.abort(new RunnerError("DEADLINE", "the time is over"));
    expect(await stopped).toMatchObject({ code: "DEADLINE" });
    expect(await asleep()).toEqual([]);
    expect(await newest()).toMatchObject({ status: "failed", checkpoint: { cursor: ["10"], rows: 10 } });
  });
});

describe("a backfill beside the application", () => {
  test("holds no transaction, snapshot or lock between its ranges, and waits while the throttle says so", async () => {
    await start(...integers(30), ...switchTable);
    const reports: Backfilled[] = [];
    const running = run(await counting("id", `batch=10 tx=none${throttled};`), {
      onProgress: (report) => void reports.push(report),
    });
    await until(() => Promise.resolve(reports.length > 1));
    // The heartbeats come and go; what stays open would be seen each time.
    await until(async () => {
      const open = await database.query(
        `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
         AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL OR state <> 'idle')
         UNION ALL SELECT pid FROM pg_locks l WHERE pid <> pg_backend_pid() AND relation = 't'::regclass`,
      );
      return open.length === 0;
    });
    expect(await counts()).toEqual({ 0: 30 });
    expect(reports[0]).toMatchObject({ isThrottled: true, rows: 0, fraction: 0, secondsLeft: null });
    await database.query("UPDATE busy SET is_on = NULL");
    expect(await running).toBeUndefined();
    expect(await counts()).toEqual({ 1: 30 });
    expect(reports.at(-1)).toMatchObject({ isThrottled: false, fraction: 1 });
  });

  test("a throttle that cannot be asked ends it, and says that it was the throttle", async () => {
    await start(...integers(30));
    const asks = (query: string) => counting("id", `\n-- lockkeeper: throttle ${query}`);
    expect(await run(await asks("SELECT lag FROM nowhere"))).toMatchObject({
      code: "BACKFILL",
      message: expect.stringContaining('relation "nowhere" does not exist'),
    });
    expect(await run(await asks("SELECT 1"))).toMatchObject({ code: "BACKFILL" });
    expect(await newest()).toMatchObject({ status: "failed", error: { code: "BACKFILL" } });
    expect(await counts()).toEqual({ 0: 30 });
  });

  test("takes fewer rows at once while another session holds some of them, and as many as before afterwards", async () => {
    await start(...integers(200));
    const blocker = await database.connect();
    await blocker.query("BEGIN");
    await blocker.query("UPDATE t SET n = n WHERE id = 38");
    const states: string[] = [];
    const own = {
      lockTimeoutMs: 50,
      onRetry: (_path: string, attempt: number, sqlstate: string) => {
        states.push(sqlstate);
        if (attempt === 3) void blocker.query("COMMIT");
      },
    };
    expect(await run(await counting("id", "batch=20"), { own })).toBeUndefined();
    expect(new Set(states)).toEqual(new Set(["55P03"]));
    expect(await counts()).toEqual({ 1: 200 });
    const seen = (await sizes()).slice(1);
    expect(Math.min(...seen.slice(0, 2))).toBeLessThan(20);
    expect(Math.max(...seen.slice(3))).toBe(20);
  });
});

describe("a backfill behind a pooler", () => {
  needs("pgbouncer");

  test("needs no more than two connections of PgBouncer in transaction mode", async () => {
    await start(...integers(100));
    const pooler = await startPgBouncer(database.url, { poolSize: 2 });
    const pooled = await open(pooler.url);
    expect(await run(await counting("id", "batch=7 pause=1ms"), { on: pooled })).toBeUndefined();
    expect(await counts()).toEqual({ 1: 100 });
  });
});

describe("a backfill that fails", () => {
  test("keeps its cursor, says where, and goes on there when the same statement can go on", async () => {
    await start(...integers(100));
    const one = "1 + 0 / (t.id - 57)";
    const failure = await run(await counting("id", "batch=10", one));
    expect(failure).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { sqlstate: "22012", line: 2, column: 1 },
      message: expect.stringContaining("of 50 changed rows, are done and are not repeated"),
    });
    expect(await newest()).toMatchObject({
      status: "failed",
      statementsDone: 0,
      checkpoint: { kind: "backfill", cursor: ["50"], rows: 50 },
    });
    await database.query("DELETE FROM t WHERE id = 57");
    expect(await run(await counting("id", "batch=20 lock_timeout=2s", one))).toBeUndefined();
    expect(await counts()).toEqual({ 1: 99 });
    expect(await newest()).toMatchObject({ status: "done" });
  });

  test("begins anew when its statement, its table or its key is another one", async () => {
    await start(
      ...integers(100),
      "ALTER TABLE t ADD other int UNIQUE",
      "UPDATE t SET other = -id",
      "TRUNCATE ranges",
    );
    await database.query("ALTER TABLE t ALTER other SET NOT NULL");
    expect(await run(await counting("id", "batch=50", "1 + 0 / (t.id - 57)"))).toMatchObject({
      code: "MIGRATION_FAILED",
    });
    expect(await run(await counting("other", "batch=50"))).toBeUndefined();
    expect(await counts()).toEqual({ 1: 50, 2: 50 });
  });

  test("keeps its cursor whatever it looks like", async () => {
    await start(...table("text", "VALUES ('\\u0000'), ('\\\\u0000'), ('zz')"));
    expect(await run(await counting("id", "batch=2", "1 + 0 / (t.id <> 'zz')::int"))).toMatchObject({
      code: "MIGRATION_FAILED",
    });
    const { checkpoint } = await newest();
    expect(checkpoint).toMatchObject({ cursor: [expect.stringContaining("\\u0000")], rows: 2 });
    expect(await run(await counting("id", "batch=2", "1 + 0 / (t.id <> 'zz')::int"))).toBeDefined();
    expect((await newest()).checkpoint).toEqual(checkpoint);
  });

  test("points at the place in the file, behind a WITH of its own too", async () => {
    await start(...integers(10));
    const head = "-- ä\n-- lockkeeper: backfill table=t key=id\n/* ü */  ";
    for (const [sql, column] of [
      ["UPDATE t SET n = nope FROM batch WHERE t.id = batch.id", 27],
      ["WITH RECURSIVE a AS (SELECT 1) UPDATE t SET n = nope FROM batch", 58],
    ] as const) {
      expect(await run(await statementStep(head + sql))).toMatchObject({
        fields: { sqlstate: "42703", line: 3, column, statement: 1, statements: 1 },
      });
    }
    expect((await newest()).error?.message).toContain("1_outside.up.sql:3:58: ");
  });

  test("changes nothing more when somebody else has moved its cursor", async () => {
    await start(...integers(100), ...switchTable);
    const waiting = Promise.withResolvers<void>();
    const running = run(await counting("id", throttled), { onProgress: () => waiting.resolve() });
    await waiting.promise;
    await database.query(`UPDATE lockkeeper.history SET checkpoint = checkpoint || '{"cursor": ["7"]}'`);
    await database.query("UPDATE busy SET is_on = false");
    expect(await running).toMatchObject({
      message: expect.stringContaining("was changed while its backfill ran"),
    });
    expect(await counts()).toEqual({ 0: 100 });
  });

  test("that could skip rows, or would read the whole table for each range, does not begin", async () => {
    await start();
    for (const [prepared, header, what] of [
      ["", "table=nowhere key=id", "is not there"],
      ["CREATE OR REPLACE VIEW v AS SELECT 1 AS id", "table=v key=id", "is a view"],
      ["", "table=t key=ID,nope", "has no column nope"],
      ["ALTER TABLE t ADD a int UNIQUE", "table=t key=a", "may be NULL"],
      ["", "table=t key=n", "no index leads through"],
      ["CREATE INDEX ON t (n, id)", "table=t key=id,n", "no index leads through"],
      ["CREATE INDEX ON t (n) WHERE n > 0", "table=t key=n", "no index leads through"],
      ["CREATE INDEX ON t (n, id DESC)", "table=t key=n,id", "no index leads through"],
      ["CREATE INDEX ON t (n NULLS FIRST)", "table=t key=n", "no index leads through"],
      ["CREATE INDEX ON t USING hash (n)", "table=t key=n", "no index leads through"],
      ["CREATE INDEX ON t (s text_pattern_ops)", "table=t key=s", "no index leads through"],
      ['CREATE INDEX ON t (s COLLATE "C")', "table=t key=s", "no index leads through"],
      [
        "CREATE INDEX i ON t (n); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass",
        "table=t key=n",
        "no index leads through",
      ],
    ] as const) {
      await database.query(
        `DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, s text NOT NULL DEFAULT ''); INSERT INTO t VALUES (1); ${prepared}`,
      );
      const step = await statementStep(`-- lockkeeper: backfill ${header}\nDELETE FROM t USING batch`);
      const failure = await run(step);
      expect(failure, prepared).toMatchObject({ code: "BACKFILL", hint: expect.any(String) });
      expect(failure?.message, prepared).toContain(what);
      expect(await newest()).toMatchObject({ status: "failed", error: { code: "BACKFILL" } });
      expect(await counts()).toEqual({ 0: 1 });
    }
  });
});
