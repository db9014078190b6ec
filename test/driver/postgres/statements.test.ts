import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { LeasedSession, StatementProgress, StatementStep } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { closeGate } from "../../support/gate.ts";
import { leaseOptions, never, settings, shortTimes, statementStep } from "../../support/steps.ts";

let database: TestDatabase;
let driver: Driver;

async function start(...prepared: readonly string[]): Promise<void> {
  database = await createDatabase();
  for (const sql of prepared) await database.query(sql);
  driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
}

/** Runs a body under a lease of its own, and gives the error that it ended with. */
async function run(step: StatementStep, own = settings): Promise<Error | undefined> {
  let failure: Error | undefined;
  const onProgress = (progress: StatementProgress) =>
    void (progress.kind === "statement" && seen.push(progress.done));
  const apply = (session: LeasedSession) =>
    session.applyStatements(step, own, onProgress).catch((error: Error) => void (failure = error));
  seen.length = 0;
  await driver.withLease(leaseOptions(), async (session) => void (await apply(session)));
  return failure;
}
const seen: number[] = [];

async function newest(): Promise<{ status: string; done: number; of: number; code: string | undefined }> {
  const [entry] = await driver.history("orders", { last: 1 }, never);
  return {
    status: entry?.status ?? "none",
    done: entry?.statementsDone ?? -1,
    of: entry?.statements ?? -1,
    code: entry?.error?.code,
  };
}

