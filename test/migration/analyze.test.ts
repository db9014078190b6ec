import { beforeAll, describe, expect, test } from "vitest";
import type { Client } from "pg";
import { RunnerError } from "../../src/error.ts";
import { analyzeSql, analyzeUnsigned } from "../../src/migration/analyze.ts";
import type { Analysis } from "../../src/migration/analyze.ts";
import { createDatabase } from "../support/database.ts";

const PATH = "000001_a.up.sql";

function analyze(text: string): Promise<Analysis> {
  return analyzeSql(Buffer.from(text), PATH);
}

async function failure(work: Promise<Analysis>): Promise<RunnerError> {
  const outcome = await work.catch((error: unknown) => error);
  if (outcome instanceof RunnerError) return outcome;
  throw new Error(`nothing was refused: ${JSON.stringify(outcome)}`);
}

/** The statements' texts with their kinds. */
async function statements(text: string): Promise<string[]> {
  const bytes = Buffer.from(text);
  const analysis = await analyze(text);
  expect(analysis).toMatchObject({ tx: "none", alone: false });
  return (analysis.statements ?? []).map(
    ({ offset, length, kind }) => `${kind}: ${bytes.toString("utf8", offset, offset + length)}`,
  );
}

describe("analyzeSql on what runs in one transaction", () => {
  test.each([
    ["CREATE TABLE a (id int); CREATE INDEX ON a (id); ALTER TABLE a ADD b int REFERENCES a", []],
    ["-- a comment", []],
    ["-- a comment that nothing ends --", []],
    ["/* c */ ; ;", []],
    ["BEGIN;\nALTER TABLE t ADD c int;\nCOMMIT;\n", ["ACCESS EXCLUSIVE"]],
    ["START TRANSACTION READ WRITE; DELETE FROM t; END", ["ROW EXCLUSIVE"]],
    ["\u{feff}UPDATE t SET a = 1;\r\n", ["ROW EXCLUSIVE"]],
    ["SET LOCAL lock_timeout = '2s'; SELECT set_config('a.b', 'c', true), pg_advisory_xact_lock(1)", []],
    ["SET CONSTRAINTS ALL DEFERRED", []],
    ["DECLARE c CURSOR FOR SELECT 1", []],
    ["ALTER TYPE mood ADD VALUE 'ok'; COMMENT ON TYPE mood IS 'x'; GRANT SELECT ON t TO public", []],
    ["-- lockkeeper: tx=one lock_timeout=1s\nSELECT 1", []],
    ["WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", ["ROW EXCLUSIVE"]],
  ])("lets %j share a message", async (text, locks) => {
    expect(await analyze(text)).toEqual({ tx: "one", alone: true, locks, isEmpty: false });
  });

  test.each([
    "SET search_path = public; SELECT 1",
    "SET LOCAL ROLE x",
    "SET SESSION AUTHORIZATION x",
    "RESET ALL",
    "SELECT pg_catalog.set_config('search_path', '', false)",
    "SELECT set_config('a', 'b', x) FROM t",
    "INSERT INTO t SELECT pg_advisory_lock(1)",
    "DISCARD PLANS",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "LISTEN x",
    "LOAD 'x'",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "CREATE TEMP TABLE x (a int)",
    "CREATE TEMPORARY VIEW x AS SELECT 1",
    "CREATE TABLE pg_temp.x (a int)",
    "SELECT 1 AS a INTO TEMP x",
    "COPY t FROM '/tmp/x'",
    "COPY t TO STDOUT",
    "CALL f()",
    "DO $$ BEGIN PERFORM 1; END $$",
    "SAVEPOINT a; ROLLBACK TO a; RELEASE a",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1 AS end; END",
  ])("sends %j by itself", async (text) => {
    expect(await analyze(text)).toMatchObject({ tx: "one", alone: false });
  });

  test.each(["", " \n\t\r\n", "\u{feff}", "\u{feff} \n"])("calls %j empty", async (text) => {
    expect(await analyze(text)).toEqual({ tx: "one", alone: true, locks: [], isEmpty: true });
    expect(await analyzeUnsigned(Buffer.from(text), PATH)).toEqual(await analyze(text));
  });
});

