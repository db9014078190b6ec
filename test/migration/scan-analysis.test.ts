import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { analyzeSql, scanAnalysis } from "../../src/migration/analyze.ts";
import { processorMs } from "../support/processor.ts";

const PATH = "1_a.up.sql";
const corpus = path.join(import.meta.dirname, "../corpus/superplane");

const scan = (text: string) => scanAnalysis(Buffer.from(text), PATH);

/** Statements that the lexer should know, and near relatives that it must leave to the parser. */
const KNOWN: readonly string[] = [
  "CREATE TABLE a (id int PRIMARY KEY, b text NOT NULL DEFAULT 'x;y')",
  "CREATE TABLE IF NOT EXISTS a (id int)",
  "CREATE UNLOGGED TABLE s.a (id int, b int REFERENCES b (id) ON DELETE CASCADE, CONSTRAINT f FOREIGN KEY (b) REFERENCES s.a)",
  'CREATE TABLE "A" (id int REFERENCES "B"("x"))',
  "CREATE TABLE a (id int CHECK (x(id) > 0)) PARTITION BY RANGE (id)",
  "CREATE INDEX ON a (id)",
  "CREATE UNIQUE INDEX IF NOT EXISTS a_i ON ONLY s.a USING gin (b) WHERE c = 'd'",
  "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.a = 1; RETURN NEW; END $$",
  "CREATE PROCEDURE p() LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
  "CREATE VIEW v AS SELECT * FROM a",
  "CREATE OR REPLACE VIEW v AS SELECT * FROM a",
  "CREATE TRIGGER t BEFORE UPDATE OF b ON a FOR EACH ROW EXECUTE FUNCTION f()",
  "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION f()",
  "CREATE POLICY p ON a USING (true)",
  "CREATE TYPE mood AS ENUM ('a', 'b')",
  "CREATE DOMAIN d AS int CHECK (VALUE > 0)",
  "CREATE SEQUENCE q",
  "CREATE SCHEMA IF NOT EXISTS s",
  'CREATE EXTENSION IF NOT EXISTS "uuid-ossp"',
  "ALTER TABLE a ADD COLUMN c int, ADD d text DEFAULT 'a,b', DROP COLUMN e",
  "ALTER TABLE ONLY s.a ADD CONSTRAINT a_pkey PRIMARY KEY (id)",
  "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY (b, c) REFERENCES b (x, y) NOT VALID, ADD x int REFERENCES a",
  "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b",
  "ALTER TABLE a VALIDATE CONSTRAINT f",
  "ALTER TABLE a ALTER COLUMN c SET STATISTICS 10, ALTER d SET (n_distinct = 5), ALTER e RESET (n_distinct)",
  "ALTER TABLE a ALTER c SET NOT NULL",
  "ALTER TABLE a ALTER c TYPE bigint USING c::bigint",
  "ALTER TABLE a SET (fillfactor = 70)",
  "ALTER TABLE a RESET (fillfactor)",
  "ALTER TABLE a SET SCHEMA s",
  "ALTER TABLE a SET UNLOGGED",
  "ALTER TABLE a RENAME TO b",
  "ALTER TABLE IF EXISTS a RENAME COLUMN c TO d",
  "ALTER TABLE a OWNER TO o",
  "ALTER TABLE a ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
  "ALTER TABLE a DISABLE TRIGGER ALL",
  "ALTER TABLE a REPLICA IDENTITY FULL",
  "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'c' AFTER 'a'",
  "ALTER SEQUENCE q OWNED BY a.id",
  "ALTER FUNCTION f() OWNER TO o",
  "DROP TABLE IF EXISTS a, s.b CASCADE",
  "DROP VIEW v",
  "DROP MATERIALIZED VIEW IF EXISTS m",
  "DROP INDEX IF EXISTS i, j",
  "DROP TRIGGER IF EXISTS t ON a",
  "DROP POLICY p ON s.a",
  "DROP FUNCTION f()",
  "DROP TYPE mood",
  "DROP SCHEMA s CASCADE",
  "DROP EXTENSION x",
  "INSERT INTO a (id, b) VALUES (1, 'x'), (2, E'it\\'s')",
  "INSERT INTO s.a SELECT * FROM b ON CONFLICT DO NOTHING",
  "UPDATE a SET b = c.d FROM c WHERE a.id = c.id",
  "UPDATE ONLY a SET b = 1",
  "DELETE FROM ONLY a WHERE id IN (SELECT 1)",
  "TRUNCATE TABLE ONLY a, b * RESTART IDENTITY",
  "COMMENT ON TABLE a IS 'x'",
  "COMMENT ON COLUMN s.a.b IS NULL",
  "COMMENT ON FUNCTION f() IS 'x'",
  "GRANT SELECT ON ALL TABLES IN SCHEMA s TO o",
  "REVOKE ALL ON a FROM PUBLIC",
  "SELECT pg_catalog.setval('q', 1, false)",
];

