import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { LeasedSession, TransactionStep } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import type { MigrationText } from "../../support/plain-release.ts";
import { leaseOptions, never, rawStep, settings, transactionSteps } from "../../support/steps.ts";

let database: TestDatabase;
let driver: Driver;

/** A database of the test's own, a driver on it, and what its bodies left. */
async function start(): Promise<void> {
  database = await createDatabase();
  driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
}

function apply(
  steps: readonly TransactionStep[],
  own = settings,
): ReturnType<LeasedSession["applyInTransactions"]> {
  return driver.withLease(leaseOptions(), (session) => session.applyInTransactions(steps, own));
}

async function applyTexts(
  ...bodies: readonly (string | Buffer)[]
): ReturnType<LeasedSession["applyInTransactions"]> {
  return apply(await transactionSteps(numbered(bodies)));
}

function numbered(bodies: readonly (string | Buffer)[]): readonly MigrationText[] {
  return bodies.map((up, index) => ({ path: `${index + 1}_body.up.sql`, up }));
}

async function tables(): Promise<readonly string[]> {
  const rows = await database.query<{ name: string }>(
    "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'lockkeeper') ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

async function statuses(): Promise<readonly string[]> {
  return (await driver.history("orders", {}, never)).map(
    ({ path, status }) => `${path.split("_")[0]} ${status}`,
  );
}

describe("bodies that share a message", () => {
  test("commit one by one: when one fails those before it stay and it is blamed with its own place", async () => {
    await start();
    const good = (n: number) => `CREATE TABLE t${n} ();`;
    const { done, failure } = await applyTexts(
      good(1),
      good(2),
      "CREATE TABLE t3 ();\n\n  SELECT nothing FROM nowhere;",
      good(4),
      good(5),
    );
    expect(done).toHaveLength(2);
    expect(failure).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { migration: "3_body.up.sql", line: 3, column: 23, sqlstate: "42P01" },
    });
    expect(await tables()).toEqual(["public.t1", "public.t2"]);
    expect(await statuses()).toEqual(["1 done", "2 done", "3 failed"]);
  });

  test("fail alone where one does not even parse, which stops the whole message before it starts", async () => {
    await start();
    const steps = (
      await transactionSteps(numbered(["CREATE TABLE t1 ();", "CREATE TABLE t2 ();", "CREATE TABLE t3 ();"]))
    ).map((step) =>
      step.path.startsWith("2")
        ? { ...step, sql: "CREATE TABLE t2 );", text: "CREATE TABLE t2 );", alone: true }
        : step,
    );
    const { done, failure } = await apply(steps);
    expect(done).toHaveLength(1);
    expect(failure).toMatchObject({
      fields: { migration: "2_body.up.sql", line: 1, column: 17, sqlstate: "42601" },
    });
    expect(await tables()).toEqual(["public.t1"]);
  });

  test("an open comment or quote next to one that closes it is never sent together, even by a mistaken analysis of one", async () => {
    for (const [open, close] of [
      ["CREATE TABLE a1 (); /* open", "close */ CREATE TABLE a2 ();"],
      ["CREATE TABLE a1 (); SELECT $$ open", "close $$; CREATE TABLE a2 ();"],
      ["CREATE TABLE a1 (); SELECT $x$ open", "close $x$; CREATE TABLE a2 ();"],
      ["CREATE TABLE a1 (); SELECT 'open", "close'; CREATE TABLE a2 ();"],
      ['CREATE TABLE a1 (); SELECT 1 AS "open', 'close"; CREATE TABLE a2 ();'],
    ] as const) {
      await start();
      const { done, failure } = await apply([rawStep(open, { seq: 1 }), rawStep(close, { seq: 2 })]);
      expect({ done, code: failure?.code }, open).toEqual({ done: [], code: "MIGRATION_FAILED" });
      expect(await tables(), open).toEqual([]);
      expect(await statuses(), open).toEqual(["1 failed"]);
    }
  });

  test("a trailing comment without a line end swallows nothing", async () => {
    await start();
    expect(
      (
        await applyTexts(
          "CREATE TABLE t1 (); -- end",
          "CREATE TABLE t2 () -- end",
          "-- only a comment\nSELECT 1",
        )
      ).failure,
    ).toBeNull();
    expect(await tables()).toEqual(["public.t1", "public.t2"]);
    expect(await statuses()).toEqual(["1 done", "2 done", "3 done"]);
  });

  test("each has its own begin and duration", async () => {
    await start();
    const began = performance.now();
    const { done } = await applyTexts("SELECT 1", "SELECT pg_sleep(0.2)", "SELECT 1");
    const tookMs = performance.now() - began;
    expect(done[1]?.durationMs).toBeGreaterThan(190);
    // Were one counted with those before it, all of them would be longer together than the whole took.
    expect(done.reduce((sum, { durationMs }) => sum + durationMs, 0)).toBeLessThan(tookMs);
    const entries = await driver.history("orders", {}, never);
    expect((entries[2]?.startedAt.getTime() ?? 0) - (entries[0]?.startedAt.getTime() ?? 0)).toBeGreaterThan(
      190,
    );
  });

  test("all but the last commit without waiting for the disk, and every failure is written durably", async () => {
    await start();
    const steps = await transactionSteps(numbered(["SELECT 1", "SELECT 2"]));
    const seen: string[] = [];
    const noted = steps.map((step, index) => ({
      ...step,
      sql: `CREATE TABLE n${index} (s text); CREATE FUNCTION f${index}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.n${index} VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$; CREATE TABLE d${index} (a int); CREATE CONSTRAINT TRIGGER c AFTER INSERT ON d${index} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f${index}(); INSERT INTO d${index} VALUES (1);`,
    }));
    expect((await apply(noted)).failure).toBeNull();
    for (const index of [0, 1])
      seen.push((await database.query<{ s: string }>(`SELECT s FROM n${index}`))[0]?.s ?? "");
    expect(seen).toEqual(["off", "on"]);
  });
});