describe("analyzeSql on what runs outside a transaction", () => {
  test("cuts the body into statements, by bytes", async () => {
    const text =
      "\u{feff}-- é\nCREATE UNIQUE INDEX CONCURRENTLY été ON t (a) -- why\n; /* x */ UPDATE t SET a = 'é;' ;\r\nVACUUM t";
    expect(await statements(text)).toEqual([
      "create-index-concurrently: CREATE UNIQUE INDEX CONCURRENTLY été ON t (a)",
      "transactional: UPDATE t SET a = 'é;'",
      "vacuum: VACUUM t",
    ]);
  });

  test("follows a header that asks for it", async () => {
    expect(
      await statements(
        "-- lockkeeper: tx=none\nSELECT 1;\nCALL p();\nDO $$ BEGIN COMMIT; END $$;\nDO $$ BEGIN END $$",
      ),
    ).toEqual([
      "transactional: SELECT 1",
      "call: CALL p()",
      "call: DO $$ BEGIN COMMIT; END $$",
      "transactional: DO $$ BEGIN END $$",
    ]);
    expect(await statements("-- lockkeeper: tx=none\n")).toEqual([]);
  });

  test("lets a header run what may need several transactions outside of one", async () => {
    expect(
      await statements("-- lockkeeper: tx=none\nREINDEX TABLE partitioned; CLUSTER partitioned"),
    ).toEqual(["reindex-many: REINDEX TABLE partitioned", "cluster-all: CLUSTER partitioned"]);
  });
});

/** peers-modern.md 5.2, and what may be mistaken for it. */
const OUTSIDE: readonly (readonly [string, string])[] = [
  ["CREATE DATABASE lockkeeper_never", "create-database"],
  ["DROP DATABASE IF EXISTS lockkeeper_never", "drop-database"],
  ["ALTER DATABASE postgres SET TABLESPACE pg_default", "alter-database-tablespace"],
  ["CREATE TABLESPACE x LOCATION '/nowhere'", "create-tablespace"],
  ["DROP TABLESPACE IF EXISTS x", "drop-tablespace"],
  ["VACUUM t", "vacuum"],
  ["VACUUM", "vacuum"],
  ["VACUUM (FULL false)", "vacuum"],
  ["VACUUM FULL t", "vacuum"],
  ["CREATE INDEX CONCURRENTLY i ON t (a)", "create-index-concurrently"],
  ["CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)", "create-index-concurrently"],
  ["DROP INDEX CONCURRENTLY t_a", "drop-index-concurrently"],
  ["REINDEX INDEX CONCURRENTLY t_a", "reindex-concurrently"],
  ["REINDEX (CONCURRENTLY) TABLE t", "reindex-concurrently"],
  ["REINDEX TABLE CONCURRENTLY t", "reindex-concurrently"],
  ["REINDEX SCHEMA public", "reindex-many"],
  ["ALTER SYSTEM SET work_mem = '4MB'", "alter-system"],
  ["CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", "create-subscription"],
  ["ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY", "detach-partition-concurrently"],
  ["DISCARD ALL", "discard-all"],
];

const INSIDE: readonly string[] = [
  "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
  "REINDEX INDEX t_a",
  "REINDEX TABLE t",
  "REINDEX (CONCURRENTLY false) TABLE t",
  "CLUSTER t USING t_a",
  "ALTER TYPE mood ADD VALUE 'so-so'",
  "TRUNCATE t",
  "ANALYZE t",
  "ALTER TABLE p DETACH PARTITION p1",
  "CREATE INDEX ON t (a)",
  "DROP INDEX t_a",
  "ALTER DATABASE postgres SET work_mem = '4MB'",
  "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)",
  "DISCARD PLANS",
  "SAVEPOINT x",
  "DO $$ BEGIN PERFORM 1; END $$",
];

