import { describe, test } from "vitest";
import { survives, type OutcomeCase } from "./unknown-outcome.ts";

const filled = [
  "CREATE TABLE t (a int, b text)",
  "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 50) n",
];
const indexes = `SELECT n.nspname || '.' || i.relname || CASE WHEN x.indisvalid THEN '' ELSE ' invalid' END AS i FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_namespace n ON n.oid = i.relnamespace WHERE n.nspname NOT IN ('pg_catalog', 'lockkeeper') AND (n.nspname <> 'pg_toast' OR NOT x.indisvalid) ORDER BY 1`;

const cases: Readonly<Record<string, OutcomeCase>> = {
  "a named index": {
    setup: filled,
    statement: "CREATE INDEX CONCURRENTLY i ON t (a)",
    block: "INSERT INTO t VALUES (0)",
    verdicts: { unsent: "not-done", middle: "cleared", unanswered: "done" },
    check: indexes,
    rows: [{ i: "public.i" }],
  },
  "an index that must be unique, if there is none, quoted, found by the file's search_path": {
    setup: ['CREATE SCHEMA "My"', 'CREATE TABLE "My"."T t" (a int, "B" text)', 'CREATE TABLE "T t" (a int)'],
    before: 'SET search_path = "My";\n',
    statement:
      'create unique index /* a */ concurrently if not exists "I ""x" on "T t" using btree (lower("B"), a desc) where a > 1',
    block: 'INSERT INTO "My"."T t" VALUES (0)',
    verdicts: { unsent: "not-done", middle: "cleared", unanswered: "done" },
    check: indexes,
    rows: [{ i: 'My.I "x' }],
  },
  "an index without a name, on a partition, beside one like it": {
    setup: [
      "CREATE TABLE p (a int, b int) PARTITION BY RANGE (a)",
      "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
      "CREATE INDEX ON p1 (a, b)",
    ],
    statement: "CREATE INDEX CONCURRENTLY ON public.p1 (a, B) INCLUDE (b)",
    block: "INSERT INTO p VALUES (1)",
    verdicts: { unsent: "not-done", middle: "cleared", unanswered: "done" },
    check: indexes,
    rows: [{ i: "public.p1_a_b_b1_idx" }, { i: "public.p1_a_b_idx" }],
  },
  "a dropped index": {
    setup: [...filled, "CREATE INDEX i ON t (a)"],
    statement: "DROP INDEX CONCURRENTLY i",
    block: "SELECT FROM t",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: indexes,
    rows: [],
  },
  "a table's indexes made anew": {
    setup: [...filled, "CREATE INDEX i ON t (a)", "CREATE INDEX j ON t (b)"],
    statement: "REINDEX TABLE CONCURRENTLY t",
    block: "INSERT INTO t VALUES (0)",
    verdicts: { unsent: "not-done", middle: "cleared", unanswered: "not-done" },
    check: indexes,
    rows: [{ i: "public.i" }, { i: "public.j" }],
  },
  "a schema's indexes made anew": {
    setup: ["CREATE SCHEMA s", "CREATE TABLE s.t (a int PRIMARY KEY)"],
    statement: "REINDEX (VERBOSE, CONCURRENTLY) SCHEMA s",
    block: "INSERT INTO s.t VALUES (0)",
    verdicts: { unsent: "not-done", middle: "cleared", unanswered: "not-done" },
    check: indexes,
    rows: [{ i: "s.t_pkey" }],
  },
  "a detached partition": {
    setup: [
      "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
      'CREATE TABLE "P 1" PARTITION OF p FOR VALUES FROM (0) TO (10)',
    ],
    statement: 'ALTER TABLE IF EXISTS public.p DETACH PARTITION "P 1" CONCURRENTLY',
    block: "SELECT FROM p",
    verdicts: { unsent: "not-done", middle: "done", unanswered: "done" },
    check: "SELECT 1 FROM pg_inherits WHERE inhparent = 'p'::regclass",
    rows: [],
  },
};

describe("an unknown outcome is settled by asking the database, in the same run and in the next:", () => {
  test.for(Object.entries(cases))("%s", { timeout: 90_000 }, async ([, kind]) => {
    await survives(kind);
  });
});
