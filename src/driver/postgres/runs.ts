import type { EntryError } from "../../history/entry.ts";
import type {
  BackupRecord,
  Caller,
  RunAction,
  RunAttempt,
  RunOutcome,
  RunRecord,
  RunStatus,
  RunTrigger,
} from "../../history/run.ts";
import type { NewRun, PickedUpRun, PickUpQuery, RunChange, RunQuery } from "../runs.ts";
import type { RunBeginning } from "../session.ts";
import type { Row } from "./connection.ts";
import { instantColumn, readInstant } from "./instant.ts";
import type { PreparedStatement } from "./prepared.ts";
import { jsonLiteral, literal, type TableNames } from "./tables.ts";

const endedStatuses = "('succeeded', 'failed', 'canceled')";
/** how long a run that is not under a lease belongs to the process that said so last: three of its sweeps */
const claim = "pg_catalog.clock_timestamp() + interval '45 seconds'";

/** Columns of what a request says of its run, and their types. */
export const requestedColumns = {
  id: "text",
  target: "text",
  stream: "text",
  action: "text",
  trigger: "text",
  caller: "jsonb",
  release_digest: "text",
  labels: "jsonb",
  run_order: "jsonb",
  idempotency_key: "text",
  body_digest: "text",
} as const;

/** A value for each of {@link requestedColumns}, as SQL */
export type RequestedValues = Readonly<Record<keyof typeof requestedColumns, string>>;

/** What a request says of its run, as literals. */
export function requestedValues(run: NewRun): RequestedValues {
  return {
    id: literal(run.id),
    target: literal(run.target),
    stream: literal(run.stream),
    action: literal(run.action),
    trigger: literal(run.trigger),
    caller: jsonLiteral(run.caller),
    release_digest: literal(run.releaseDigest),
    labels: jsonLiteral(run.labels),
    run_order: jsonLiteral(run.order),
    idempotency_key: literal(run.idempotencyKey),
    body_digest: literal(run.bodyDigest),
  };
}

/** Adds a run's row; gives its id, or no row when id or idempotency key are taken. `where` may name a further condition. */
export function insertRun(t: TableNames, run: NewRun, status: "queued" | "running", where = "true"): string {
  const columns = {
    ...requestedValues(run),
    status: literal(status),
    attempt: status === "running" ? "1" : "0",
    claimed_until: run.isUnclaimed === true ? "NULL" : claim,
  };
  return `${insertInto(t, columns)} WHERE ${where} ON CONFLICT DO NOTHING RETURNING id AS lockkeeper_run, ${attemptColumns}`;
}

/**
 * Adds the row of a run that was over before it began; gives it as {@link selectRuns} does, or no row as {@link insertRun}.
 *
 * @param version - where the database is, as SQL
 */
export function insertNoop(t: TableNames, run: RequestedValues, version: string, where: string): string {
  const columns = {
    ...run,
    status: "'succeeded'",
    attempt: "0",
    claimed_until: claim,
    outcome: "'noop'",
    from_version: version,
    to_version: version,
    ended_at: "pg_catalog.clock_timestamp()",
  };
  return `${insertInto(t, columns)} WHERE ${where} ON CONFLICT DO NOTHING
 RETURNING *, ${runTimes("runs")}, 0 AS applied, NULL AS current`;
}

function insertInto(t: TableNames, columns: Readonly<Record<string, string>>): string {
  return `INSERT INTO ${t.runs} AS runs (${Object.keys(columns).join(", ")}) SELECT ${Object.values(columns).join(", ")}`;
}

/** A run's row with its progress, which is what the history says of the run. */
export function selectRuns(t: TableNames, where: string, limit: number): string {
  return `SELECT r.*, ${runTimes("r")}, ${appliedOf(t)},
 (SELECT h.path FROM ${t.history} h WHERE h.run_id = r.id AND h.status = 'started' ORDER BY h.id DESC LIMIT 1) AS current
 FROM ${t.runs} r WHERE ${where} ORDER BY r.created_at DESC, r.id DESC LIMIT ${limit}`;
}

/** The newest run of a target, as {@link selectRuns} gives it. */
export function newestRun(t: TableNames): PreparedStatement<"target"> {
  return {
    name: "lockkeeper_newest_run",
    types: { target: "text" },
    text: ({ target }) => selectRuns(t, `r.target = ${target}`, 1),
  };
}

function runTimes(alias: string): string {
  return ["created_at", "started_at", "ended_at"]
    .map((name) => instantColumn(`${alias}.${name}`, name))
    .join(", ");
}

/**
 * Without an up that the run has taken back again, and the down that did it; a redo has its down first, so both count. Read
 * once: comparing each entry with all others would take a database without statistics, as one is right after its first run,
 * the square of their number.
 */