describe("the place of an error", () => {
  const cases: [title: string, body: string | Buffer, line: number, column: number][] = [
    [
      "after characters of two, three and four bytes",
      "SELECT 'äöü€😀'; -- ✓\nSELECT '😀', nothing FROM nowhere;",
      2,
      26,
    ],
    ["with CRLF line ends", "CREATE TABLE a ();\r\n\r\n  SELECT nothing FROM nowhere;\r\n", 3, 23],
    ["with lone CR line ends", "CREATE TABLE a ();\rSELECT nothing FROM nowhere;", 2, 21],
    ["after a byte order mark", "\ufeffSELECT nothing FROM nowhere;", 1, 22],
    ["inside a whole BEGIN … COMMIT", "-- ä\nBEGIN;\nSELECT nothing FROM nowhere;\nCOMMIT;\n", 3, 21],
    ["in the first column", "\n\nnonsense;", 3, 1],
  ];
  test.for(cases)("is right %s", async ([, body, line, column]) => {
    await start();
    const step = rawStep(String(body));
    const [analysed] = await transactionSteps([{ path: "1_body.up.sql", up: body }]).catch(() => [step]);
    const { failure } = await apply([analysed ?? step]);
    expect(failure?.fields).toMatchObject({ line, column });
    expect(failure?.message).toContain(`:${line}:${column}: `);
    const [entry] = await driver.history("orders", {}, never);
    expect(entry?.error).toMatchObject({ code: "MIGRATION_FAILED", fields: { line, column } });
  });

  test("is that of the statement the server had reached where it names none, and its hint is passed on", async () => {
    await start();
    const { failure } = await applyTexts(
      "SELECT 1;\n/* é */ DO $$ BEGIN RAISE EXCEPTION 'not like this' USING HINT = 'do it otherwise', ERRCODE = 'LK001'; END $$;",
    );
    expect(failure).toMatchObject({ code: "MIGRATION_FAILED", fields: { sqlstate: "LK001" } });
    expect(failure?.fields).toMatchObject({ line: 2, column: 9 });
    expect(failure?.hint).toContain("do it otherwise");
    expect(failure?.message).toContain("not like this");
  });

  test("shows neither SQL nor row data", async () => {
    await start();
    const { failure } = await applyTexts(
      "CREATE TABLE a (b text PRIMARY KEY); INSERT INTO a VALUES ('secret'), ('secret');",
    );
    expect(failure?.fields).toMatchObject({ sqlstate: "23505", constraint: "a_pkey", table: "a" });
    const [entry] = await driver.history("orders", {}, never);
    expect(JSON.stringify([failure?.message, failure?.hint, failure?.fields, entry?.error])).not.toMatch(
      /secret|INSERT/,
    );
  });
});