const OTHERS: readonly string[] = [
  "CREATE TEMP TABLE a (id int)",
  "CREATE LOCAL TEMPORARY TABLE a (id int)",
  "CREATE TABLE pg_temp.a (id int)",
  "CREATE TABLE a AS SELECT 1",
  "CREATE TABLE a PARTITION OF b FOR VALUES IN (1)",
  "CREATE TABLE a (id int) INHERITS (b)",
  "CREATE TABLE a OF t",
  "CREATE INDEX CONCURRENTLY i ON a (id)",
  "CREATE INDEX CONCURRENTLY ON a (id)",
  "CREATE OR REPLACE TEMP VIEW v AS SELECT 1",
  "CREATE MATERIALIZED VIEW m AS SELECT 1",
  "CREATE RULE r AS ON DELETE TO a DO (SELECT 1; SELECT 2)",
  "CREATE DATABASE d",
  "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p",
  "ALTER TABLE a ATTACH PARTITION b DEFAULT",
  "ALTER TABLE a DETACH PARTITION b CONCURRENTLY",
  "ALTER TABLE a SET WITHOUT CLUSTER",
  "ALTER TABLE a ENABLE RULE r",
  "ALTER TABLE a INHERIT b",
  "ALTER TABLE ALL IN TABLESPACE x SET TABLESPACE y",
  "ALTER TABLE a ADD b int GENERATED ALWAYS AS (1) STORED",
  "ALTER INDEX i RENAME TO j",
  "ALTER SYSTEM SET work_mem = '4MB'",
  "ALTER DATABASE d SET TABLESPACE t",
  "DROP INDEX CONCURRENTLY i",
  "DROP DATABASE d",
  "DROP SUBSCRIPTION s",
  "SELECT 1 INTO b",
  "SELECT set_config('a', 'b', false)",
  "SELECT pg_try_advisory_lock(1)",
  "WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d",
  "SET search_path = s",
  "SET LOCAL search_path = s",
  "DO $$ BEGIN END $$",
  "CALL p()",
  "COPY a FROM '/x'",
  "VACUUM a",
  "REINDEX TABLE a",
  "SAVEPOINT x",
  "LOCK TABLE a",
  "MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE",
  'INSERT INTO U&"\\0061" VALUES (1)',
  `INSERT INTO ${"long".repeat(16)} VALUES (1)`,
  "COMMENT ON CONSTRAINT c ON a IS 'x'",
];

