import { describe, expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { analyzeSql, analyzeUnsigned } from "../../src/migration/analyze.ts";
import type { Analysis } from "../../src/migration/analyze.ts";

const PATH = "000001_a.up.sql";
const HEADER = "-- lockkeeper: backfill table=app.Orders key=tenant,id\n";

/** Both ways of analysing must say the same; the statement is given as its text. */
async function analyze(text: string): Promise<Analysis & { readonly statement: string | undefined }> {
  const bytes = Buffer.from(text);
  const [analysis, unsigned] = await Promise.all([analyzeSql(bytes, PATH), analyzeUnsigned(bytes, PATH)]);
  expect(unsigned).toEqual(analysis);
  const [only] = analysis.statements ?? [];
  return {
    ...analysis,
    statement: only && bytes.toString("utf8", only.offset, only.offset + only.length),
  };
}

async function failure(text: string): Promise<RunnerError> {
  const outcome = await analyzeSql(Buffer.from(text), PATH).catch((error: unknown) => error);
  const unsigned = await analyzeUnsigned(Buffer.from(text), PATH).catch((error: unknown) => error);
  if (!(outcome instanceof RunnerError)) throw new Error("nothing was refused");
  expect(unsigned).toMatchObject({ code: outcome.code, message: outcome.message });
  return outcome;
}

describe("the analysis of a backfill", () => {
  test.each([
    "UPDATE app.orders o SET a = 1 FROM batch WHERE o.id = batch.id",
    "UPDATE o SET a = 1 WHERE EXISTS (SELECT FROM batch WHERE batch.id = o.id) RETURNING o.*",
    "DELETE FROM app.orders o USING batch b WHERE o.id = b.id",
    "INSERT INTO archive SELECT o.* FROM app.orders o JOIN batch USING (tenant, id)",
    "INSERT INTO app.orders SELECT o.* FROM batch JOIN app.orders o USING (id) ON CONFLICT (id) DO UPDATE SET a = 1",
    "INSERT INTO other.orders SELECT o.* FROM batch JOIN app.orders o USING (id)",
    "MERGE INTO app.orders o USING batch b ON o.id = b.id WHEN MATCHED THEN UPDATE SET a = 1",
    "WITH gone AS (DELETE FROM app.orders o USING batch b WHERE o.id = b.id RETURNING o.*) INSERT INTO archive SELECT * FROM gone",
    'UPDATE "Orders" SET id = 1 FROM batch WHERE "Orders".id = batch.id',
    "UPDATE app.orders SET other = 'ä;' FROM batch WHERE true",
  ])("takes %j as one statement of its own kind", async (sql) => {
    const text = `\u{feff}-- ä\r\n${HEADER}/* why */\n${sql} -- so\n;\n-- end\n`;
    expect(await analyze(text)).toMatchObject({
      tx: "none",
      alone: false,
      locks: ["ROW EXCLUSIVE"],
      statement: sql,
    });
  });

  test("another batch size, pause or throttle leaves the statement what it was", async () => {
    const sql = "DELETE FROM app.orders o USING batch b WHERE o.id = b.id";
    const changed =
      "-- lockkeeper: backfill table=app.orders key=id batch=7 pause=1s\n-- lockkeeper: throttle SELECT false\n\n";
    expect((await analyze(HEADER + sql)).statement).toBe((await analyze(changed + sql)).statement);
  });

  test.each([
    ["", 1, 1, "without a statement"],
    ["UPDATE a SET b = 1 FROM batch; \n  SELECT 1", 3, 3, "more than one statement"],
    ["BEGIN; UPDATE a SET b = 1 FROM batch; COMMIT", 2, 8, "more than one statement"],
    ["SELECT * FROM batch", 2, 1, "none of UPDATE"],
    ["  CREATE TABLE x AS SELECT * FROM batch", 2, 3, "none of UPDATE"],
    ["CREATE INDEX CONCURRENTLY ON a (b)", 2, 1, "none of UPDATE"],
    ["UPDATE a SET b = 1", 2, 1, 'does not name the relation "batch"'],
    ["DELETE FROM batch", 2, 1, 'does not name the relation "batch"'],
    ["UPDATE a SET b = 1 FROM app.batch", 2, 1, 'does not name the relation "batch"'],
    ["WITH batch AS (SELECT 1) UPDATE a SET b = 1 FROM batch", 2, 1, "WITH query of its own"],
    ["UPDATE a SET b = (WITH batch AS (SELECT 1) SELECT 2) FROM batch", 2, 1, "WITH query of its own"],
    ["UPDATE app.orders o SET b = 1, ID = 2 FROM batch", 2, 1, "changes the key"],
    ["UPDATE orders o SET (b, tenant) = (1, 2) FROM batch", 2, 1, "changes the key"],
    ["INSERT INTO orders SELECT o.* FROM orders o JOIN batch USING (id)", 2, 1, "without end"],
  ])("refuses %j", async (sql, line, column, what) => {
    const error = await failure(HEADER + sql);
    expect(error.code).toBe("BACKFILL");
    expect(error.message).toContain(`${PATH}:${line}:${column}: `);
    expect(error.message).toContain(what);
    expect(error.hint).toBeDefined();
    expect(error.fields).toEqual({ migration: PATH, line, column });
  });

  test.each([
    ["SELECT 1 +", "syntax error"],
    ["DELETE FROM a", "not one query"],
    ["SELECT true; SELECT false", "not one query"],
    ["SELECT true INTO x", "not one query"],
  ])("refuses the throttle %j", async (query, what) => {
    const error = await failure(`${HEADER}-- lockkeeper: throttle ${query};\nDELETE FROM a USING batch`);
    expect(error.code).toBe("BACKFILL");
    expect(error.message).toContain(`${PATH}:2:25: `);
    expect(error.message).toContain(what);
  });

  test.each([
    ["UPDATE app.orders SET FROM batch", "SQL_SYNTAX"],
    ["UPDATE lockkeeper.streams s SET token = 1 FROM batch", "STATEMENT_REFUSED"],
  ])("does not leave %j to the server", async (sql, code) => {
    expect((await failure(HEADER + sql)).code).toBe(code);
  });
});
