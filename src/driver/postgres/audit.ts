import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { type AuditEntry, firstLink } from "../../history/audit.ts";
import type { AuditLog, AuditQuery } from "../audit-log.ts";
import type { Connection, Row, StatementResult } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import { serverError } from "./failure.ts";
import { begin } from "./lease.ts";
import { sendPrepared, type PreparedStatement, type Write } from "./prepared.ts";
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
        const added = { statements: [], before: () => [], records: [{ text, run: null }] };
        const { entries } = await addLinked(database, connection, added, signal);
        return entries[0] as AuditEntry;
      }),
    read: async (query, signal) =>
      (await database.rows(selectEntries(database.t, query), signal)).map(readEntry),
  };
}

/** What one transaction adds to the log, and what it does before that. */
export interface Addition {
  /** those of what comes before that are sent often */
  readonly statements: readonly PreparedStatement[];
  /** statements that the records are about */
  before(write: Write): readonly string[];
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
  { statements, before, records }: Addition,
  signal: AbortSignal,
): Promise<{ readonly results: readonly StatementResult[]; readonly entries: readonly AuditEntry[] }> {
  const settings = [
    begin,
    "SET LOCAL synchronous_commit = on",
    `SET LOCAL lock_timeout = ${lockMs}`,
    // What is prepared keeps its plan: one that suits tables while they are small would go through all of them later.
    "SET LOCAL enable_seqscan = off",
  ];
  const append = appendLinked(database.t);
  const message = (write: Write): string =>
    [
      ...settings,
      ...before(write),
      ...records.map(({ text, run }) => write(append, { text: literal(text), run: literal(run) })),
      "COMMIT",
    ].join(";\n");
  const giveUpAt = performance.now() + patienceMs;
  for (let attempt = 1; ; attempt += 1) {
    try {
      const all = await database.withTables(connection, signal, () =>
        sendPrepared(connection, [...statements, append], message, signal),
      );
      const done = all.slice(settings.length, -1);
      const results = done.slice(0, done.length - records.length);
      const entries = done.slice(results.length).flatMap(({ rows }) => rows.map(readEntry));
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

/**
 * Adds one record where its run is there, or it has none. The server computes the link as `linkOf` does, so that nobody
 * else has time between reading and writing; a record that follows in the same transaction is linked to this one, because
 * whoever else takes a number after it waits for our commit.
 */
function appendLinked(t: TableNames): PreparedStatement<"text" | "run"> {
  return {
    name: "lockkeeper_audit",
    types: { text: "text", run: "text" },
    text: ({ text, run }) => `INSERT INTO ${t.audit} (${columns})
 SELECT coalesce(newest.seq, 0) + 1, p.link, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(p.link || E'\\n' || ${text}, 'UTF8')), 'hex'), ${text}
 FROM (SELECT 1) one LEFT JOIN (SELECT seq, sha256 FROM ${t.audit} ORDER BY seq DESC LIMIT 1) newest ON true,
  LATERAL (SELECT coalesce(newest.sha256, ${literal(firstLink)}) AS link) p
 WHERE ${run} IS NULL OR EXISTS (SELECT FROM ${t.runs} WHERE id = ${run}) RETURNING ${columns}`,
  };
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
