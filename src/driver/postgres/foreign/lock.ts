import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";

import { RunnerError } from "../../../error.ts";
import { placeName, type ForeignPlace } from "../../../history/foreign.ts";
import type { ForeignLockOptions } from "../../foreign.ts";
import { firstValue, type PostgresDatabase } from "../database.ts";
import type { Connection, ConnectionPool } from "../connection.ts";
import { databaseFailure } from "../failure.ts";
import { begin } from "../lease.ts";
import { assertFreeSlots, isThroughPooler } from "../pooler.ts";
import { identifier, literal } from "../tables.ts";

/** milliseconds between two tries */
const pollMs = { shortest: 25, longest: 1_000 };

/** transactions that a run in step has open at once: this one beside its work and its heartbeats */
const slotsInStep = 3;

/** golang-migrate: `advisoryLockIDSalt` of its database/util.go */
const golangMigrateSalt = 1_486_364_155;
/** goose: `DefaultLockID` of its lock package */
const gooseLock = 4_097_083_626n;
/** Atlas: FNV-1 of `atlas_migrate_execute` */
const atlasLock = 2_686_470_616n;
/** node-pg-migrate: `PG_MIGRATE_LOCK_ID` */
const nodePgMigrateLock = 7_241_865_325_823_964n;
/** Flyway: the letters of its name as one number, to which the hash of the table's name is added */
const flywayLock = 0x46_6c_79_77_61_79n;
/** Rails: `MIGRATOR_SALT` of ActiveRecord, times the checksum of the database's name */
const railsSalt = 2_053_462_845n;

/**
 * Runs `work` while the tool's advisory locks are held, by a transaction on a connection of its own: so they go with
 * it, also behind a pooler, and hold no snapshot that an index build would wait for.
 */
export async function withForeignLock<T>(
  database: PostgresDatabase,
  pool: ConnectionPool,
  place: ForeignPlace,
  options: ForeignLockOptions,
  work: () => Promise<T>,
): Promise<T> {
  const { signal } = options;
  const holder = await pool.connect(signal);
  let watch: NodeJS.Timeout | undefined;
  try {
    const keys = await takeLock(database, pool, holder, place, options).catch((cause: unknown) => {
      signal.throwIfAborted();
      throw databaseFailure(cause, database.shownUrl);
    });
    if (place.tool === "golang-migrate")
      watch = setInterval(() => void cancelKnots(database, keys), pollMs.longest).unref();
    return await work();
  } finally {
    clearInterval(watch);
    // By word, not only by closing: the server may notice a closed connection when the next one has already looked.
    if (!holder.isLost()) await holder.send("ROLLBACK").catch(() => undefined);
    holder.release();
  }
}

