import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { type AuditEntry, firstLink } from "../../history/audit.ts";
import type { AuditLog, AuditQuery } from "../audit-log.ts";
import type { Connection, Row, StatementResult } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import { serverError } from "./failure.ts";
import { begin } from "./lease.ts";
import { sqlstate } from "./sqlstate.ts";
import { literal, type TableNames } from "./tables.ts";

/** milliseconds in which an entry finds its place between those of other writers */
const patienceMs = 30_000;
/** milliseconds that one try waits for the entry before it to commit */
const lockMs = 2_000;
/** milliseconds between two tries, drawn from zero up to these: more for those who have lost often */
const backOffMs = { step: 4, longest: 100 };

/**
 * The audit log in its table. Nobody holds a lock for it: who writes links to the newest entry and takes the number after
 * it; of those who do so at once, the primary key lets one through, and the others link to his.
 *
 * What protects it is not the table's rights, for the role that may append also owns it: whoever changes, removes or
 * inserts an entry breaks the links of all after it, and whoever rewrites those, too, or cuts off the end, is found out
 * by the copies that every entry has in the runners' own log lines.
 */
export function auditLog(database: PostgresDatabase): AuditLog {
  return {
    append: (text, signal) =>
      database.use(signal, async (connection) => {
        const added = { before: [], records: [{ text, run: null }] };
        const { entries } = await addLinked(database, connection, added, signal);
        return entries[0] as AuditEntry;
      }),
    read: async (query, signal) =>
      (await database.rows(selectEntries(database.t, query), signal)).map(readEntry),
  };
}

/** What one transaction adds to the log, and what it does before that. */
export interface Addition {
  /** statements that the records are about */
  readonly before: readonly string[];
  readonly records: readonly NewRecord[];
}

/** A text to be linked to the one before it. */
export interface NewRecord {
  readonly text: string;
  /** only where this run's row is there by then; null: in any case */
  readonly run: string | null;
}

/**
 * One synchronous transaction that adds records, in their order, where nobody else takes their numbers meanwhile; else it
 * is rolled back and tried again.
 *
 * @returns results of the statements before, and the entries that were added
 * @throws RunnerError `AUDIT_UNAVAILABLE` - others were quicker all the time
 */
export async function addLinked(
  database: PostgresDatabase,
  connection: Connection,
  { before, records }: Addition,
  signal: AbortSignal,
): Promise<{ readonly results: readonly StatementResult[]; readonly entries: readonly AuditEntry[] }> {
  const settings = [begin, "SET LOCAL synchronous_commit = on", `SET LOCAL lock_timeout = ${lockMs}`];
  const statements = [...settings, ...before, appendLinked(database.t, records), "COMMIT"];
  const giveUpAt = performance.now() + patienceMs;
  for (let attempt = 1; ; attempt += 1) {
    try {
      const all = await database.withTables(connection, signal, () =>
        connection.send(statements.join(";\n"), signal),
      );
      const results = all.slice(settings.length);
      const entries = (results[before.length]?.rows ?? []).map(readEntry).toSorted((a, b) => a.seq - b.seq);
      return { results, entries };
    } catch (cause) {
      if (!crowded.has(serverError(cause)?.sqlstate ?? "")) throw cause;
      await connection.send("ROLLBACK");
    }
    if (performance.now() > giveUpAt) throw crowdedOut(database.shownUrl);
    const longest = Math.min(attempt * backOffMs.step, backOffMs.longest);
    await sleep(Math.random() * longest, undefined, { signal });
  }
}

/** Another was quicker, or is about to be. */
const crowded: ReadonlySet<string> = new Set([
  sqlstate.uniqueViolation,
  sqlstate.lockNotAvailable,
  sqlstate.deadlockDetected,
]);

const columns = "seq, previous, sha256, text";

/** The server computes each link as `linkOf` does, so that nobody else has time between reading and writing. */
function appendLinked(t: TableNames, records: readonly NewRecord[]): string {
  const values = records.map(
    ({ text, run }, index) =>
      `(${index}, ${literal(text)}::text, ${run === null ? "true" : `EXISTS (SELECT FROM ${t.runs} WHERE id = ${literal(run)})`})`,
  );
  return `WITH RECURSIVE newest AS MATERIALIZED (SELECT seq, sha256 FROM ${t.audit} ORDER BY seq DESC LIMIT 1),
 wanted AS MATERIALIZED (SELECT pg_catalog.row_number() OVER (ORDER BY place) AS place, text FROM (VALUES ${values.join(", ")}) v (place, text, is_wanted) WHERE is_wanted),
 linked (place, seq, previous, sha256, text) AS (
  SELECT 0::bigint, coalesce((SELECT seq FROM newest), 0), ''::text, coalesce((SELECT sha256 FROM newest), ${literal(firstLink)}), ''::text
  UNION ALL SELECT w.place, l.seq + 1, l.sha256, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(l.sha256 || E'\\n' || w.text, 'UTF8')), 'hex'), w.text
   FROM linked l JOIN wanted w ON w.place = l.place + 1)
INSERT INTO ${t.audit} (${columns}) SELECT ${columns} FROM linked WHERE place > 0 RETURNING ${columns}`;
}

function selectEntries(t: TableNames, { after, limit, newest = false }: AuditQuery): string {
  const order = newest ? "DESC" : "ASC";
  return `SELECT * FROM (SELECT ${columns} FROM ${t.audit} WHERE seq > ${after} ORDER BY seq ${order} LIMIT ${limit}) wanted ORDER BY seq`;
}

function readEntry(row: Row): AuditEntry {
  return {
    seq: Number(row["seq"]),
    previous: String(row["previous"]),
    sha256: String(row["sha256"]),
    text: String(row["text"]),
  };
}

function crowdedOut(shownUrl: string): RunnerError {
  return new RunnerError(
    "AUDIT_UNAVAILABLE",
    `${shownUrl}: other writers were quicker for ${patienceMs / 1000} s, and nothing was added to the audit log`,
    { hint: "try again; if it stays so, look what else writes to the audit log all the time" },
  );
}