describe("analyzeSql against a server", () => {
  let client: Client;

  beforeAll(async () => {
    const database = await createDatabase();
    client = await database.connect();
    await client.query(`
      CREATE TABLE t (a int); CREATE INDEX t_a ON t (a);
      CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
      CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE UNIQUE INDEX ON m (a);
      CREATE TYPE mood AS ENUM ('ok')`);
    return () => client.end();
  });

  /** SQLSTATE of the statement inside a transaction, which is rolled back. */
  async function stateInside(statement: string): Promise<string> {
    await client.query("BEGIN");
    try {
      await client.query(statement);
      return "00000";
    } catch (error) {
      return error instanceof Error && "code" in error ? String(error.code) : String(error);
    } finally {
      await client.query("ROLLBACK");
    }
  }

  test.each(OUTSIDE)("keeps %s out of a transaction, which the server refuses", async (statement, kind) => {
    expect(await statements(statement)).toEqual([`${kind}: ${statement}`]);
    expect(await stateInside(statement)).toBe("25001");
  });

  test.each(INSIDE)("keeps %s in a transaction, which the server takes", async (statement) => {
    expect(await analyze(statement)).toMatchObject({ tx: "one" });
    expect(await stateInside(statement)).toBe("00000");
  });

  test("keeps DROP SUBSCRIPTION out of a transaction: the server refuses it where a slot belongs to it", async () => {
    expect(await statements("DROP SUBSCRIPTION s")).toEqual(["drop-subscription: DROP SUBSCRIPTION s"]);
  });
});

describe("analyzeSql on what no migration may hold", () => {
  test.each([
    ["SELECT 1;\nCOPY t FROM STDIN", 2, 1, "COPY FROM STDIN"],
    ["COPY t (a, b) FROM stdin WITH (FORMAT csv);\n1,'\n\\.\nSELECT 1", 1, 1, "COPY FROM STDIN"],
    ["SELECT 1;\n  \\set x 1\nSELECT 2", 2, 3, "psql"],
    ["\\restrict abc\nSELECT 1;", 1, 1, "psql"],
    ["\\connect other", 1, 1, "psql"],
    ["VACUUM FULL", 1, 1, "VACUUM FULL on the whole database"],
    ["VACUUM (ANALYZE, FULL)", 1, 1, "VACUUM FULL on the whole database"],
    ["CLUSTER", 1, 1, "CLUSTER on the whole database"],
    ["CLUSTER VERBOSE", 1, 1, "CLUSTER on the whole database"],
    ["REINDEX DATABASE x", 1, 1, "REINDEX DATABASE"],
    ["REINDEX DATABASE CONCURRENTLY x", 1, 1, "REINDEX DATABASE"],
    ["REINDEX SYSTEM x", 1, 1, "REINDEX SYSTEM"],
    ["SELECT 1;\n\n  DELETE FROM lockkeeper.history", 3, 3, 'schema "lockkeeper"'],
    ["-- lockkeeper: tx=one\nVACUUM t", 2, 1, "VACUUM cannot run inside a transaction"],
    [
      "BEGIN;\nCREATE INDEX CONCURRENTLY i ON t (a);\nCOMMIT",
      2,
      1,
      "CREATE INDEX CONCURRENTLY cannot run inside",
    ],
  ])("refuses %j", async (text, line, column, message) => {
    const error = await failure(analyze(text));
    expect(error.code).toBe("STATEMENT_REFUSED");
    expect(error.message).toContain(`${PATH}:${line}:${column}: `);
    expect(error.message).toContain(message);
    expect(error.hint).toBeTypeOf("string");
    expect(error.fields).toEqual({ migration: PATH, line, column });
    expect((await failure(analyzeUnsigned(Buffer.from(text), PATH))).code).toBe("STATEMENT_REFUSED");
  });

  test.each([
    "DROP TABLE a, lockkeeper.streams",
    "DROP SCHEMA lockkeeper CASCADE",
    "ALTER SCHEMA lockkeeper RENAME TO x",
    "CREATE SCHEMA lockkeeper",
    "GRANT USAGE ON SCHEMA lockkeeper TO x",
    "GRANT SELECT ON ALL TABLES IN SCHEMA lockkeeper TO x",
    "REINDEX SCHEMA lockkeeper",
    "ALTER TABLE x SET SCHEMA lockkeeper",
    "CREATE EXTENSION x SCHEMA lockkeeper",
    "SET search_path = lockkeeper, public",
    "SET LOCAL lockkeeper.tx = 'x'",
    "SELECT set_config('lockkeeper.tx', 'x', true)",
    "CREATE VIEW v AS SELECT lockkeeper.history.id FROM lockkeeper.history",
    "SELECT lockkeeper.f()",
    "CREATE TABLE x (a lockkeeper.kind)",
    'SELECT * FROM "lockkeeper".runs',
    "DO $$ BEGIN DELETE FROM lockkeeper.history; END $$",
    'CREATE FUNCTION f() RETURNS void LANGUAGE sql AS \'TRUNCATE "lockkeeper"."history"\'',
    "TRUNCATE LOCKKEEPER.history",
  ])("refuses %s, which names our schema", async (text) => {
    expect(await failure(analyze(text))).toMatchObject({ code: "STATEMENT_REFUSED" });
    expect(await failure(analyzeUnsigned(Buffer.from(text), PATH))).toMatchObject({
      code: "STATEMENT_REFUSED",
    });
  });

  test.each([
    "UPDATE lockkeeper SET id = 1 WHERE lockkeeper.id = 2",
    "GRANT SELECT ON t TO lockkeeper",
    "INSERT INTO tools VALUES ('lockkeeper.history')",
    "DO $$ BEGIN PERFORM 1; -- run by lockkeeper. It is fine\nEND $$",
    "CREATE TABLE other.lockkeeper (lockkeeper int)",
    'SELECT * FROM "LockKeeper".runs',
  ])("takes %s, which does not", async (text) => {
    expect(await analyze(text)).toMatchObject({ tx: "one" });
  });
});