async function indexes(): Promise<readonly string[]> {
  const rows = await database.query<{ name: string }>(
    "SELECT i.relname || CASE WHEN x.indisvalid THEN '' ELSE ' invalid' END AS name FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = i.relnamespace WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'lockkeeper' ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

describe("a body outside transactions", () => {
  test("runs its statements one by one and checkpoints each", async () => {
    await start("CREATE TABLE t (a int, b int)", "INSERT INTO t SELECT n, n FROM generate_series(1, 100) n");
    const step = await statementStep(
      "CREATE INDEX CONCURRENTLY i1 ON t (a);\nALTER TABLE t ADD c int;\nCREATE UNIQUE INDEX CONCURRENTLY i2 ON t (b);\nVACUUM t;\nDROP INDEX CONCURRENTLY i1;\nREINDEX TABLE CONCURRENTLY t;",
    );
    expect(await run(step)).toBeUndefined();
    expect(seen).toEqual([1, 2, 3, 4, 5, 6]);
    expect(await newest()).toEqual({ status: "done", done: 6, of: 6, code: undefined });
    const [entry] = await driver.history("orders", {}, never);
    expect(entry?.statementChecksums).toHaveLength(6);
    expect(await indexes()).toEqual(["i2"]);
    expect((await driver.state("orders", never)).position.length).toBe(1);
  });

  test("the fence holds no snapshot, the lease lives on, and the fence is there to be found", async () => {
    await start("CREATE TABLE t (a int)");
    const gate = await closeGate(database);
    const step = await statementStep("-- lockkeeper: tx=none\nCALL wait();");
    await database.query(`CREATE PROCEDURE wait() LANGUAGE plpgsql AS $$ BEGIN PERFORM ${gate.sql}; END $$`);
    driver = await openDriver(database.url, { times: shortTimes });
    onTestFinished(() => driver.close());
    const running = run(step);
    await gate.reached();
    expect(
      await database.query(
        "SELECT backend_xmin::text AS xmin FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'",
      ),
    ).toEqual([{ xmin: null }]);
    const expiry = async () => (await driver.state("orders", never)).lease?.expiresAt.getTime() ?? 0;
    const before = await expiry();
    while ((await expiry()) <= before);
    await gate.open();
    expect(await running).toBeUndefined();
    expect(await newest()).toMatchObject({ status: "done" });
  });

  test.for([
    ["first", 0],
    ["middle", 1],
    ["last", 2],
  ] as const)(
    "that fails in its %s statement says where, keeps what is done, and goes on there when it is corrected",
    async ([, index]) => {
      await start("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1), (1)");
      const good = [
        "CREATE INDEX CONCURRENTLY i0 ON t (a);",
        "CREATE INDEX CONCURRENTLY i1 ON t (a);",
        "CREATE INDEX CONCURRENTLY i2 ON t (a);",
      ];
      const bad = good.with(index, `-- ä\n  CREATE UNIQUE INDEX CONCURRENTLY i${index} ON t (a);`);
      expect(await run(await statementStep(bad.join("\n")))).toMatchObject({
        code: "MIGRATION_FAILED",
        fields: { sqlstate: "23505", statement: index + 1, statements: 3, line: index + 2, column: 3 },
      });
      expect(await newest()).toEqual({ status: "failed", done: index, of: 3, code: "MIGRATION_FAILED" });
      // What the failed build left is cleared away at once: even an invalid index costs every write.
      expect((await indexes()).filter((name) => name.endsWith("invalid"))).toEqual([]);
      expect((await driver.state("orders", never)).position.length).toBe(0);

      expect(await run(await statementStep(good.join("\n"), { resumeAt: index }))).toBeUndefined();
      expect(seen).toEqual([1, 2, 3].slice(index));
      expect(await newest()).toMatchObject({ status: "done", done: 3 });
      expect(await indexes()).toEqual(["i0", "i1", "i2"]);
      const [entry] = await driver.history("orders", { last: 1 }, never);
      expect(entry?.statementChecksums).toHaveLength(3);
    },
  );

  test("an invalid index of the same name is replaced also where IF NOT EXISTS would have taken it, in whatever schema", async () => {
    await start(
      'CREATE SCHEMA "My"',
      'CREATE TABLE "My"."T t" (a int)',
      'INSERT INTO "My"."T t" VALUES (1), (1)',
    );
    expect(
      await run(
        await statementStep('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I ""x" ON "My"."T t" (a);'),
      ),
    ).toMatchObject({ code: "MIGRATION_FAILED" });
    expect(await indexes()).toEqual([]);
    const other = await database.connect();
    await expect(
      other.query('CREATE UNIQUE INDEX CONCURRENTLY "I ""x" ON "My"."T t" (a)'),
    ).rejects.toMatchObject({ code: "23505" });
    expect(await indexes()).toEqual(['I "x invalid']);
    await database.query('DELETE FROM "My"."T t"');
    expect(
      await run(
        await statementStep('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I ""x" ON "My"."T t" (a);'),
      ),
    ).toBeUndefined();
    expect(await indexes()).toEqual(['I "x']);
  });

  test("a transactional statement commits with its checkpoint, or not at all", async () => {
    await start("CREATE TABLE t (a int)");
    const text =
      "-- lockkeeper: tx=none\nCREATE TABLE a ();\nCREATE TABLE b (); -- next\nINSERT INTO t SELECT 1/0;";
    expect(await run(await statementStep(text))).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { sqlstate: "22012", statement: 3, line: 4 },
    });
    expect(await newest()).toMatchObject({ status: "failed", done: 2 });
    expect(
      await database.query("SELECT count(*)::int AS n FROM pg_tables WHERE tablename IN ('a', 'b')"),
    ).toEqual([{ n: 2 }]);
  });

  test("SET holds for the rest of the file, also when it is resumed, and no longer", async () => {
    await start("CREATE SCHEMA app", "CREATE TABLE app.t (a int)", "INSERT INTO app.t VALUES (1), (1)");
    const text = (unique: string) =>
      `-- lockkeeper: tx=none\nSET search_path = app;\nSELECT pg_catalog.set_config('statement_timeout', '77s', false);\nCREATE TABLE seen AS SELECT current_setting('statement_timeout') AS s;\nCREATE ${unique} INDEX CONCURRENTLY i ON t (a);`;
    expect(await run(await statementStep(text("UNIQUE")))).toMatchObject({ fields: { sqlstate: "23505" } });
    expect(await run(await statementStep(text(""), { resumeAt: 3 }))).toBeUndefined();
    expect(await database.query("SELECT s FROM app.seen")).toEqual([{ s: "77s" }]);
    expect(await database.query("SELECT schemaname FROM pg_indexes WHERE indexname = 'i'")).toEqual([
      { schemaname: "app" },
    ]);
    const next = await statementStep(
      "-- lockkeeper: tx=none\nCREATE TABLE after AS SELECT current_setting('search_path') AS s;",
    );
    expect(await run(next)).toBeUndefined();
    expect(await database.query("SELECT s FROM public.after")).toEqual([{ s: '"$user", public' }]);
  });

  test("a role that the file takes is not the one that writes the history", async () => {
    await start("CREATE TABLE t (a int)", "GRANT CREATE ON SCHEMA public TO pg_monitor");
    const text =
      "-- lockkeeper: tx=none\nSET ROLE pg_monitor;\nCREATE TABLE mine ();\nCREATE INDEX CONCURRENTLY i ON mine ((1));";
    expect(await run(await statementStep(text))).toBeUndefined();
    expect(await database.query("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'")).toEqual([
      { tableowner: "pg_monitor" },
    ]);
    expect(await newest()).toMatchObject({ status: "done", done: 3 });
  });

  test("a lock time-out of a transactional statement is tried again", async () => {
    await start("CREATE TABLE t (a int)");
    const blocker = await database.connect();
    await blocker.query("BEGIN; LOCK TABLE t");
    const retries: string[] = [];
    const own = {
      ...settings,
      lockTimeoutMs: 50,
      onRetry: (path: string, attempt: number, sqlstate: string) => {
        retries.push(`${path} ${attempt} ${sqlstate}`);
        if (attempt === 2) void blocker.query("COMMIT");
      },
    };
    expect(
      await run(await statementStep("-- lockkeeper: tx=none\nALTER TABLE t ADD b int;"), own),
    ).toBeUndefined();
    expect(retries.slice(0, 2)).toEqual(["1_outside.up.sql 1 55P03", "1_outside.up.sql 2 55P03"]);
  });

  test("a procedure that commits as it goes runs, and what it did before it failed stays", async () => {
    await start(
      "CREATE TABLE t (a int)",
      "CREATE PROCEDURE p(last int) LANGUAGE plpgsql AS $$ BEGIN FOR n IN 1..last LOOP INSERT INTO t VALUES (n); COMMIT; END LOOP; PERFORM 1 / (3 - last); END $$",
    );
    expect(await run(await statementStep("-- lockkeeper: tx=none\nCALL p(2);"))).toBeUndefined();
    expect(await run(await statementStep("-- lockkeeper: tx=none\nCALL p(3);"))).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { sqlstate: "22012" },
    });
    expect(await database.query("SELECT count(*)::int AS n FROM t")).toEqual([{ n: 5 }]);
  });

  test("through a lost connection of its statements a transactional one happens once", async () => {
    await start("CREATE TABLE t (a int)");
    const gate = await closeGate(database);
    const text = `-- lockkeeper: tx=none\nINSERT INTO t VALUES (1);\nINSERT INTO t SELECT 2 FROM ${gate.sql};\nINSERT INTO t VALUES (3);`;
    const cutting = gate.reached().then(async () => {
      await database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'",
      );
      await gate.open();
    });
    const [failure] = await Promise.all([run(await statementStep(text)), cutting]);
    expect(failure).toBeUndefined();
    expect(await database.query("SELECT a FROM t ORDER BY 1")).toEqual([{ a: 1 }, { a: 2 }, { a: 3 }]);
    expect(await newest()).toMatchObject({ status: "done", done: 3 });
  });

  test("a lost connection of one that cannot be in a transaction leaves its outcome open, and says so", async () => {
    await start(
      "CREATE TABLE t (a int)",
      "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); END $$",
    );
    expect(await run(await statementStep("-- lockkeeper: tx=none\nSELECT 1;\nCALL p();"))).toMatchObject({
      code: "NEEDS_ATTENTION",
      fields: { statement: 2, statements: 2 },
    });
    expect(await newest()).toEqual({ status: "needs_attention", done: 1, of: 2, code: "NEEDS_ATTENTION" });
  });

  test("a lost fence is replaced before the next statement", async () => {
    await start("CREATE TABLE t (a int)");
    const gate = await closeGate(database);
    await database.query(`CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN PERFORM ${gate.sql}; END $$`);
    const step = await statementStep(
      "-- lockkeeper: tx=none\nSELECT 1;\nCALL p();\nCREATE INDEX CONCURRENTLY i1 ON t (a);",
    );
    const cutting = gate.reached().then(async () => {
      const cut = await database.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'",
      );
      await gate.open();
      return cut.length;
    });
    const [failure, fencesCut] = await Promise.all([run(step), cutting]);
    expect({ failure, fencesCut }).toEqual({ failure: undefined, fencesCut: 1 });
    expect(await newest()).toMatchObject({ status: "done", done: 3 });
  });

  test("a database that ends idle sessions does not end a run whose statement takes longer", async () => {
    await start("CREATE TABLE t (a int)");
    const gate = await closeGate(database);
    await database.query(`CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN PERFORM ${gate.sql}; END $$`);
    await database.query(`ALTER DATABASE ${database.name} SET idle_session_timeout = '1s'`);
    driver = await openDriver(database.url, {
      times: { leaseMs: 15_000, heartbeatMs: 5_000, marginMs: 1_000, cancelPollMs: 5_000 },
    });
    onTestFinished(() => driver.close());
    const idle = () =>
      database.query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'lockkeeper' AND state = 'idle'",
      );
    const ending = gate.reached().then(async () => {
      while ((await idle()).length > 0);
      await database.query(`ALTER DATABASE ${database.name} RESET idle_session_timeout`);
      await gate.open();
    });
    const step = await statementStep("-- lockkeeper: tx=none\nSELECT 1;\nCALL p();\nCREATE TABLE after ();");
    const [failure] = await Promise.all([run(step), ending]);
    expect(failure).toBeUndefined();
    expect(await newest()).toMatchObject({ status: "done", done: 3 });
    const [entry] = await driver.history("orders", {}, never);
    expect(entry?.statementChecksums).toHaveLength(3);
  });

  test("a cancel ends the statement on the server, records why, and lets the run go on there later", async () => {
    await start(
      "CREATE TABLE t (a int)",
      "CREATE PROCEDURE p(s float) LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(s); END $$",
    );
    const stop = new AbortController();
    const result = driver.withLease(leaseOptions({ signal: stop.signal }), async (session) => {
      const step = await statementStep("-- lockkeeper: tx=none\nSELECT 1;\nCALL p(300);");
      await session.applyStatements(step, settings, () => stop.abort());
    });
    await expect(result).rejects.toBeDefined();
    expect(
      await database.query(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
      ),
    ).toEqual([]);
    expect(await newest()).toEqual({ status: "failed", done: 1, of: 2, code: "CANCELED" });
    expect((await driver.state("orders", never)).lease).toBeNull();
  });

  test("a stale session runs no statement and moves no checkpoint", async () => {
    await start("CREATE TABLE t (a int)");
    const stale = await openDriver(database.url, {
      times: { leaseMs: 60_000, heartbeatMs: 3_600_000, marginMs: -3_600_000, cancelPollMs: 3_600_000 },
    });
    onTestFinished(() => stale.close());
    const step = await statementStep("CREATE INDEX CONCURRENTLY i ON t (a);");
    await stale.withLease(leaseOptions(), async (session) => {
      await database.query(
        "UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 second'",
      );
      await driver.withLease(leaseOptions({ waitMs: 20_000 }), () => Promise.resolve());
      await expect(session.applyStatements(step, settings, () => undefined)).rejects.toMatchObject({
        code: "LEASE_LOST",
      });
    });
    expect(await indexes()).toEqual([]);
    expect(await driver.history("orders", {}, never)).toEqual([]);
  });
});
