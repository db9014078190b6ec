import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { type AuditEntry, firstLink } from "../../history/audit.ts";
import type { AuditLog, AuditQuery } from "../audit-log.ts";
import type { Connection, Row } from "./connection.ts";
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
      database.use(signal, (connection) => append(database, connection, text, signal)),
    read: async (query, signal) =>
      (await database.rows(selectEntries(database.t, query), signal)).map(readEntry),
  };
}

async function append(
  database: PostgresDatabase,
  connection: Connection,
  text: string,
  signal: AbortSignal,
): Promise<AuditEntry> {
  const giveUpAt = performance.now() + patienceMs;
  for (let attempt = 1; ; attempt += 1) {
    const row = await database.withTables(connection, signal, () =>
      tryToAppend(connection, appendEntry(database.t, text), signal),
    );
    if (row !== undefined) return readEntry(row);
    if (performance.now() > giveUpAt) throw crowdedOut(database.shownUrl);
    const longest = Math.min(attempt * backOffMs.step, backOffMs.longest);
    await sleep(Math.random() * longest, undefined, { signal });
  }
}

/** The entry's row, or none where another was quicker. */
async function tryToAppend(
  connection: Connection,
  message: string,
  signal: AbortSignal,
): Promise<Row | undefined> {
  try {
    const results = await connection.send(message, signal);
    return results.flatMap(({ rows }) => rows)[0];
  } catch (cause) {
    const code = serverError(cause)?.sqlstate;
    if (code === undefined) throw cause;
    await connection.send("ROLLBACK");
    if (code === sqlstate.lockNotAvailable) return undefined;
    throw cause;
  }
}

const columns = "seq, previous, sha256, text";

/**
 * One synchronous transaction that adds the entry where nobody else takes its number meanwhile; a row when it did. The
 * server computes the link as `linkOf` does, so that nobody else has time between reading and writing.
 */
function appendEntry(t: TableNames, text: string): string {
  return `${begin}; SET LOCAL synchronous_commit = on; SET LOCAL lock_timeout = ${lockMs};
WITH newest AS MATERIALIZED (SELECT seq, sha256 FROM ${t.audit} ORDER BY seq DESC LIMIT 1),
 link AS MATERIALIZED (SELECT coalesce((SELECT seq FROM newest), 0) + 1 AS seq,
  coalesce((SELECT sha256 FROM newest), ${literal(firstLink)}) AS previous, ${literal(text)}::text AS text)
INSERT INTO ${t.audit} (${columns})
SELECT seq, previous, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(previous || E'\\n' || text, 'UTF8')), 'hex'), text FROM link
ON CONFLICT DO NOTHING RETURNING ${columns};
COMMIT`;
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
