import { setTimeout as sleep } from "node:timers/promises";

import { isConnectionLoss } from "../failure.ts";
import { begin, fence } from "../lease.ts";
import { identifier } from "../tables.ts";
import { runMark } from "../transaction.ts";
import type { ProbeSite } from "./probe.ts";

/** An index without effect: what a concurrent build leaves that was cut off. Perhaps one that is being built right now. */
export interface InvalidIndex {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  /** with its schema, quoted */
  readonly table: string;
  readonly isInToast: boolean;
  /**
   * Another session holds on its table the lock that every concurrent build holds from before its index can be seen
   * until it is valid. Perhaps it is a vacuum; but without the lock nobody builds.
   */
  readonly mayBeBuilding: boolean;
}

/** How an index is called that is about to be dropped: nobody can take it for another, or make another of that name. */
export const doomedPrefix = "lockkeeper_drop_";

/** milliseconds between two looks at a table on which somebody builds */
const pollMs = 300;

/** Invalid indexes; `condition` is SQL about `x` (pg_index) and `i` (its pg_class). */
export async function invalidIndexes(
  { connection }: ProbeSite,
  condition: string,
): Promise<readonly InvalidIndex[]> {
  const [result] =
    await connection.send(`SELECT x.indexrelid::bigint::text AS oid, n.nspname AS schema, i.relname AS name,
 pg_catalog.format('%I.%I', tn.nspname, r.relname) AS relation, r.relkind = 't' AS toast, EXISTS (SELECT FROM pg_catalog.pg_locks l
  WHERE l.locktype = 'relation' AND l.relation = x.indrelid AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()) AS busy
 FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
 JOIN pg_catalog.pg_class r ON r.oid = x.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = r.relnamespace
 WHERE NOT x.indisvalid AND i.relkind = 'i' AND ${condition} ORDER BY x.indexrelid`);
  return (result?.rows ?? []).map((row) => ({
    oid: Number(row["oid"]),
    schema: String(row["schema"]),
    name: String(row["name"]),
    table: String(row["relation"]),
    isInToast: row["toast"] === true,
    mayBeBuilding: row["busy"] === true,
  }));
}

/**
 * Drops an invalid index that nobody builds. It is renamed first, under the lock that excludes builds: between our look
 * and the drop somebody might replace it by a good one of the same name.
 *
 * @returns false when it is not as it was seen, so that one has to look again
 */
export async function dropInvalid(site: ProbeSite, index: InvalidIndex): Promise<boolean> {
  const { bench, connection } = site;
  const isDoomed = index.isInToast || index.name.startsWith(doomedPrefix);
  const doomed = isDoomed ? index.name : `${doomedPrefix}${index.oid}`;
  if (!isDoomed && !(await rename(site, index, doomed))) return false;
  const quoted = `${identifier(index.schema)}.${identifier(doomed)}`;
  await bench.sendOn(connection, `${runMark(bench.key())}DROP INDEX CONCURRENTLY IF EXISTS ${quoted}`);
  return true;
}

/** Waits a moment, unless the run is to stop. */
export async function pauseAtBuild({ bench }: ProbeSite): Promise<void> {
  await sleep(pollMs * (0.5 + Math.random()), undefined, { signal: bench.kept.signal }).catch(
    () => undefined,
  );
  bench.kept.assertTrusted();
}

async function rename({ bench, connection }: ProbeSite, index: InvalidIndex, to: string): Promise<boolean> {
  const stillInvalid = `SELECT 1 / pg_catalog.count(*) FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid WHERE x.indexrelid = ${index.oid} AND NOT x.indisvalid AND i.relname = '${index.name.replaceAll("'", "''")}'`;
  try {
    await bench.sendOn(
      connection,
      `${runMark(bench.key())}${begin}; ${fence(bench.t, bench.key())}; SET LOCAL lock_timeout = '2s';
LOCK TABLE ONLY ${index.table} IN SHARE UPDATE EXCLUSIVE MODE; ${stillInvalid};
ALTER INDEX ${identifier(index.schema)}.${identifier(index.name)} RENAME TO ${identifier(to)}; COMMIT`,
    );
    return true;
  } catch (cause) {
    if (isConnectionLoss(cause) || connection.isLost()) throw cause;
    await connection.send("ROLLBACK");
    await bench.assertMayGoOn(cause);
    return false;
  }
}
