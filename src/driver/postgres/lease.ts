import { literal, type TableNames } from "./tables.ts";

/**
 * The SQL of the lease, exactly as `protocol.md` 1 to 4 attacked it. One row a stream, never deleted, whose token only
 * grows; times are the database's. Everything is in messages of the simple protocol, safe behind a transaction pooler.
 */

/** Who holds, as every fenced write names it: token and run, never one alone. */
export interface LeaseKey {
  readonly stream: string;
  readonly token: number;
  readonly runId: string;
}

/** READ COMMITTED stated explicitly: under another default a fence could judge an old snapshot. */
export const begin = "BEGIN ISOLATION LEVEL READ COMMITTED";

/** Key of the advisory lock that closes the gap of `protocol.md` 9 on direct connections. It is only ever tried, never waited for. */
export function workerLock(stream: string): string {
  return `pg_catalog.hashtextextended(${literal(`lockkeeper/worker/${stream}`)}, 0)`;
}

/** How every message of a stream's runs begins, up to the token: by it a backend is found, also through a pooler. */
export function streamMark(stream: string): string {
  return `/*lockkeeper:${stream.replaceAll(/[^\w.-]/g, "_")}:`;
}

/**
 * Adds the stream's row; harmless when it is there. Names no index: of runners that do this at once, one may meet the
 * other's row in the index of the token first.
 */
export function insertStream(t: TableNames, stream: string): string {
  return `INSERT INTO ${t.streams} (name) VALUES (${literal(stream)}) ON CONFLICT DO NOTHING`;
}

/**
 * Takes the lease if it is free or has expired: one conditional write that waits for nobody. Its result has one row
 * (`lockkeeper_token`) when it was taken. The advisory lock is that of a stale holder's worker, whose statement may
 * still run; it is tried only when all else says that the lease is free. Behind a pooler nobody holds it, and there the
 * mark of a statement that is under way tells. `also` runs in the same transaction and may refer to the taken row.
 *
 * `synchronous_commit` is set because a role's default of `off` could give the same token out twice after a crash.
 */
export function acquire(
  t: TableNames,
  options: { stream: string; runId: string; holder: string; leaseMs: number; targetId: string },
  also: string,
): string {
  return `${begin}; SET LOCAL synchronous_commit = on;
WITH c AS MATERIALIZED (
 SELECT name FROM ${t.streams}
 WHERE name = ${literal(options.stream)} AND CASE WHEN holder IS NULL OR expires_at < pg_catalog.clock_timestamp()
  THEN pg_catalog.pg_try_advisory_xact_lock(${workerLock(options.stream)}) 
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datname = pg_catalog.current_database() AND a.state = 'active'
    AND a.pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(a.query, ${literal(streamMark(options.stream))})) ELSE false END
 FOR UPDATE SKIP LOCKED)
UPDATE ${t.streams} s SET token = s.token + 1, run_id = ${literal(options.runId)}, holder = ${literal(options.holder)},
 target_id = coalesce(s.target_id, ${literal(options.targetId)}), acquired_at = pg_catalog.clock_timestamp(),
 expires_at = pg_catalog.clock_timestamp() + ${milliseconds(options.leaseMs)},
 backend_pid = pg_catalog.pg_backend_pid(),
 backend_start = (SELECT backend_start FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()))
FROM c WHERE s.name = c.name RETURNING s.token AS lockkeeper_token, s.backend_pid AS lockkeeper_backend;
${also};
COMMIT`;
}

/** A holder's own new token, after it lost its connection: waits for its transaction that may still be going on. */
export function renewToken(t: TableNames, key: LeaseKey, leaseMs: number): string {
  return `${begin}; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = 0;
UPDATE ${t.streams} SET token = token + 1, expires_at = pg_catalog.clock_timestamp() + ${milliseconds(leaseMs)}
 WHERE ${isOurs(key)} RETURNING token AS lockkeeper_token;
COMMIT`;
}

/** Prolongs the lease, if it is still ours; does not conflict with a fence. Tells whether somebody asked the run to stop. */
export function heartbeat(t: TableNames, key: LeaseKey, leaseMs: number): string {
  return `UPDATE ${t.streams} SET expires_at = pg_catalog.clock_timestamp() + ${milliseconds(leaseMs)} WHERE ${isOurs(key)} RETURNING 1 AS ours`;
}

/** Whether somebody asked the run to stop, and why. */
export function selectCancel(t: TableNames, runId: string): string {
  return `SELECT cancel_reason FROM ${t.runs} WHERE id = ${literal(runId)} AND cancel_requested`;
}

/** Gives the lease back, if it is still ours. */
export function release(t: TableNames, key: LeaseKey): string {
  return `UPDATE ${t.streams} SET holder = NULL, run_id = NULL, expires_at = NULL, backend_pid = NULL, backend_start = NULL WHERE ${isOurs(key)}`;
}

/** Takes an expired lease from a dead holder, for `unlock`; the row with its new token, or none. Waits for nobody: a fence is a sign of life. */
export function forceRelease(t: TableNames, stream: string, runId: string): string {
  return `${begin}; SET LOCAL synchronous_commit = on;
WITH c AS MATERIALIZED (
 SELECT name FROM ${t.streams} WHERE name = ${literal(stream)} AND run_id = ${literal(runId)} AND expires_at < pg_catalog.clock_timestamp()
 FOR UPDATE SKIP LOCKED)
UPDATE ${t.streams} s SET token = s.token + 1, holder = NULL, run_id = NULL, expires_at = NULL, backend_pid = NULL, backend_start = NULL
FROM c WHERE s.name = c.name RETURNING s.token AS lockkeeper_token;
COMMIT`;
}

/**
 * The fence: first statement of every transaction that changes anything. Holds KEY SHARE on the row until the
 * transaction ends, so no one can take the token over meanwhile, and raises 22012 by itself when token and run are no
 * longer ours. One that merely gave no row would let the body run. Leaves no snapshot behind, by the simple protocol.
 */
export function fence(t: TableNames, key: LeaseKey): string {
  return `SELECT 1 / pg_catalog.count(*) FROM (SELECT 1 FROM ${t.streams} WHERE ${isOurs(key)} FOR KEY SHARE) f`;
}

/** Whether the lease is still ours, without a lock; a row when it is. */
export function selectOurs(t: TableNames, key: LeaseKey): string {
  return `SELECT 1 AS ours FROM ${t.streams} WHERE ${isOurs(key)}`;
}

/** Writes under the fence in one synchronous transaction. */
export function fenced(t: TableNames, key: LeaseKey, statements: string): string {
  return `${begin}; ${fence(t, key)}; SET LOCAL synchronous_commit = on; ${statements}; COMMIT`;
}

function isOurs(key: LeaseKey): string {
  return `name = ${literal(key.stream)} AND token = ${key.token} AND run_id = ${literal(key.runId)}`;
}

function milliseconds(ms: number): string {
  return `interval '${ms} milliseconds'`;
}