async function takeLock(
  database: PostgresDatabase,
  pool: ConnectionPool,
  holder: Connection,
  place: ForeignPlace,
  { waitMs, signal }: ForeignLockOptions,
): Promise<readonly bigint[]> {
  if (await isThroughPooler(holder)) await assertFreeSlots(pool, slotsInStep, database.shownUrl, signal);
  const facts = await holder.send("SELECT pg_catalog.current_database() AS lockkeeper_name", signal);
  const keys = foreignLockKeys(place, String(firstValue(facts, "lockkeeper_name")));
  const giveUpAt = performance.now() + waitMs;
  for (let delayMs = pollMs.shortest; ; delayMs = Math.min(delayMs * 1.5, pollMs.longest)) {
    if (await tryLock(holder, keys, place, signal)) return keys;
    await holder.send("ROLLBACK", signal);
    if (performance.now() >= giveUpAt) throw heldByTool(place, waitMs);
    await sleep(delayMs * (0.5 + Math.random()), undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

async function tryLock(
  holder: Connection,
  keys: readonly bigint[],
  place: ForeignPlace,
  signal: AbortSignal,
): Promise<boolean> {
  const tries = keys.map(
    (key) => `SELECT pg_catalog.pg_try_advisory_xact_lock(${key}::bigint) AS lockkeeper_locked`,
  );
  const results = await holder.send(
    [begin, "SET LOCAL idle_in_transaction_session_timeout = 0", ...tries].join("; "),
    signal,
  );
  const answers = results.flatMap(({ rows }) => rows).filter((row) => "lockkeeper_locked" in row);
  if (!answers.every((row) => row["lockkeeper_locked"] === true)) return false;
  return place.tool !== "goose" || !(await isGooseLeaseHeld(holder, place, signal));
}

/** goose's other way of locking, a table with a lease. It is looked at, not taken: it would have to be renewed. */
async function isGooseLeaseHeld(
  holder: Connection,
  { schema }: ForeignPlace,
  signal: AbortSignal,
): Promise<boolean> {
  const there = await holder.send(
    `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ${literal(schema)} AND c.relname = 'goose_lock') AS lockkeeper_there`,
    signal,
  );
  if (firstValue(there, "lockkeeper_there") !== true) return false;
  const held = await holder.send(
    `SELECT EXISTS (SELECT FROM ${identifier(schema)}.goose_lock WHERE locked AND lease_expires_at > pg_catalog.clock_timestamp()) AS lockkeeper_held`,
    signal,
  );
  return firstValue(held, "lockkeeper_held") === true;
}

/**
 * golang-migrate waits for its lock inside a query, whose snapshot an index build of ours would wait for: a knot through
 * this very process, which the server's search for deadlocks does not see. What waits for us, and has somebody wait for
 * it, is canceled; it says so, and can be started again.
 */
async function cancelKnots(database: PostgresDatabase, keys: readonly bigint[]): Promise<void> {
  const waiting = `SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND NOT l.granted AND l.objsubid = 1
 AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
 AND (l.classid::bigint << 32 | l.objid::bigint) IN (${keys.join(", ")})`;
  const message = `SELECT pg_catalog.pg_cancel_backend(w.pid) FROM (${waiting}) w
 WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND w.pid = ANY (pg_catalog.pg_blocking_pids(a.pid)))`;
  // Of another role it may not be ours to cancel: then a person has to.
  await database.rows(message, AbortSignal.timeout(pollMs.longest * 5)).catch(() => undefined);
}

/** The numbers of the advisory locks that a tool takes, for its table in this database; none where it takes none. */
export function foreignLockKeys({ tool, schema, table }: ForeignPlace, database: string): readonly bigint[] {
  switch (tool) {
    case "golang-migrate":
      // Its program names the database by the path of the URL, with the slash; its library without.
      return [`/${database}`, database].map((name) =>
        BigInt(Math.imul(crc32(`${schema}\0${table}\0${name}`), golangMigrateSalt) >>> 0),
      );
    case "goose":
      return [gooseLock];
    case "atlas":
      return [atlasLock];
    case "node-pg-migrate":
      return [nodePgMigrateLock];
    case "flyway":
      return [flywayLock + BigInt(javaHash(`${identifier(schema)}.${identifier(table)}`))];
    case "rails":
      return [railsSalt * BigInt(crc32(database))];
    case "dbmate":
    case "umzug":
    case "migrate-mongo":
      return [];
  }
}

/** `String.hashCode` of Java. */
function javaHash(text: string): number {
  let hash = 0;
  for (let index = 0; index < text.length; index += 1)
    hash = (Math.imul(31, hash) + text.charCodeAt(index)) | 0;
  return hash;
}

function heldByTool(place: ForeignPlace, waitMs: number): RunnerError {
  const { tool } = place;
  return new RunnerError(
    "LEASE_HELD",
    `${tool} holds its lock on ${placeName(place)}, and did not finish within ${Math.round(waitMs / 1000)} s`,
    {
      hint: `wait for it (--wait); if no ${tool} runs any more, look for its session in pg_locks and end that`,
      fields: { tool, table: placeName(place) },
    },
  );
}