describe("a body that ends its transaction", () => {
  test.for([
    "COMMIT;",
    "END;",
    "ROLLBACK;",
    "COMMIT AND CHAIN;",
    "ROLLBACK AND CHAIN;",
    "COMMIT; BEGIN;",
    "ROLLBACK; BEGIN;",
    "RESET ALL;",
  ])("%s gets no entry, and what follows runs in none", async (control) => {
    await start();
    const { done, failure } = await apply([
      rawStep(`CREATE TABLE a (); ${control} CREATE TABLE b ();`, { seq: 1 }),
      rawStep("CREATE TABLE c ();", { seq: 2 }),
    ]);
    expect(done).toEqual([]);
    expect(failure).toMatchObject({ code: "TRANSACTION_CONTROL", fields: { migration: "1_raw.up.sql" } });
    expect(failure?.message).toContain("may have stayed");
    expect(await statuses()).toEqual(["1 failed"]);
    expect(await tables()).not.toContain("public.b");
  });

  test("savepoints are its own affair", async () => {
    await start();
    expect(
      (await applyTexts("SAVEPOINT s; CREATE TABLE a (); ROLLBACK TO s; CREATE TABLE b (); RELEASE s;"))
        .failure,
    ).toBeNull();
    expect(await tables()).toEqual(["public.b"]);
  });

  test("one whole BEGIN … COMMIT is taken without them", async () => {
    await start();
    expect(
      (
        await applyTexts(
          "-- first\nBEGIN;\nCREATE TABLE a ();\nCREATE TABLE b ();\nCOMMIT;\n",
          "begin transaction;create table c();end;",
        )
      ).failure,
    ).toBeNull();
    expect(await tables()).toEqual(["public.a", "public.b", "public.c"]);
    expect(await statuses()).toEqual(["1 done", "2 done"]);
  });
});

