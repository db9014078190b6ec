import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import type { LeasedSession, ProbeVerdict, StatementStep } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { leaseOptions, never, settings, statementStep } from "../../support/steps.ts";

let database: TestDatabase;
let driver: Driver;

async function start(...prepared: readonly string[]): Promise<void> {
  database = await createDatabase();
  for (const sql of prepared) await database.query(sql);
  driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
}

/** Runs a body as the next release has it, after whatever the history says; gives its failure's code, and what was asked. */
async function up(text: string): Promise<{ code: string | undefined; verdicts: readonly ProbeVerdict[] }> {
  const { unfinished } = await driver.state("orders", never);
  const step = await statementStep(text, { unfinished, resumeAt: unfinished?.statementsDone ?? 0 });
  const verdicts: ProbeVerdict[] = [];
  const code = await driver.withLease(leaseOptions(), (session) => apply(session, step, verdicts));
  return { code, verdicts };
}

async function apply(session: LeasedSession, step: StatementStep, verdicts: ProbeVerdict[]) {
  try {
    await session.applyStatements(step, settings, (progress) => {
      if (progress.kind === "probed") verdicts.push(progress.verdict);
    });
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
}

/** As a runner leaves it that died: its newest entry is still under way. */
async function dieAfter(statements: number): Promise<void> {
  await database.query(
    `UPDATE lockkeeper.history SET status = 'started', error = NULL, checkpoint = NULL, statements_done = ${statements}, statement_checksums = statement_checksums[1:${statements}]`,
  );
}

/** As a runner leaves it that died after it had sent its first statement: with the note that it made before. */
async function dieIn(text: string): Promise<void> {
  await database.query(
    "CREATE TABLE notes (checkpoint jsonb); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO notes VALUES (NEW.checkpoint); RETURN NEW; END $$",
  );
  await driver.withLease(leaseOptions(), () => Promise.resolve());
  await database.query(
    "CREATE TRIGGER note BEFORE UPDATE ON lockkeeper.history FOR EACH ROW WHEN (NEW.checkpoint IS NOT NULL) EXECUTE FUNCTION note()",
  );
  expect(await up(text)).toMatchObject({ code: undefined });
  await database.query("DROP TRIGGER note ON lockkeeper.history");
  await database.query(
    "UPDATE lockkeeper.history SET status = 'started', statements_done = 0, statement_checksums = '{}', checkpoint = (SELECT checkpoint FROM notes LIMIT 1)",
  );
}

async function indexes(): Promise<readonly string[]> {
  const rows = await database.query<{ name: string }>(
    "SELECT i.relname || CASE WHEN x.indisvalid THEN '' ELSE ' invalid' END AS name FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = 't'::regclass ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

async function newest(): Promise<unknown> {
  const [entry] = await driver.history("orders", { last: 1 }, never);
  return { status: entry?.status, done: entry?.statementsDone, checkpoint: entry?.checkpoint };
}

describe("after a runner died", () => {
  test("between two statements nobody is asked about the next one: it was not sent", async () => {
    await start("CREATE TABLE t (a int)", "CREATE PROCEDURE p() LANGUAGE sql AS 'INSERT INTO t VALUES (1)'");
    const text = "-- lockkeeper: tx=none\nCREATE TABLE a ();\nCALL p();\nCALL p();";
    expect(await up(text)).toEqual({ code: undefined, verdicts: [] });
    await dieAfter(2);
    expect(await up(text)).toEqual({ code: undefined, verdicts: [] });
    await dieAfter(0);
    await database.query("DROP TABLE a");
    expect(await up(text)).toEqual({ code: undefined, verdicts: [] });
    expect(await database.query("SELECT count(*)::int AS n FROM t")).toEqual([{ n: 2 + 1 + 2 }]);
  });

  test("a run that dies while it finds out leaves all that the next needs to find out", async () => {
    await start("CREATE TABLE t (a int)");
    const text = "CREATE INDEX CONCURRENTLY i ON t (a);";
    await dieIn(text);
    await database.query("DROP INDEX i");
    const blocker = await database.connect();
    const stop = new AbortController();
    await expect(blocker.query("BEGIN; INSERT INTO t VALUES (1)")).resolves.toBeDefined();
    const other = await database.connect();
    const building = other.query("CREATE INDEX CONCURRENTLY i ON t (a)").catch(() => undefined);
    while ((await indexes()).length === 0);
    // It waits for whoever builds the index of that name, and is stopped while it waits.
    const { unfinished } = await driver.state("orders", never);
    const step = await statementStep(text, { unfinished });
    const stopped = driver.withLease(leaseOptions({ signal: stop.signal }), (session) => {
      const applying = session.applyStatements(step, settings, () => undefined);
      return applying;
    });
    while ((await driver.history("orders", {}, never)).length < 2);
    stop.abort(new Error("enough"));
    await expect(stopped).rejects.toBeDefined();
    expect(await newest()).toMatchObject({ done: 0, checkpoint: { kind: "sent", statement: 0 } });
    await blocker.query("ROLLBACK");
    await building;
    expect(await up(text)).toEqual({ code: undefined, verdicts: ["done"] });
    expect(await indexes()).toEqual(["i"]);
  });

  test("its index is not confused with those of others: one of that name with another shape is neither taken nor dropped", async () => {
    await start("CREATE TABLE t (a int, b int)", "INSERT INTO t VALUES (1, 1), (1, 1)");
    const text = "CREATE INDEX CONCURRENTLY i ON t (a);";
    await dieIn(text);
    await database.query("DROP INDEX i; CREATE INDEX i ON t (b); CREATE INDEX j ON t (a)");
    const other = await database.connect();
    await expect(other.query("CREATE UNIQUE INDEX CONCURRENTLY k ON t (a)")).rejects.toMatchObject({
      code: "23505",
    });
    expect(await up(text)).toEqual({ code: "MIGRATION_FAILED", verdicts: ["not-done"] });
    expect(await indexes()).toEqual(["i", "j", "k invalid"]);
  });
});

describe("an index that another session builds meanwhile", () => {
  test.for([
    ["is waited for where it is the one that is wanted", "ROLLBACK", ["i"]],
    ["is built anew where that session fails", "COMMIT", ["i"]],
  ] as const)("%s", async ([, end, expected]) => {
    await start("CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)");
    const blocker = await database.connect();
    await blocker.query("BEGIN; INSERT INTO t VALUES (1)");
    const other = await database.connect();
    const building = other
      .query("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)")
      .catch((error: Error) => error);
    while ((await indexes()).length === 0);
    const running = up("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);");
    while (
      (await database.query("SELECT 1 FROM lockkeeper.history WHERE checkpoint IS NOT NULL").catch(() => []))
        .length === 0
    );
    expect(await indexes()).toEqual(["i invalid"]);
    await blocker.query(end);
    expect(await building).toMatchObject(end === "COMMIT" ? { code: "23505" } : { command: "CREATE" });
    expect(await running).toEqual({ code: undefined, verdicts: [] });
    expect(await indexes()).toEqual(expected);
  });
});

describe("a file that was corrected after its runner died", () => {
  test("begins with the new statement when the old one had no effect, and clears away what that left", async () => {
    await start("CREATE TABLE t (a int)");
    await dieIn("CREATE INDEX CONCURRENTLY i ON t (a);");
    await database.query("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass");
    expect(await up("CREATE INDEX CONCURRENTLY better ON t (a);")).toEqual({
      code: undefined,
      verdicts: ["cleared"],
    });
    expect(await indexes()).toEqual(["better"]);
    expect(await newest()).toEqual({ status: "done", done: 1, checkpoint: null });
  });

  test("is refused when the old one had taken effect, as any changed statement is that is done, until it is as it was", async () => {
    await start("CREATE TABLE t (a int)");
    const old = "CREATE INDEX CONCURRENTLY i ON t (a);";
    await dieIn(old);
    expect(await up("CREATE INDEX CONCURRENTLY better ON t (a);")).toEqual({
      code: "CHANGED_FILE",
      verdicts: ["done"],
    });
    expect(await newest()).toEqual({ status: "failed", done: 1, checkpoint: null });
    expect(await indexes()).toEqual(["i"]);
    expect(await up(`${old}\nCREATE INDEX CONCURRENTLY better ON t (a);`)).toEqual({
      code: undefined,
      verdicts: [],
    });
    expect(await indexes()).toEqual(["better", "i"]);
  });
});