describe("analyzeSql on transaction control", () => {
  test.each([
    ["SELECT 1;\nCOMMIT;", 2, 1],
    ["ROLLBACK", 1, 1],
    ["ABORT", 1, 1],
    ["BEGIN;\nSELECT 1;", 1, 1],
    ["BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT", 1, 18],
    ["BEGIN; SELECT 1; ROLLBACK", 1, 1],
    ["BEGIN; SELECT 1; COMMIT AND CHAIN", 1, 1],
    ["SELECT 1; BEGIN; SELECT 2; COMMIT", 1, 11],
    ["BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT", 1, 1],
    ["BEGIN READ ONLY; SELECT 1; COMMIT", 1, 1],
    ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT 1", 1, 1],
    ["PREPARE TRANSACTION 'x'", 1, 1],
    ["COMMIT PREPARED 'x'", 1, 1],
    ["-- lockkeeper: tx=none\nBEGIN; SELECT 1; COMMIT", 2, 1],
    ["-- lockkeeper: tx=none\nSELECT 1;\nSAVEPOINT x", 3, 1],
  ])("refuses %j", async (text, line, column) => {
    const error = await failure(analyze(text));
    expect(error.code).toBe("TRANSACTION_CONTROL");
    expect(error.fields).toEqual({ migration: PATH, line, column });
    expect((await failure(analyzeUnsigned(Buffer.from(text), PATH))).code).toBe("TRANSACTION_CONTROL");
  });
});