function appliedOf(t: TableNames): string {
  return `(SELECT pg_catalog.count(*) FROM (
  SELECT id, direction, status, origin, pg_catalog.max(id) FILTER (WHERE direction = 'down' AND status = 'done') OVER of_one AS last_down,
   pg_catalog.min(id) FILTER (WHERE direction = 'up') OVER of_one AS first_up
  FROM ${t.history} WHERE run_id = r.id WINDOW of_one AS (PARTITION BY seq)) h
  WHERE status = 'done' AND origin IN ('run', 'checkpoint')
   AND CASE direction WHEN 'up' THEN coalesce(last_down < id, true) ELSE coalesce(first_up > id, true) END) AS applied`;
}

/** The condition for {@link selectRuns} that a query stands for. Ids tell no order: they hold the time of a clock that may be wrong. */
export function runConditions(t: TableNames, query: RunQuery): string {
  const conditions = [`r.target = ${literal(query.target)}`];
  if (query.status !== undefined) conditions.push(`r.status = ${literal(query.status)}`);
  if (query.isOpen === true) conditions.push("r.ended_at IS NULL");
  if (query.since !== undefined) conditions.push(`r.created_at >= ${literal(query.since)}`);
  if (query.beforeId !== undefined) {
    const before = `SELECT b.created_at, b.id FROM ${t.runs} b WHERE b.id = ${literal(query.beforeId)}`;
    conditions.push(`(r.created_at, r.id) < (${before})`);
  }
  return conditions.join(" AND ");
}

/** The run has a plan and starts to carry it out; where it began, and how much it was, stays as its first attempt said. */
export function beginRun(t: TableNames, id: string, beginning: RunBeginning): string {
  const rank = beginning.highWaterMark;
  const { progress } = beginning;
  const marked =
    progress === undefined ? "" : `, mark = ${literal(progress.mark)}, stalls = ${progress.stalls}`;
  return `UPDATE ${t.runs} SET status = 'running', started_at = coalesce(started_at, pg_catalog.clock_timestamp()),
 total = CASE WHEN total = 0 THEN ${beginning.steps} ELSE total END,
 from_version = CASE WHEN total = 0 THEN ${literal(beginning.fromVersion)} ELSE from_version END,
 release_digest = ${literal(beginning.releaseDigest)}, release_version = ${literal(rank?.version)},
 to_version = ${literal(beginning.toVersion)}${marked} WHERE id = ${literal(id)}`;
}

/**
 * What is left of the runs of earlier holders: nobody works on them any more once the lease is another's. Those that
 * somebody else can go on with wait for that, the others end.
 */
export function endDeadRuns(t: TableNames, stream: string, id: string, where: string): string {
  const error: EntryError = {
    code: "LEASE_LOST",
    message: "its runner died or was cut off, and another run has taken its lease",
    hint: "look at the history for what it did; the next run goes on where it stopped",
    fields: { by: id },
  };
  const others = `stream = ${literal(stream)} AND id <> ${literal(id)} AND status IN ('running', 'canceling') AND ${where}`;
  return `UPDATE ${t.runs} SET status = 'handing_over', claimed_until = NULL WHERE run_order IS NOT NULL AND ${others};
UPDATE ${t.runs} SET status = 'failed', outcome = 'failed', ended_at = pg_catalog.clock_timestamp(), error = ${jsonLiteral(error)}
 WHERE run_order IS NULL AND ${others}`;
}

const attemptColumns = "attempt AS lockkeeper_attempt, mark AS lockkeeper_mark, stalls AS lockkeeper_stalls";

/** The run has the lease: its next attempt. No row when it is not there yet, or has ended. `where` may name a further condition. */
export function startRun(t: TableNames, id: string, where: string): string {
  return `UPDATE ${t.runs} SET status = 'running', attempt = attempt + 1, started_at = coalesce(started_at, pg_catalog.clock_timestamp())
 WHERE id = ${literal(id)} AND status NOT IN ${endedStatuses} AND ${where} RETURNING ${attemptColumns}`;
}

/** The attempt in a row of {@link startRun} or {@link insertRun}. */
export function readAttempt(row: Row): RunAttempt {
  return {
    number: Number(row["lockkeeper_attempt"]),
    mark: row["lockkeeper_mark"] as string | null,
    stalls: Number(row["lockkeeper_stalls"]),
  };
}

/**
 * Renews what the caller has, and takes what nobody has: runs under no lease of theirs, whose process said so or has
 * not been heard of. Of several callers at once each takes others.
 */
