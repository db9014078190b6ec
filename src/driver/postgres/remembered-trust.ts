import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { RootFile, RootState } from "../../release/anchor.ts";
import type { TrustReset } from "../driver.ts";
import type { StreamState } from "../stream-state.ts";
import type { Row } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import { begin, insertStream } from "./lease.ts";
import { literal, type TableNames } from "./tables.ts";

/** tries of a reset while somebody else writes to the stream's row, and the milliseconds between them */
const resetTries = 20;
const resetDelayMs = 50;

/** Roots that a stream was begun under, oldest first. */
export function selectRoots(t: TableNames, stream: string): string {
  return `SELECT version, document, bundles FROM ${t.roots} WHERE stream = ${literal(stream)} ORDER BY version`;
}

/** One row of {@link selectRoots}. */
export function readRoot(row: Row): RootFile {
  return {
    version: Number(row["version"]),
    document: String(row["document"]),
    bundles: String(row["bundles"]),
  };
}

/** Remembers roots that were proven just now; a version that is there is what was proven now. */
export function rememberRoots(t: TableNames, stream: string, root: RootState): readonly string[] {
  return root.files.map(
    ({ version, document, bundles }) =>
      `INSERT INTO ${t.roots} AS known (stream, version, document, bundles) VALUES (${literal(stream)}, ${version}, ${literal(document)}, ${literal(bundles)})
 ON CONFLICT (stream, version) DO UPDATE SET document = excluded.document, bundles = excluded.bundles
 WHERE (known.document, known.bundles) IS DISTINCT FROM (excluded.document, excluded.bundles)`,
  );
}

/** The assignment that raises a stream's root version, and never lowers it. */
export function raiseRootVersion({ version }: RootState): string {
  return `root_version = greatest(root_version, ${version})`;
}

/** Sets or ends a pause; a row when that changed anything. A heartbeat or a fence is in nobody's way. */
export function changePause(t: TableNames, stream: string, paused: boolean): string {
  const added = paused ? `${insertStream(t, stream)};` : "";
  return `${begin}; SET LOCAL synchronous_commit = on; ${added}
UPDATE ${t.streams} SET paused = ${paused} WHERE name = ${literal(stream)} AND paused <> ${paused} RETURNING 1 AS lockkeeper_paused;
COMMIT`;
}

/**
 * Makes a stream forget what it remembers of trust, and tells what that was. The token grows: a holder whose lease has
 * expired, and who might say it all once more, can write nothing any more.
 *
 * @throws RunnerError `LEASE_HELD`
 */
export async function resetTrust(
  database: PostgresDatabase,
  stream: string,
  what: { readonly releases: boolean },
  signal: AbortSignal,
): Promise<TrustReset> {
  const message = forgetTrust(database.t, stream, what.releases);
  return database.use(signal, async (connection) => {
    for (let attempt = 1; ; attempt += 1) {
      const results = await database.withTables(connection, signal, () => connection.send(message, signal));
      const row = results.flatMap(({ rows }) => rows)[0];
      if (row !== undefined) return readReset(row, what.releases);
      const state = await database.readState(connection, stream, signal);
      if (!state.exists) return { rootVersion: null, highWaterMark: null };
      const isHeld = state.lease !== null && state.lease.expiresAt > state.now;
      if (isHeld || attempt === resetTries) throw stillHeld(state);
      await sleep(resetDelayMs * (0.5 + Math.random()), undefined, { signal });
    }
  });
}

/** No row where the lease is held, or somebody has a lock on the stream's row: nobody waits. */
function forgetTrust(t: TableNames, stream: string, releases: boolean): string {
  const mark = releases ? ", epoch = NULL, version = NULL, release = NULL" : "";
  return `${begin}; SET LOCAL synchronous_commit = on;
WITH known AS MATERIALIZED (
 SELECT name, root_version, epoch, version, release FROM ${t.streams}
 WHERE name = ${literal(stream)} AND (holder IS NULL OR expires_at < pg_catalog.clock_timestamp())
 FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM ${t.roots} WHERE stream IN (SELECT name FROM known))
UPDATE ${t.streams} s SET token = s.token + 1, holder = NULL, run_id = NULL, expires_at = NULL, backend_pid = NULL, backend_start = NULL, root_version = NULL${mark}
FROM known WHERE s.name = known.name
RETURNING known.root_version AS known_root, known.epoch AS known_epoch, known.version AS known_version, known.release AS known_release;
COMMIT`;
}

function readReset(row: Row, releases: boolean): TrustReset {
  const digest = row["known_release"];
  const rank = { epoch: Number(row["known_epoch"]), version: Number(row["known_version"]) };
  return {
    rootVersion: row["known_root"] === null ? null : Number(row["known_root"]),
    highWaterMark: releases && typeof digest === "string" ? { ...rank, digest } : null,
  };
}

function stillHeld({ lease }: StreamState): RunnerError {
  const who = lease === null ? "a transaction of an earlier run" : `run ${lease.runId} on ${lease.holder}`;
  return new RunnerError("LEASE_HELD", `${who} is at work on this stream`, {
    hint: "wait until it has ended, or cancel it; then reset its trust",
    fields: lease === null ? {} : { run: lease.runId, holder: lease.holder },
  });
}
