import type { LeaseOptions } from "../driver.ts";
import type { LeaseTimes } from "../lease-keeper.ts";
import type { LeasedSession } from "../session.ts";
import type { ConnectionPool } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import { databaseFailure } from "./failure.ts";
import { holdLease } from "./hold-lease.ts";
import { takeLease } from "./take-lease.ts";
import { Workbench } from "./workbench.ts";

/** What of a driver works under a lease. */
export interface LeasedParts {
  readonly database: PostgresDatabase;
  /** past the pooler */
  readonly direct: ConnectionPool | undefined;
  readonly times: LeaseTimes;
}

/** `Driver.withLease`. All that executes is loaded with this file, and only then: most runs find nothing to do. */
export async function underLease<T>(
  parts: LeasedParts,
  options: LeaseOptions,
  work: (session: LeasedSession) => Promise<T>,
): Promise<T> {
  const { bench, acquiredAt } = await benchFor(parts, options);
  try {
    return await holdLease(parts.database, bench, acquiredAt, options.signal, work);
  } finally {
    bench.close();
  }
}

async function benchFor(
  { database, direct, times }: LeasedParts,
  options: LeaseOptions,
): Promise<{ bench: Workbench; acquiredAt: number }> {
  const connection = await database.pool.connect(options.signal);
  try {
    const taken = await takeLease(database, connection, options, times.leaseMs);
    const parts = {
      t: database.t,
      shownUrl: database.shownUrl,
      environment: options.environment,
      facts: await database.knownFacts(connection),
      isPooled: connection.processId !== taken.backendPid,
      times,
      pool: database.pool,
      directPool: direct ?? database.pool,
      orphans: options,
    };
    const key = { stream: options.stream, token: taken.token, runId: options.run.id };
    return { bench: new Workbench(parts, connection, key, taken.attempt), acquiredAt: taken.acquiredAt };
  } catch (cause) {
    // Nobody knows what the connection was in the middle of.
    connection.release(true);
    throw databaseFailure(cause, database.shownUrl);
  }
}
