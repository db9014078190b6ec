import { setTimeout as sleep } from "node:timers/promises";

import type { Control } from "./control.ts";
import { judgeEvidence, type Step, type Violation } from "./evidence.ts";
import { backfillRows, type CrashMigration } from "./workload.ts";

/** What a database must be like when a round is over. */
export interface Expectation {
  readonly steps: readonly Step[];
  readonly migrations: readonly CrashMigration[];
  /** how many migrations are applied in the end */
  readonly applied: number;
  /** digest of the release that is applied whole in the end; null where only a part of it is */
  readonly completed: string | null;
  /** milliseconds that the server may take to end what was left open */
  readonly patienceMs: number;
}

/** All that a checker does to a database. */
type Looking = Pick<Control, "query">;

/** Reads the database, and nothing that a runner said: empty when all is as it must be. */
export async function check(control: Looking, expected: Expectation): Promise<readonly Violation[]> {
  const [row] = await control.query<{ ours: string | null }>(
    "SELECT to_regclass('lockkeeper.history')::text AS ours",
  );
  if (typeof row?.ours !== "string")
    return [{ rule: "history is whole and in order", detail: "there is none" }];
  // First, because it waits until nobody changes anything any more.
  const open = await openTransactions(control, expected.patienceMs);
  const found = [
    judgeEvidence(await marks(control), expected.steps),
    await history(control, expected),
    await together(control, expected),
    await backfills(control, expected),
    await objects(control, expected),
    await rowsOf(control, "no invalid index", invalidIndexes),
    await rowsOf(control, "runs have ended", openRuns),
    await rowsOf(control, "the audit log is one chain", brokenLinks),
    await rowsOf(control, "nothing is done that the audit log does not say", unaudited),
    await stream(control, expected),
  ];
  return [...open, ...found.flat()];
}

async function marks(control: Looking): Promise<readonly string[]> {
  const rows = await control.query<{ mark: string }>("SELECT mark FROM crash.evidence ORDER BY id");
  return rows.map(({ mark }) => mark);
}

interface EntryRow {
  readonly seq: number;
  readonly direction: string;
  readonly status: string;
  readonly token: string;
  readonly done: number;
  readonly statements: number;
}

/** Whole: one entry for each step, in order. True: no other ends; tokens never fall; statements done are all there are. */
async function history(control: Looking, { steps }: Expectation): Promise<readonly Violation[]> {
  const entries = await control.query<EntryRow & Record<string, unknown>>(
    "SELECT seq, direction, status, token, statements_done AS done, statements FROM lockkeeper.history ORDER BY id",
  );
  const violations: Violation[] = [];
  const say = (rule: string, detail: string): void => void violations.push({ rule, detail });
  const name = ({ seq, direction, status, token }: EntryRow): string =>
    `${seq} ${direction} ${status}, token ${token}`;

  const done = entries.filter(({ status }) => status === "done");
  const wanted = steps.map(({ migration, direction }) => `${migration.n} ${direction}`);
  const found = done.map(({ seq, direction }) => `${seq} ${direction}`);
  const first = Array.from({ length: Math.max(wanted.length, found.length) }).findIndex(
    (_, index) => wanted[index] !== found[index],
  );
  if (first >= 0)
    say(
      "history is whole and in order",
      `entry ${first + 1} of those done is "${found[first] ?? "missing"}", expected "${wanted[first] ?? "none"}"`,
    );

  for (const [index, entry] of entries.entries()) {
    const before = entries[index - 1];
    if (before !== undefined && Number(before.token) > Number(entry.token))
      say("tokens never fall", `${name(before)}, then ${name(entry)}`);
    if (entry.status === "done" && entry.done !== entry.statements)
      say("a done entry has all statements", `${name(entry)}: ${entry.done} of ${entry.statements}`);
    if (entry.status === "failed" || entry.status === "needs_attention")
      say("nothing failed, nobody is asked", name(entry));
    // One whose runner died stays as it was; the next attempt is an entry of its own, and follows it.
    const after = entries[index + 1];
    const isFollowed = after?.seq === entry.seq && after.direction === entry.direction;
    if (entry.status === "started" && !isFollowed) say("nothing is left started", name(entry));
  }
  return violations;
}

/** Rows of one transaction have the same `xmin`: so a body and its history entry have, where both are in one. */
async function together(control: Looking, { steps }: Expectation): Promise<readonly Violation[]> {
  const rows = await control.query<{ mark: string; body: string }>(
    "SELECT mark, xmin::text AS body FROM crash.evidence ORDER BY id",
  );
  const entries = await control.query<{ seq: number; direction: string; entry: string }>(
    "SELECT seq, direction, xmin::text AS entry FROM lockkeeper.history WHERE status = 'done' ORDER BY id",
  );
  return steps.flatMap(({ migration, direction }, index) => {
    const { marks: wanted, isWhole } = migration[direction];
    const entry = entries[index];
    if (!isWhole || entry?.seq !== migration.n || entry.direction !== direction) return [];
    const found = rows.filter(({ body }) => body === entry.entry).map(({ mark }) => mark);
    return found.join() === wanted.join()
      ? []
      : [
          {
            rule: "a body and its entry commit together",
            detail: `${migration.n} ${direction}: its entry's transaction left "${found.join()}"`,
          },
        ];
  });
}