describe("what a body does to its session", () => {
  const look = `CREATE TABLE public.seen AS SELECT current_setting('search_path') AS search_path, current_user::text AS who, session_user::text AS session,
 current_setting('statement_timeout') AS statement_timeout, current_setting('lock_timeout') AS lock_timeout, current_setting('DateStyle') AS dates,
 current_setting('standard_conforming_strings') AS strings, current_setting('client_min_messages') AS messages, current_setting('row_security') AS rows,
 (SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
 (SELECT count(*)::int FROM pg_prepared_statements) AS prepared, (SELECT count(*)::int FROM pg_cursors) AS cursors,
 (SELECT count(*)::int FROM pg_class WHERE relnamespace = pg_my_temp_schema()) AS temporary, (SELECT count(*)::int FROM pg_listening_channels()) AS channels;`;

  const leaks: [what: string, sql: string][] = [
    ["SET search_path", "SET search_path = ''; CREATE TABLE public.a ();"],
    [
      "the set_config of a pg_dump",
      "SELECT pg_catalog.set_config('search_path', '', false); SET row_security = off; SET client_min_messages = warning; SET standard_conforming_strings = off;",
    ],
    ["SET ROLE", "SET ROLE pg_monitor;"],
    ["SET LOCAL ROLE", "SET LOCAL ROLE pg_monitor;"],
    ["SET SESSION AUTHORIZATION", "SET SESSION AUTHORIZATION pg_monitor;"],
    [
      "time-outs",
      "SET statement_timeout = '77s'; SET lock_timeout = '66s'; SET LOCAL idle_in_transaction_session_timeout = '1s';",
    ],
    [
      "DateStyle",
      "SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'Asia/Tokyo'; SET extra_float_digits = -10;",
    ],
    ["a session lock", "SELECT pg_advisory_lock(4711);"],
    ["a prepared statement", "PREPARE p AS SELECT 1;"],
    ["a cursor that is held", "DECLARE c CURSOR WITH HOLD FOR SELECT 1;"],
    ["a temporary table", "CREATE TEMP TABLE seen (a int);"],
    ["LISTEN", "LISTEN x;"],
    ["SET SESSION CHARACTERISTICS", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY;"],
    [
      "a function that sets",
      "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('search_path', '', false); SET ROLE pg_monitor; END $$; SELECT f();",
    ],
  ];
  test.for(leaks)("%s reaches neither the next body nor our own statements", async ([, sql]) => {
    await start();
    const own = { ...settings, lockTimeoutMs: 5_000, statementTimeoutMs: 8_000 };
    const steps = await transactionSteps(numbered([sql, look]));
    const { failure } = await apply(steps, own);
    expect(failure).toBeNull();
    expect(await database.query("SELECT * FROM public.seen")).toEqual([
      {
        search_path: '"$user", public',
        who: "postgres",
        session: "postgres",
        statement_timeout: "8s",
        lock_timeout: "5s",
        dates: "ISO, MDY",
        strings: "on",
        messages: "notice",
        rows: "on",
        locks: 0,
        prepared: 0,
        cursors: 0,
        temporary: 0,
        channels: 0,
      },
    ]);
    expect(await statuses()).toEqual(["1 done", "2 done"]);
  });

  test("nothing leaks when it fails, either", async () => {
    await start();
    const [bad, next] = await transactionSteps(
      numbered([
        "SET ROLE pg_monitor; SET search_path = ''; SET statement_timeout = '77s'; SELECT 1/0;",
        look,
      ]),
    );
    if (bad === undefined || next === undefined) throw new TypeError("two steps were made");
    await driver.withLease(leaseOptions(), async (session) => {
      expect((await session.applyInTransactions([bad], settings)).failure?.fields).toMatchObject({
        sqlstate: "22012",
      });
      expect((await session.applyInTransactions([next], settings)).failure).toBeNull();
    });
    expect(await database.query("SELECT search_path, who, statement_timeout FROM public.seen")).toEqual([
      { search_path: '"$user", public', who: "postgres", statement_timeout: "0" },
    ]);
  });

  test("times are read right whatever style of dates the database has", async () => {
    await start();
    await database.query(`ALTER DATABASE ${database.name} SET DateStyle = 'SQL, DMY'`);
    await database.query(`ALTER DATABASE ${database.name} SET TimeZone = 'Asia/Tokyo'`);
    const before = Date.now();
    await driver.close();
    driver = await openDriver(database.url);
    const options = leaseOptions();
    await driver.withLease(options, async (session) =>
      session.applyInTransactions(await transactionSteps(numbered(["SELECT 1"])), settings),
    );
    const [entry] = await driver.history("orders", {}, never);
    const run = await driver.run(options.run.id, never);
    for (const time of [entry?.startedAt, run?.createdAt, (await driver.state("orders", never)).now]) {
      expect(Math.abs((time?.getTime() ?? 0) - before)).toBeLessThan(30_000);
    }
  });
});

describe("bodies of all kinds", () => {
  test("functions, DO blocks, nested comments, dollar quotes, escapes and an empty body apply", async () => {
    await start();
    const { failure } = await applyTexts(
      "CREATE FUNCTION f(a int) RETURNS int LANGUAGE plpgsql AS $body$ DECLARE x text := $$;$$; BEGIN /* ; /* nested */ */ RETURN a + 1; -- ;\nEND $body$;",
      "DO $$ BEGIN IF f(1) <> 2 THEN RAISE EXCEPTION 'no'; END IF; END $$;",
      "/* a /* b */ c */ CREATE TABLE t1 (a text DEFAULT 'it''s; \\', b text DEFAULT E'\\'; \\\\', c text DEFAULT U&'\\0061');",
      "CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;",
      "-- nothing to do\n",
      "CREATE RULE r AS ON INSERT TO t1 DO ALSO (SELECT 1; SELECT 2);",
    );
    expect(failure).toBeNull();
    expect(await tables()).toEqual(["public.t1"]);
    expect(await statuses()).toEqual(["1 done", "2 done", "3 done", "4 done", "5 done", "6 done"]);
  });

  test("a label of 200 characters, and a name and a note with quotes, backslashes and line ends, are kept as they are", async () => {
    await start();
    const path = `1_${"x".repeat(191)}.up.sql`;
    expect(path).toHaveLength(200);
    const appliedBy = "o'brien\\ \n\u00e4 $$ --";
    const steps = await transactionSteps([{ path, up: "SELECT 1" }]);
    expect((await apply(steps, { ...settings, appliedBy })).failure).toBeNull();
    expect(await driver.history("orders", {}, never)).toMatchObject([{ path, appliedBy, status: "done" }]);
  });

  test("a stream's name may hold what ends a comment", async () => {
    await start();
    const stream = "a*/ b'; -- \\";
    const steps = await transactionSteps(numbered(["CREATE TABLE t1 ();"]));
    const { failure } = await driver.withLease(leaseOptions({ stream }), (session) =>
      session.applyInTransactions(steps, settings),
    );
    expect(failure).toBeNull();
    expect(await driver.history(stream, {}, never)).toHaveLength(1);
  });

  test("a division by zero of the body's own is its failure, not a lost lease", async () => {
    await start();
    const { failure } = await applyTexts("CREATE TABLE a ();", "SELECT 1 / 0;");
    expect(failure).toMatchObject({
      code: "MIGRATION_FAILED",
      fields: { migration: "2_body.up.sql", sqlstate: "22012" },
    });
  });

  test("where backslashes are escapes in plain strings nothing is batched, and all is applied", async () => {
    await start();
    await database.query(`ALTER DATABASE ${database.name} SET standard_conforming_strings = off`);
    await driver.close();
    driver = await openDriver(database.url);
    const escaped = rawStep("SET escape_string_warning = off; CREATE TABLE t1 (a text DEFAULT 'it\\'s');", {
      seq: 1,
    });
    const others = await transactionSteps(
      numbered(["SELECT 1", "CREATE TABLE t2 ();", "CREATE TABLE t3 ();"]),
    );
    const { failure, done } = await apply([escaped, ...others.slice(1)]);
    expect({ failure, done: done.length }).toEqual({ failure: null, done: 3 });
    expect(
      await database.query(
        "SELECT pg_get_expr(adbin, adrelid) AS d FROM pg_attrdef WHERE adrelid = 't1'::regclass",
      ),
    ).toEqual([{ d: "'it''s'::text" }]);
  });
});
