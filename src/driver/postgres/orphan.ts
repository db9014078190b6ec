import type { Orphan, OrphanPolicy } from "../driver.ts";
import type { Row } from "./connection.ts";
import { instantColumn, readInstant } from "./instant.ts";
import { streamMark, workerLock } from "./lease.ts";
import { literal, type TableNames } from "./tables.ts";

/**
 * Statements that outlived their runner (`protocol.md` 10): the lease has expired, and a backend still works. They are
 * found by the mark that their message begins with, also behind a pooler; on direct connections the worker's
 * advisory lock names its session as well, whatever it does.
 */

/** What is looked for, and what is done about it. */
export interface OrphanSearch {
  readonly stream: string;
  /** SQL: the greatest token whose statements are orphans; NULL: none is one */
  readonly throughToken: string;
  /** milliseconds after which a session that holds the worker's lock and does nothing belongs to a process that is frozen or gone */
  readonly idleMs: number;
  readonly policy: OrphanPolicy;
}

/** A stream's orphans while nobody alive has its lease: NULL, so none, as soon as somebody has. */
export function tokenOfDead(t: TableNames, stream: string): string {
  return `(SELECT token FROM ${t.streams} WHERE name = ${literal(stream)} AND (holder IS NULL OR expires_at < pg_catalog.clock_timestamp()))`;
}

/**
 * One row for each orphan, for {@link readOrphan}. What is cancelled is so in the moment in which it is seen: behind a
 * pooler the backend may be another client's in the next. A session that does nothing is ended in any case, because
 * there is nothing to wait for; after a cancelled statement it may do so in the middle of a failed transaction.
 */
export function selectOrphans({ stream, throughToken, idleMs, policy }: OrphanSearch): string {
  const lock = `SELECT l.pid FROM pg_catalog.pg_locks l, (SELECT ${workerLock(stream)} AS key) k
  WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.classid = ((k.key >> 32) & 4294967295)::oid AND l.objid = (k.key & 4294967295)::oid`;
  // A role may only end what is its own; a direct URL may name another.
  const end = `CASE WHEN NOT pg_catalog.pg_has_role(a.usesysid, 'MEMBER') THEN false WHEN a.state LIKE 'idle%' THEN pg_catalog.pg_terminate_backend(a.pid)${policy === "cancel" ? " ELSE pg_catalog.pg_cancel_backend(a.pid)" : " ELSE false"} END`;
  return `SELECT a.pid, ${instantColumn("coalesce(a.query_start, a.backend_start)", "since")}, m.token, ${end} AS canceled
 FROM pg_catalog.pg_stat_activity a CROSS JOIN LATERAL (SELECT substring(a.query FROM ${literal(`^${pattern(streamMark(stream))}(\\d{1,18})\\*/`)})::bigint AS token) m
 WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid() AND CASE
  WHEN a.state = 'active' THEN m.token <= ${throughToken}
  WHEN a.state LIKE 'idle%' THEN ${throughToken} IS NOT NULL AND a.state_change < pg_catalog.clock_timestamp() - interval '${idleMs} milliseconds' AND a.pid IN (${lock})
  ELSE false END ORDER BY a.query_start`;
}

/** One row of {@link selectOrphans}; `runs` tells the run of a token, as far as that is known. */
export function readOrphan(row: Row, runOf: (token: number) => string | null): Orphan {
  return {
    runId: row["token"] === null ? null : runOf(Number(row["token"])),
    pid: Number(row["pid"]),
    since: readInstant(row["since"]),
    isCanceled: row["canceled"] === true,
  };
}

/** The text as a regular expression. */
function pattern(text: string): string {
  return text.replaceAll(/[^\w:]/g, "\\$&");
}
