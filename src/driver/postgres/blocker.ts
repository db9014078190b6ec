import type { Row } from "./connection.ts";
import { instantColumn, readInstant } from "./instant.ts";
import type { LeaseKey } from "./lease.ts";
import { literal } from "./tables.ts";
import { runMark } from "./transaction.ts";

/** A session that keeps a body waiting for a lock, for the person on call. */
export interface Blocker {
  /** 0: a prepared transaction */
  readonly pid: number;
  /** who it is and what it does, without its query: `pid 4711 (psql, user app, idle in transaction since …)` */
  readonly description: string;
}

/** Looks while a message is under way. */
export interface BlockerWatch {
  /** Ends the looking and gives who was seen last. */
  stop(): Blocker | undefined;
}

/** milliseconds between two looks, at most: each takes the server's lock table for a moment */
const longestMs = 2_000;
/** looks in the time that a body waits for a lock, so that one of them falls into it */
const looks = 3;

/**
 * Looks now and then who keeps the message under way waiting for a lock. Only then can it be told: once the time-out
 * has struck, nobody waits any more.
 *
 * @param lockTimeoutMs - 0: nothing will strike, and nobody looks
 */
export function watchBlockers(lockTimeoutMs: number, look: () => Promise<Blocker | undefined>): BlockerWatch {
  let seen: Blocker | undefined;
  let isLooking = false;
  const onTime = async (): Promise<void> => {
    if (isLooking) return;
    isLooking = true;
    seen = (await look().catch(() => undefined)) ?? seen;
    isLooking = false;
  };
  const timer =
    lockTimeoutMs > 0
      ? setInterval(() => void onTime(), Math.min(lockTimeoutMs / looks, longestMs))
      : undefined;
  return {
    stop() {
      clearInterval(timer);
      return seen;
    },
  };
}

/**
 * Who blocks the run's statement, wherever it runs; no row while it does not wait. First those that work, or idle, and
 * not those that merely stand before us in the queue. A role that may not look into other sessions sees their pid, name and user.
 */
export function selectBlockers(key: LeaseKey): string {
  return `SELECT b.pid, a.application_name AS application, a.backend_type AS type, a.usename AS user, a.state,
 ${instantColumn("coalesce(a.xact_start, a.backend_start)", "since")}, count(*) OVER () AS blockers
 FROM pg_catalog.pg_stat_activity w CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) AS b (pid)
 LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
 WHERE w.datname = pg_catalog.current_database() AND w.pid <> pg_catalog.pg_backend_pid()
 AND w.wait_event_type = 'Lock' AND pg_catalog.starts_with(w.query, ${literal(runMark(key))})
 ORDER BY a.wait_event_type IS NOT DISTINCT FROM 'Lock', a.xact_start NULLS LAST LIMIT 1`;
}

/** One row of {@link selectBlockers}. */
export function readBlocker(row: Row): Blocker {
  const text = (name: string): string | undefined =>
    typeof row[name] === "string" && row[name] !== "" ? row[name] : undefined;
  const pid = Number(row["pid"]);
  if (pid === 0) return { pid, description: "a prepared transaction" };
  const [user, state] = [text("user"), text("state")];
  const told = [
    text("application") ?? text("type"),
    user && `user ${user}`,
    state && `${state} since ${readInstant(row["since"]).toISOString()}`,
  ].filter((part) => part !== undefined);
  const others = Number(row["blockers"]) - 1;
  return {
    pid,
    description: `pid ${pid} (${told.join(", ")})${others === 0 ? "" : ` and ${others} more`}`,
  };
}
