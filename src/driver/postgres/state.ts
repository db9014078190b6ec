import { appliedLength } from "../../history/entry.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import { freshState } from "../stream-state.ts";
import type { FailedRelease, Hold, LeaseHolder, StreamState } from "../stream-state.ts";
import type { Row } from "./connection.ts";
import { entryColumns, readEntry } from "./history.ts";
import { instantColumn, readInstant } from "./instant.ts";
import type { PreparedStatement } from "./prepared.ts";
import { literal, type TableNames } from "./tables.ts";

/** What the driver needs to know of the server besides the stream's state. */
export interface ServerFacts {
  /** through a pooler the process id that the start-up named is not that of the backend that answers */
  readonly backendPid: number;
  readonly versionNumber: number;
  readonly isReadOnly: boolean;
  /** `client_connection_check_interval` is an error on servers that are not Linux */
  readonly isLinux: boolean;
  /** off: a backslash in a plain string is an escape, so no scan of ours holds and nothing is batched */
  readonly standardStrings: boolean;
}

const facts = `${instantColumn("pg_catalog.clock_timestamp()", "now")}, pg_catalog.pg_backend_pid() AS backend,
 pg_catalog.current_setting('server_version_num') AS version_number, pg_catalog.current_setting('transaction_read_only') AS read_only,
 pg_catalog.current_setting('standard_conforming_strings') AS standard_strings, pg_catalog.version() LIKE '%linux%' AS linux`;

/** The server's facts alone, for a database that has none of our tables. */
export const selectFacts = `SELECT ${facts}`;

/** A down body that failed without any effect leaves everything as the entry before it says. */
const hadEffect =
  "NOT (direction = 'down' AND status = 'failed' AND statements_done = 0 AND checkpoint IS NULL)";

/** What counts for where the sequence stands. */
const hasPlace = "seq > 0 AND origin <> 'covered'";

/**
 * The stream's row, its newest entry that had an effect, the newest of those in the sequence, and the entry it stands at, in one statement.
 * The position comes from the history itself: there is no second count that could disagree.
 */
export function selectState(t: TableNames, stream: string): string {
  return stateQuestion(t).text({ stream: literal(stream) });
}

/** {@link selectState}, for whoever asks again. */
export function stateQuestion(t: TableNames): PreparedStatement<"stream"> {
  return {
    name: "lockkeeper_state",
    types: { stream: "text" },
    text: ({ stream }) => selectStateOf(t, stream),
  };
}

/** @param stream - its name, as SQL */
function selectStateOf(t: TableNames, stream: string): string {
  return `SELECT ${facts}, s.*, ${instantColumn("s.acquired_at", "acquired_at")}, ${instantColumn("s.expires_at", "expires_at")}, ${entryColumns("h", "last_")}, ${entryColumns("r", "repeatable_")}, q.repeatables, u.was_applied, p.version AS position_version, p.chain AS position_chain
 FROM (SELECT 1) one LEFT JOIN ${t.streams} s ON s.name = ${stream}
 LEFT JOIN LATERAL (SELECT * FROM ${t.history} WHERE stream = s.name AND ${hasPlace} AND ${hadEffect} ORDER BY id DESC LIMIT 1) h ON true
 LEFT JOIN LATERAL (SELECT * FROM ${t.history} WHERE stream = s.name AND seq = 0 ORDER BY id DESC LIMIT 1) r ON true
 LEFT JOIN LATERAL (SELECT pg_catalog.jsonb_object_agg(path, sha256) AS repeatables FROM (
  SELECT DISTINCT ON (path) path, sha256 FROM ${t.history} WHERE stream = s.name AND seq = 0 AND status = 'done' ORDER BY path, id DESC) d) q ON true
 LEFT JOIN LATERAL (SELECT status = 'done' AS was_applied FROM ${t.history} WHERE stream = s.name AND seq = h.seq AND direction = 'up' AND id < h.id
  ORDER BY id DESC LIMIT 1) u ON true
 LEFT JOIN LATERAL (SELECT version, chain FROM ${t.history} WHERE stream = s.name AND direction = 'up' AND status = 'done'
  AND seq = CASE WHEN h.direction = 'up' AND h.origin = 'checkpoint' AND h.status <> 'done' THEN 0
   WHEN h.direction = 'up' AND h.status = 'done' OR h.direction = 'down' AND h.status <> 'done' AND u.was_applied THEN h.seq ELSE h.seq - 1 END
  ORDER BY id DESC LIMIT 1) p ON true`;
}

/** The server's facts in a row of {@link selectFacts} or {@link selectState}. */
export function readFacts(row: Row): ServerFacts {
  return {
    backendPid: Number(row["backend"]),
    versionNumber: Number(row["version_number"]),
    isReadOnly: row["read_only"] === "on",
    isLinux: row["linux"] === true,
    standardStrings: row["standard_strings"] === "on",
  };
}

/** One row of {@link selectState}. */
export function readState(row: Row): StreamState {
  if (row["name"] === null) return freshState(readInstant(row["now"]));
  const last = row["last_id"] === null ? undefined : readEntry(row, "last_");
  const repeatable = row["repeatable_id"] === null ? undefined : readEntry(row, "repeatable_");
  const newest = (repeatable?.id ?? 0) > (last?.id ?? 0) ? repeatable : last;
  const digest = row["release"] as string | null;
  return {
    exists: true,
    environment: row["environment"] as string | null,
    targetId: row["target_id"] as string | null,
    highWaterMark:
      digest === null ? null : { epoch: Number(row["epoch"]), version: Number(row["version"]), digest },
    completed: row["completed"] as string | null,
    unfinished: newest === undefined || newest.status === "done" ? null : newest,
    position: {
      length: appliedLength(last, row["was_applied"] === true),
      chain: row["position_chain"] as string | null,
      version: row["position_version"] as string | null,
    },
    repeatables: (row["repeatables"] ?? {}) as Readonly<Record<string, string>>,
    held: row["held"] as Hold | null,
    failed: row["failed"] as FailedRelease | null,
    paused: row["paused"] === true,
    rootVersion: numberOf(row["root_version"]),
    inStep: (row["in_step"] ?? null) as ForeignPlace | null,
    lease: readHolder(row),
    now: readInstant(row["now"]),
  };
}

/** A column that a table of an earlier build does not have yet is as one that is NULL. */
function numberOf(value: unknown): number | null {
  return value === null || value === undefined ? null : Number(value);
}

function readHolder(row: Row): LeaseHolder | null {
  const holder = row["holder"] as string | null;
  if (holder === null) return null;
  return {
    holder,
    runId: String(row["run_id"]),
    token: Number(row["token"]),
    acquiredAt: readInstant(row["acquired_at"]),
    expiresAt: readInstant(row["expires_at"]),
  };
}