describe("scanAnalysis", () => {
  test.each(KNOWN)("decides %s as the parser does", async (text) => {
    expect(scan(text)).toEqual(await analyzeSql(Buffer.from(text), PATH));
  });

  test.each(OTHERS)("leaves %s to the parser", (text) => {
    expect(scan(text)).toBeUndefined();
  });

  test.each([
    "SELECT 'open",
    "SELECT 1; /*",
    "SELECT (1",
    "\\set x",
    "COMMIT",
    "BEGIN; SELECT 1",
    "-- lockkeeper: tx=none\nSELECT 1",
    "SELECT * FROM lockkeeper.runs",
  ])("leaves what is not in order to the parser: %j", (text) => {
    expect(scan(text)).toBeUndefined();
  });

  test("agrees with the parser on every mix of statements", async () => {
    const mix = fc
      .tuple(
        fc.constantFrom("", "\u{feff}", "BEGIN;\n"),
        fc.array(fc.constantFrom(...KNOWN, ...KNOWN, ...OTHERS), { minLength: 1, maxLength: 5 }),
      )
      .map(
        ([start, statements]) =>
          `${start}${statements.join(";\r\n-- c;\n")}${start.startsWith("BEGIN") ? ";COMMIT" : ""}`,
      );
    let decided = 0;
    await fc.assert(
      fc.asyncProperty(mix, async (text) => {
        const own = scan(text);
        if (own === undefined) return;
        decided++;
        expect(own).toEqual(await analyzeSql(Buffer.from(text), PATH));
      }),
      { numRuns: 1_000 },
    );
    expect(decided).toBeGreaterThan(100);
  });

  test("refuses what is not UTF-8", () => {
    expect(() => scanAnalysis(Buffer.from([0xff]), PATH)).toThrow(RunnerError);
  });
});

describe("scanAnalysis of a public project's migrations", () => {
  test("agrees with the parser and decides nearly all", async () => {
    const names = readdirSync(corpus).filter((name) => name.endsWith(".sql"));
    expect(names).toHaveLength(356);
    const undecided: string[] = [];
    for (const name of names) {
      const bytes = readFileSync(path.join(corpus, name));
      const analysis = await analyzeSql(bytes, name);
      // some of their down files are empty
      expect(analysis).toMatchObject({
        tx: "one",
        isEmpty: name.endsWith(".down.sql") && bytes.toString().trim() === "",
      });
      const own = scanAnalysis(bytes, name);
      if (own === undefined) undecided.push(name);
      else expect([name, own]).toEqual([name, analysis]);
    }
    expect(undecided).toEqual([
      "20251023214634_update-node-execution-requests.up.sql",
      "20260227135919_add-canvas-memories-id-and-timestamps.up.sql",
      "20260512125440_add-workflow-runs.up.sql",
      "20260812184220_add-factory-key-and-work-order-number.up.sql",
      "20260818210337_add-factory-work-order-line-dispatches.up.sql",
    ]);
  });
});

describe("large bodies", () => {
  const row =
    "INSERT INTO t VALUES (1, 'some text that makes a row of a hundred bytes or so, as dumps have them, more or less');\n";

  test("of 50 MB are analysed by the lexer", () => {
    const bytes = Buffer.from(row.repeat(440_000));
    expect(bytes.length).toBeGreaterThan(50_000_000);
    expect(scanAnalysis(bytes, PATH)).toEqual({
      tx: "one",
      alone: true,
      locks: ["ROW EXCLUSIVE"],
      isEmpty: false,
    });
  });

  test("take time in proportion to their length", () => {
    const bytes = Buffer.from(row.repeat(64_000));
    // a hundredth of this; minutes if the text were read again for each statement
    expect(processorMs(() => scanAnalysis(bytes, PATH))).toBeLessThan(10_000);
  });

  test("of one statement of 50 MB are taken by analyzeSql", async () => {
    const seed = `SET work_mem = '4MB';\nINSERT INTO t VALUES ${"(1, 'some text in a row of a seed'),\n".repeat(1_400_000)}(2, 'b');\nVACUUM t;`;
    const bytes = Buffer.from(seed);
    expect(bytes.length).toBeGreaterThan(50_000_000);
    const analysis = await analyzeSql(bytes, PATH);
    expect(analysis).toMatchObject({ tx: "none", locks: ["SHARE UPDATE EXCLUSIVE", "ROW EXCLUSIVE"] });
    expect(analysis.statements?.map(({ kind }) => kind)).toEqual([
      "transactional",
      "transactional",
      "vacuum",
    ]);
    const last = analysis.statements?.at(-1);
    expect(last && bytes.toString("utf8", last.offset, last.offset + last.length)).toBe("VACUUM t");
  });
});