/** Every row of the table reached once for each time that the backfill ran. */
async function backfills(control: Looking, { steps }: Expectation): Promise<readonly Violation[]> {
  const ran = steps.filter(({ migration, direction }) => migration.kind === "backfill" && direction === "up");
  const rows = await control.query<{ n: number; a: number; times: number }>(
    "SELECT n, a, count(*)::int AS times FROM crash.reached GROUP BY n, a",
  );
  return [...new Set(ran.map(({ migration }) => migration.n))].flatMap((n) => {
    const wanted = ran.filter(({ migration }) => migration.n === n).length;
    const own = rows.filter((row) => row.n === n);
    const wrong = own.filter(({ times }) => times !== wanted);
    const [first] = wrong;
    return [
      ...(first === undefined
        ? []
        : [
            {
              rule: "a backfill reaches each row once",
              detail: `${n}: ${wrong.length} rows not, row ${first.a} ${first.times} times, expected ${wanted}`,
            },
          ]),
      ...(own.length === backfillRows
        ? []
        : [{ rule: "a backfill reaches every row", detail: `${n}: ${own.length} of ${backfillRows}` }]),
    ];
  });
}

async function objects(
  control: Looking,
  { migrations, applied }: Expectation,
): Promise<readonly Violation[]> {
  const known = migrations.filter(({ isThere }) => isThere !== undefined);
  if (known.length === 0) return [];
  const [row] = await control.query<Record<string, boolean>>(
    `SELECT ${known.map(({ n, isThere }) => `(${isThere}) AS m_${n}`).join(", ")}`,
  );
  const wrong = known.filter(({ n }) => row?.[`m_${n}`] !== n <= applied);
  const names = wrong.map(({ n, kind }) => `${n} (${kind}) ${row?.[`m_${n}`] === true ? "is" : "is not"}`);
  return wrong.length === 0 ? [] : [{ rule: "effects are what the history says", detail: names.join(", ") }];
}

const invalidIndexes =
  "SELECT indexrelid::regclass::text AS found FROM pg_catalog.pg_index WHERE NOT indisvalid OR NOT indisready";
const brokenLinks = `
SELECT seq || ' does not follow ' || coalesce(seq_before, 0) AS found FROM (
  SELECT *, lag(seq) OVER (ORDER BY seq) AS seq_before, lag(sha256) OVER (ORDER BY seq) AS sha256_before FROM lockkeeper.audit
) AS entry
WHERE seq <> coalesce(seq_before, 0) + 1 OR previous <> coalesce(sha256_before, repeat('0', 64))
  OR sha256 <> encode(sha256(convert_to(previous || E'\\n' || text, 'UTF8')), 'hex')`;
const unaudited = `
SELECT DISTINCT run_id AS found FROM lockkeeper.history AS entry WHERE NOT EXISTS (
  SELECT FROM lockkeeper.audit WHERE text::jsonb ->> 'event' = 'run.begun' AND text::jsonb ->> 'run' = entry.run_id)`;
const openRuns =
  "SELECT id || ' ' || status AS found FROM lockkeeper.runs WHERE status NOT IN ('succeeded', 'failed', 'canceled') OR ended_at IS NULL";

async function rowsOf(control: Looking, rule: string, sql: string): Promise<readonly Violation[]> {
  const rows = await control.query<{ found: string }>(sql);
  return rows.map(({ found }) => ({ rule, detail: found }));
}

/** Who was killed after its last word has given nothing back: the lease is free when it has expired. */
async function stream(
  control: Looking,
  { completed, patienceMs }: Expectation,
): Promise<readonly Violation[]> {
  const giveUpAt = performance.now() + patienceMs;
  for (;;) {
    const [row] = await control.query<{ holder: string | null; completed: string | null; alive: boolean }>(
      "SELECT holder, completed, coalesce(expires_at > pg_catalog.clock_timestamp(), false) AS alive FROM lockkeeper.streams",
    );
    if (row === undefined) return [{ rule: "the stream has a row", detail: "it has none" }];
    if (row.alive && performance.now() < giveUpAt) {
      await sleep(100);
      continue;
    }
    return [
      ...(row.alive ? [{ rule: "the lease is free", detail: `held by ${row.holder}` }] : []),
      ...(row.completed === completed
        ? []
        : [
            {
              rule: "the stream names the release that is applied whole",
              detail: `${row.completed}, expected ${completed}`,
            },
          ]),
    ];
  }
}

/** Nothing that a struck runner began goes on, or keeps anything locked, once the server's own limits have passed. */
async function openTransactions(control: Looking, patienceMs: number): Promise<readonly Violation[]> {
  const giveUpAt = performance.now() + patienceMs;
  for (;;) {
    const rows = await control.query<{
      found: string;
    }>(`SELECT state || ' since ' || xact_start || ': ' || left(query, 80) AS found
 FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
 AND backend_type = 'client backend' AND xact_start IS NOT NULL
 UNION ALL SELECT 'prepared ' || gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()`);
    if (rows.length === 0) return [];
    if (performance.now() > giveUpAt)
      return rows.map(({ found }) => ({ rule: "no transaction is left open", detail: found }));
    await sleep(100);
  }
}
