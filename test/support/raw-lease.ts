import type pg from "pg";
import { acquire, fence, type LeaseKey } from "../../src/driver/postgres/lease.ts";
import { tableNames } from "../../src/driver/postgres/tables.ts";
import { transactionMessage } from "../../src/driver/postgres/transaction.ts";
import { rawStep, settings } from "./steps.ts";

/**
 * The lease without a driver, statement by statement, and two weaker protocols: what finds nothing wrong with those is
 * no check (`protocol.md`, negative controls).
 */

/** The tables of every raw lease. */
export const t = tableNames("lockkeeper");

/** How a protocol differs from ours. */
export interface Weakness {
  /** a fence as one might write it: it locks, but only gives no row when the lease is lost */
  readonly silentFence?: boolean;
  /** take-over by a plain UPDATE, which needs that {@link dropIndex} was called */
  readonly plainTakeOver?: boolean;
}

/** Takes away what makes every change of the token wait for a fenced transaction. */
export const dropIndex = `DROP INDEX ${t.schema}.streams_name_token`;

/** Tries once for the lease of a stream whose row is there; its token, or undefined. */
export async function take(
  client: pg.Client,
  { stream, runId, leaseMs }: { readonly stream: string; readonly runId: string; readonly leaseMs: number },
  weakness: Weakness = {},
): Promise<number | undefined> {
  const plain = `UPDATE ${t.streams} SET token = token + 1, run_id = '${runId}', holder = '${runId}', expires_at = clock_timestamp() + interval '${leaseMs} milliseconds'
   WHERE name = '${stream}' AND (holder IS NULL OR expires_at < clock_timestamp()) RETURNING token AS lockkeeper_token`;
  const results: unknown = await client.query(
    weakness.plainTakeOver === true
      ? plain
      : acquire(t, { stream, runId, holder: runId, leaseMs, targetId: "t" }, "SELECT 1"),
  );
  const rows = ([results].flat() as readonly pg.QueryResult<{ lockkeeper_token?: string }>[]).flatMap(
    (result) => result.rows,
  );
  const token = rows.find((row) => row.lockkeeper_token !== undefined)?.lockkeeper_token;
  return token === undefined ? undefined : Number(token);
}

/** The message that applies one body as migration `seq`. */
export function message(key: LeaseKey, seq: number, sql: string, weakness: Weakness = {}): string {
  const { text } = transactionMessage([rawStep(sql, { seq })], {
    t,
    key,
    settings,
    leaseMs: 10_000,
    isPooled: false,
    facts: { isLinux: true },
    inStep: null,
  });
  return weakness.silentFence === true ? text.replaceAll(fence(t, key), silentFence(key)) : text;
}

function silentFence(key: LeaseKey): string {
  return `SELECT 1 FROM ${t.streams} WHERE name = '${key.stream}' AND token = ${key.token} AND run_id = '${key.runId}' FOR KEY SHARE`;
}