export function pickUpRuns(t: TableNames, query: PickUpQuery): string {
  const own = query.own.length === 0 ? undefined : `(${query.own.map((id) => literal(id)).join(", ")})`;
  const renewed =
    own === undefined
      ? ""
      : `UPDATE ${t.runs} SET claimed_until = ${claim} WHERE id IN ${own} AND status NOT IN ${endedStatuses}; `;
  const now = "pg_catalog.clock_timestamp()";
  const times = runTimes("r");
  return `${renewed}WITH left_alone AS MATERIALIZED (
 SELECT id FROM ${t.runs} r WHERE target = ${literal(query.target)} AND ended_at IS NULL AND run_order IS NOT NULL
 ${own === undefined ? "" : `AND id NOT IN ${own}`}
 AND CASE WHEN status IN ('running', 'canceling')
  THEN NOT EXISTS (SELECT FROM ${t.streams} s WHERE s.name = r.stream AND s.run_id = r.id AND s.holder IS NOT NULL AND s.expires_at >= ${now})
  ELSE claimed_until IS NULL OR claimed_until < ${now} END
 ORDER BY created_at, id LIMIT ${query.limit} FOR UPDATE SKIP LOCKED)
UPDATE ${t.runs} r SET status = 'handing_over', claimed_until = ${claim} FROM left_alone l WHERE r.id = l.id
 RETURNING r.*, ${times}, ${appliedOf(t)}, NULL AS current, extract(epoch FROM ${now} - r.created_at) * 1000 AS age_ms`;
}

/** One row of {@link pickUpRuns}. */
export function readPickedUp(row: Row): PickedUpRun {
  return {
    run: readRun(row),
    order: row["run_order"],
    ageMs: Number(row["age_ms"]),
    hasBegun: Number(row["total"]) > 0,
  };
}

/** Changes a run that has not ended. */
export function updateRun(t: TableNames, id: string, change: RunChange): string {
  const values = [`status = ${literal(change.status)}`];
  const set = (column: string, value: string | number | null | undefined): void => {
    if (value !== undefined) values.push(`${column} = ${literal(value)}`);
  };
  set("outcome", change.outcome);
  set("release_digest", change.releaseDigest);
  set("release_version", change.releaseVersion);
  set("from_version", change.fromVersion);
  set("to_version", change.toVersion);
  if (change.backup !== undefined) values.push(`backup = ${jsonLiteral(change.backup)}`);
  if (change.error !== undefined) values.push(`error = ${jsonLiteral(change.error)}`);
  if (change.status === "running")
    values.push("started_at = coalesce(started_at, pg_catalog.clock_timestamp())");
  if (change.status === "succeeded" || change.status === "failed" || change.status === "canceled") {
    values.push("ended_at = pg_catalog.clock_timestamp()");
  }
  values.push(`claimed_until = ${change.status === "handing_over" ? "NULL" : claim}`);
  const isSame = change.attempt === undefined ? "" : ` AND attempt = ${change.attempt}`;
  // Said without being waited for: it may come after the lease did.
  const isWaiting = change.status === "waiting_lock" ? " AND status NOT IN ('running', 'canceling')" : "";
  return `UPDATE ${t.runs} SET ${values.join(", ")} WHERE id = ${literal(id)} AND status NOT IN ${endedStatuses}${isSame}${isWaiting}`;
}

/** Asks a run to stop; whoever executes it, or waits with it, ends it. Between two executors nobody would. A row when it had not ended. */
export function requestCancel(t: TableNames, id: string, reason: string): string {
  const error: EntryError = {
    code: "CANCELED",
    message: `the run was asked to stop: ${reason}`,
    hint: "run again to go on where it stopped",
    fields: {},
  };
  const isBetween = "status = 'handing_over'";
  return `UPDATE ${t.runs} SET cancel_requested = true, cancel_reason = ${literal(reason)},
 status = CASE WHEN ${isBetween} THEN 'canceled' WHEN status = 'running' THEN 'canceling' ELSE status END,
 ended_at = CASE WHEN ${isBetween} THEN pg_catalog.clock_timestamp() END,
 error = CASE WHEN ${isBetween} THEN ${jsonLiteral(error)} END
 WHERE id = ${literal(id)} AND status NOT IN ${endedStatuses} RETURNING id AS lockkeeper_run`;
}

/** One row of {@link selectRuns}; the table may be of an earlier build. */
export function readRun(row: Row): RunRecord {
  return {
    id: String(row["id"]),
    target: String(row["target"]),
    stream: String(row["stream"]),
    action: row["action"] as RunAction,
    status: row["status"] as RunStatus,
    outcome: row["outcome"] as RunOutcome | null,
    trigger: row["trigger"] as RunTrigger,
    caller: row["caller"] as Caller,
    releaseDigest: row["release_digest"] as string | null,
    releaseVersion: row["release_version"] === null ? null : Number(row["release_version"]),
    fromVersion: row["from_version"] as string | null,
    toVersion: row["to_version"] as string | null,
    progress: {
      applied: Number(row["applied"]),
      total: Number(row["total"]),
      current: row["current"] as string | null,
    },
    labels: row["labels"] as Readonly<Record<string, string>>,
    cancelRequested: row["cancel_requested"] === true,
    attempt: Number(row["attempt"] ?? 0),
    createdAt: readInstant(row["created_at"]),
    startedAt: row["started_at"] === null ? null : readInstant(row["started_at"]),
    endedAt: row["ended_at"] === null ? null : readInstant(row["ended_at"]),
    backup: (row["backup"] ?? null) as BackupRecord | null,
    error: row["error"] as EntryError | null,
  };
}