describe("analyzeSql on mistakes", () => {
  const syntax = (near: string) => `syntax error at or near "${near}"`;
  const open = (what: string) => `the ${what} that begins here has no end`;

  test.each([
    ["a comma too many", "SQL_SYNTAX", "CREATE TABLE a (\n  id int,\n);", 3, 1, syntax(")")],
    ["a place after an emoji", "SQL_SYNTAX", "SELECT '😀', x y z;", 1, 17, syntax("z")],
    ["a place after a byte order mark", "SQL_SYNTAX", "\u{feff}SELEC 1", 1, 2, syntax("SELEC")],
    ["the first of two mistakes", "SQL_SYNTAX", "SELEC 1; SELECT 'open", 1, 1, syntax("SELEC")],
    ["an open string", "SQL_OPEN", "SELECT 1;\r\nSELECT 'open; SELECT 2;\n", 2, 8, open("quoted string")],
    ["an open comment", "SQL_OPEN", "SELECT 1 /* open /* closed */", 1, 10, open("comment")],
    ["an open dollar quote", "SQL_OPEN", "DO $a$ x $b$", 1, 4, open("dollar-quoted string")],
    ["an open name", "SQL_OPEN", 'DROP TABLE "open', 1, 12, open("quoted identifier")],
    [
      "megabytes in an open string",
      "SQL_OPEN",
      `SELECT 1, '${"x".repeat(4_000_000)}`,
      1,
      11,
      open("quoted string"),
    ],
    [
      "data of megabytes for COPY",
      "STATEMENT_REFUSED",
      `COPY t FROM stdin;\n${"it's\n".repeat(999_999)}\\.\n`,
      1,
      1,
      "COPY FROM STDIN",
    ],
  ])("tells %s with its place", async (_what, code, text, line, column, message) => {
    const error = await failure(analyze(text));
    expect(error.code).toBe(code);
    expect(error.message).toContain(`${PATH}:${line}:${column}: ${message}`);
    expect(error.message.length).toBeLessThan(200);
    expect(error.fields).toEqual({ migration: PATH, line, column });
  });

  test("refuses what is not UTF-8, and a header it does not know", async () => {
    expect(await failure(analyzeSql(Buffer.from([0x53, 0xff]), PATH))).toMatchObject({ code: "ENCODING" });
    expect(await failure(analyze("-- lockkeeper: backfill table=a\nSELECT 1"))).toMatchObject({
      code: "HEADER",
    });
  });

  test("refuses an expression nested beyond the parser's depth", async () => {
    const text = `SELECT ${"(1+".repeat(50_000)}1${")".repeat(50_000)}`;
    expect(await failure(analyze(text))).toMatchObject({ code: "TOO_LARGE", fields: { migration: PATH } });
  });
});

describe("analyzeUnsigned", () => {
  const unsigned = (text: string) => analyzeUnsigned(Buffer.from(text), PATH);

  test.each([
    ["a new kind of object", "CREATE SOMETHING new"],
    ["it within a transaction", "BEGIN; CREATE SOMETHING new; COMMIT;"],
    ["a mistake", "EXPLAIN 1 2 3"],
    ["a deep expression", `EXPLAIN SELECT ${"(1+".repeat(50_000)}1${")".repeat(50_000)}`],
  ])("leaves %s to the server, which may know more than the parser", async (_what, text) => {
    expect(await unsigned(text)).toEqual({ tx: "one", alone: false, locks: [], isEmpty: false });
  });

  test.each([
    ["CREATE SOMETHING new; SELECT 'open", "SQL_OPEN"],
    ["CREATE SOMETHING new; /* open", "SQL_OPEN"],
    ["CREATE SOMETHING new; COMMIT; SELECT 1", "TRANSACTION_CONTROL"],
    ["CREATE SOMETHING new; PREPARE TRANSACTION 'x'", "TRANSACTION_CONTROL"],
    ["BEGIN; CREATE SOMETHING new; COMMIT; BEGIN; COMMIT", "TRANSACTION_CONTROL"],
    ["-- lockkeeper: tx=none\nCREATE SOMETHING new", "SQL_SYNTAX"],
  ])("refuses %j all the same", async (text, code) => {
    expect(await failure(unsigned(text))).toMatchObject({ code });
  });

  test.each([
    "CREATE TABLE t (a int)",
    "CREATE INDEX CONCURRENTLY i ON t (a)",
    "SET search_path = x; DO $$ BEGIN END $$",
    "-- lockkeeper: tx=none\nSELECT 1",
    "BEGIN; UPDATE t SET a = 1; COMMIT",
  ])("says of %j what analyzeSql says", async (text) => {
    expect(await unsigned(text)).toEqual(await analyze(text));
  });
});
