import type pg from "pg";
import { expect, onTestFinished } from "vitest";
import type { ProbeVerdict, StatementStep } from "../../../src/driver/session.ts";
import { openDriver } from "../../../src/driver/open.ts";
import { createDatabase, type PostgresServer, type TestDatabase } from "../../support/database.ts";
import { startProxy } from "../../support/proxy.ts";
import { leaseOptions, never, settings, statementStep } from "../../support/steps.ts";

/** One kind of statement, and how to see what became of it. */
export interface OutcomeCase {
  /** run beforehand, one by one */
  readonly setup?: readonly string[];
  /** before the statement in its file */
  readonly before?: string;
  readonly statement: string;
  /** keeps the statement waiting in its middle, until it is rolled back */
  readonly block?: string;
  /** what the probe finds; null: a person has to look */
  readonly verdicts: Readonly<Record<Moment, ProbeVerdict | null>>;
  /** a query about the end, and its rows */
  readonly check: string;
  readonly rows: readonly unknown[];
  /** run at the very end */
  readonly cleanUp?: string;
  readonly server?: PostgresServer;
}

/** Where the connection is cut: before the statement reaches the server, in its middle, or before its answer arrives. */
export type Moment = "unsent" | "middle" | "unanswered";

/**
 * Cuts the connection of a run at each moment, and lets either the same run go on, or, after a runner that died, the next
 *. Each time the body is done in the end,
 * as if nothing had been, and nobody was asked.
 */
export async function survives(kind: OutcomeCase): Promise<void> {
  const moments: readonly Moment[] =
    kind.block === undefined ? ["unsent", "unanswered"] : ["unsent", "middle", "unanswered"];
  const cuts = moments.flatMap((moment) => (["same run", "next run"] as const).map((by) => ({ moment, by })));
  const ends = await Promise.all(
    cuts.map(async ({ moment, by }) => ({ moment, by, ...(await cut(kind, moment, by === "next run")) })),
  );
  expect(ends).toEqual(
    cuts.map(({ moment, by }) => {
      const verdict = kind.verdicts[moment];
      const end =
        verdict === null
          ? { status: "needs_attention", code: "NEEDS_ATTENTION", verdicts: [], rows: kind.rows }
          : { status: "done", code: undefined, verdicts: [verdict], rows: kind.rows };
      return { moment, by, ...end };
    }),
  );
}

interface End {
  readonly status: string | undefined;
  readonly code: string | undefined;
  readonly verdicts: readonly ProbeVerdict[];
  readonly rows: readonly unknown[];
}

async function cut(kind: OutcomeCase, moment: Moment, isDead: boolean): Promise<End> {
  const database = await createDatabase(kind.server === undefined ? {} : { server: kind.server });
  for (const sql of kind.setup ?? []) await database.query(named(sql, database));
  const statement = named(kind.statement, database);
  const text = `-- lockkeeper: tx=none\n${kind.before ?? ""}${statement};\nCREATE TABLE public.after ();`;
  const proxy = await startProxy(database.url);
  const verdicts: ProbeVerdict[] = [];
  const death = new AbortController();

  const [blocker, observer] = [await database.connect(), await database.connect()];
  if (moment === "middle") await blocker.query(`BEGIN; ${named(kind.block ?? "", database)}`);
  const reached = Promise.withResolvers<void>();
  proxy.onRequest((bytes) => {
    if (!bytes.includes(statement) || !bytes.includes("/*lockkeeper:")) return;
    proxy.onRequest(undefined);
    reached.resolve();
    return moment === "unsent" ? "drop" : moment === "unanswered" ? "hold" : undefined;
  });
  const first = run(database, proxy.url, await statementStep(text), verdicts, death.signal);
  await Promise.race([reached.promise, first]);
  if (moment === "middle") await until(observer, statement, "state = 'active' AND wait_event_type = 'Lock'");
  if (moment === "unanswered") await until(observer, statement, "state = 'idle'");
  if (isDead) proxy.onRequest(() => proxy.cut());
  proxy.cut();
  if (isDead) death.abort(new Error("killed"));
  if (moment === "middle") {
    await untilNot(observer, statement);
    await blocker.query("ROLLBACK");
  }
  let failure = await first;
  if (isDead) {
    await database.query("UPDATE lockkeeper.streams SET expires_at = clock_timestamp() - interval '1 s'");
    failure = await next(database, text, verdicts);
  }
  const driver = await openDriver(database.url);
  const [entry] = await driver.history("orders", { last: 1 }, never);
  await driver.close();
  const rows = await database.query(named(kind.check, database));
  if (kind.cleanUp !== undefined) await database.query(named(kind.cleanUp, database));
  return { status: entry?.status, code: failure, verdicts, rows };
}

/** A run that finds what the one before has left, as the runner hands it over. */
async function next(
  database: TestDatabase,
  text: string,
  verdicts: ProbeVerdict[],
): Promise<string | undefined> {
  const driver = await openDriver(database.url);
  const { unfinished } = await driver.state("orders", never);
  await driver.close();
  const step = await statementStep(text, { unfinished, resumeAt: unfinished?.statementsDone ?? 0 });
  return run(database, database.url, step, verdicts, never);
}

/** Runs a body under a lease of its own; gives the code of its failure. */
async function run(
  database: TestDatabase,
  url: string,
  step: StatementStep,
  verdicts: ProbeVerdict[],
  signal: AbortSignal,
): Promise<string | undefined> {
  const driver = await openDriver(url);
  onTestFinished(() => driver.close());
  try {
    await driver.withLease(leaseOptions({ waitMs: 60_000, signal }), (session) =>
      session.applyStatements(step, settings, (progress) => {
        if (progress.kind === "probed") verdicts.push(progress.verdict);
      }),
    );
    return undefined;
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
}

/** Waits until the marked statement's backend is like this. */
async function until(observer: pg.Client, statement: string, condition: string): Promise<void> {
  while ((await backends(observer, statement, condition)) === 0) await pause();
}

async function untilNot(observer: pg.Client, statement: string): Promise<void> {
  while ((await backends(observer, statement, "state = 'active'")) > 0) await pause();
}

async function backends(observer: pg.Client, statement: string, condition: string): Promise<number> {
  const { rows } = await observer.query(
    `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/*lockkeeper:%' AND strpos(query, $1) > 0 AND ${condition}`,
    [statement],
  );
  return rows.length;
}

/** `{db}` stands for the test's own database, whose name is nobody else's. */
function named(sql: string, database: TestDatabase): string {
  return sql.replaceAll("{db}", database.name);
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}
