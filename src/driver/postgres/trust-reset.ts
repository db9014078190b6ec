import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { TrustReset } from "../driver.ts";
import type { StreamState } from "../stream-state.ts";
import type { Row } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import { begin } from "./lease.ts";
import { literal, type TableNames } from "./tables.ts";

/** tries of a reset while somebody else writes to the stream's row, and the milliseconds between them */
const mostTries = 20;
const delayMs = 50;

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
      if (isHeld || attempt === mostTries) throw stillHeld(state);
      await sleep(delayMs * (0.5 + Math.random()), undefined, { signal });
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
