import { RunnerError } from "../../error.ts";
import type { Connection, ConnectionPool } from "./connection.ts";
import { databaseFailure } from "./failure.ts";

/** milliseconds in which a pooler has to find a connection to the server for each of ours */
const slotPatienceMs = 5_000;

/** A pooler answers with the process id of its choice at start-up, and with the backend's own in a query. */
export async function isThroughPooler(connection: Connection): Promise<boolean> {
  const [result] = await connection.send("SELECT pg_catalog.pg_backend_pid() AS pid");
  return connection.processId !== Number(result?.rows[0]?.["pid"]);
}

/**
 * Makes sure that a pooler in transaction mode lets us have `needed` transactions open at once (`protocol.md` 12):
 * with fewer a run would wait for itself, or could not say that it is alive.
 *
 * @throws RunnerError `POOL_TOO_SMALL`
 */
export async function assertFreeSlots(
  pool: ConnectionPool,
  needed: number,
  shownUrl: string,
  signal: AbortSignal,
): Promise<void> {
  const patience = AbortSignal.timeout(slotPatienceMs);
  const both = AbortSignal.any([signal, patience]);
  const connections: Connection[] = [];
  try {
    for (let n = 0; n < needed; n += 1) {
      const connection = await pool.connect(both);
      connections.push(connection);
      await connection.send("BEGIN", both);
    }
  } catch (cause) {
    signal.throwIfAborted();
    if (!patience.aborted) throw databaseFailure(cause, shownUrl);
    throw new RunnerError(
      "POOL_TOO_SMALL",
      `${shownUrl}: the pooler before the database has no ${needed} free connections for this run`,
      {
        hint: `raise its pool size (PgBouncer: default_pool_size) to at least ${needed} beside what the application needs, or connect past it (directUrl)`,
        fields: { needed },
        cause,
      },
    );
  } finally {
    for (const connection of connections) {
      if (!connection.isLost()) await connection.send("ROLLBACK").catch(() => undefined);
      connection.release();
    }
  }
}
