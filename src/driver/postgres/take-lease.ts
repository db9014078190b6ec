import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { RunAttempt } from "../../history/run.ts";
import type { LeaseOptions, Orphan } from "../driver.ts";
import type { StreamState } from "../stream-state.ts";
import type { Connection } from "./connection.ts";
import { firstValue, type PostgresDatabase } from "./database.ts";
import { acquire, insertStream, release, selectCancel } from "./lease.ts";
import { readOrphan, selectOrphans, tokenOfDead } from "./orphan.ts";
import { endDeadRuns, insertRun, readAttempt, startRun } from "./runs.ts";
import { assertTables, literal } from "./tables.ts";

/** A lease that was just taken. */
export interface TakenLease {
  readonly token: number;
  readonly attempt: RunAttempt;
  readonly backendPid: number;
  /** `performance.now()` before it was asked for */
  readonly acquiredAt: number;
}

/** milliseconds between two looks at a lease that another holds */
const pollMs = { shortest: 50, longest: 1_000 };
/** milliseconds in which the server answers to a try, also when the run is to stop meanwhile: cut off, it would leave a lease that nobody holds */
const tryMs = 10_000;
/** milliseconds: whoever trusts its lease no more begins nothing more, so what is idle then stays idle */
const idleMs = 1_000;

/**
 * Takes the lease of a stream, or waits for it. Nobody ever waits inside a query: who waits looks at the row now and
 * then, with jitter, and tries only when it says that trying may succeed.
 *
 * @throws RunnerError `LEASE_HELD` - another still has it after `options.waitMs`; `CANCELED` - somebody asked the run to stop;
 *   `RUN_ENDED` - it has ended already
 */
export async function takeLease(
  database: PostgresDatabase,
  connection: Connection,
  options: LeaseOptions,
  leaseMs: number,
): Promise<TakenLease> {
  const giveUpAt = performance.now() + options.waitMs;
  let isFree = true;
  let isNew = !database.hasTables;
  for (let delayMs = pollMs.shortest; ; delayMs = Math.min(delayMs * 1.5, pollMs.longest)) {
    options.signal.throwIfAborted();
    const acquiredAt = performance.now();
    const tried = isFree ? await tryWithTables(database, connection, options, { leaseMs, isNew }) : undefined;
    const hindrance = tried instanceof RunnerError ? tried : undefined;
    if (tried !== undefined && !(tried instanceof RunnerError)) return { ...tried, acquiredAt };
    const state = await database.readState(connection, options.stream, options.signal);
    isNew = !state.exists;
    if (isNew && hindrance === undefined) continue;
    options.assertStillWanted?.(state);
    const wasFree = isFree;
    isFree = state.lease === null || state.lease.expiresAt < state.now;
    if (isFree && !wasFree) continue;
    if (state.lease !== null) options.onWaiting(state.lease);
    const orphan = isFree ? await lookForOrphans(database, connection, options, state) : undefined;
    await assertNotCanceled(database, connection, options);
    if (performance.now() >= giveUpAt) {
      if (hindrance !== undefined && state.lease === null) throw hindrance;
      throw heldBy(state, orphan, `and did not finish within ${Math.round(options.waitMs / 1000)} s`);
    }
    await sleep(delayMs * (0.5 + Math.random()), undefined, { signal: options.signal }).catch(() =>
      options.signal.throwIfAborted(),
    );
  }
}

/** The lease could be had, but for a statement of whoever had it last; the oldest is given. */
async function lookForOrphans(
  { t }: PostgresDatabase,
  connection: Connection,
  { stream, orphans, onOrphan, signal }: LeaseOptions,
  { lease }: StreamState,
): Promise<Orphan | undefined> {
  const search = { stream, throughToken: tokenOfDead(t, stream), idleMs, policy: orphans };
  const [result] = await connection.send(selectOrphans(search), signal);
  const found = (result?.rows ?? []).map((row) =>
    readOrphan(row, (token) => (token === lease?.token ? lease.runId : null)),
  );
  for (const orphan of found) onOrphan(orphan);
  return found[0];
}

/** A run that waits has no heartbeat that would tell it. */
async function assertNotCanceled(
  database: PostgresDatabase,
  connection: Connection,
  { run, signal }: LeaseOptions,
): Promise<void> {
  const reason = firstValue(await connection.send(selectCancel(database.t, run.id), signal), "cancel_reason");
  if (typeof reason === "string") throw new RunnerError("CANCELED", `the run was asked to stop: ${reason}`);
}

/** What differs between tries. */
interface Try {
  readonly leaseMs: number;
  /** the stream has no row yet */
  readonly isNew: boolean;
}

/** As {@link tryLease}; what is in the way of bringing our tables up to date is waited for like a lease. */
async function tryWithTables(
  database: PostgresDatabase,
  connection: Connection,
  options: LeaseOptions,
  one: Try,
): Promise<Omit<TakenLease, "acquiredAt"> | RunnerError | undefined> {
  try {
    return await database.withTables(connection, options.signal, () =>
      tryLease(database, connection, options, one),
    );
  } catch (cause) {
    if (cause instanceof RunnerError && cause.code === "LEASE_HELD") return cause;
    throw cause;
  }
}

async function tryLease(
  { t }: PostgresDatabase,
  connection: Connection,
  options: LeaseOptions,
  { leaseMs, isNew }: Try,
): Promise<Omit<TakenLease, "acquiredAt"> | undefined> {
  const { stream, run, holder, targetId } = options;
  // By this very transaction: another executor of the same run may be the holder.
  const isHolder = `EXISTS (SELECT FROM ${t.streams} WHERE name = ${literal(stream)} AND run_id = ${literal(run.id)}
 AND xmin = pg_catalog.pg_current_xact_id_if_assigned()::xid)`;
  const also = [
    assertTables(t),
    endDeadRuns(t, stream, run.id, isHolder),
    startRun(t, run.id, isHolder),
    insertRun(t, run, "running", isHolder),
  ].join("; ");
  try {
    const asked = acquire(t, { stream, runId: run.id, holder, targetId, leaseMs }, also);
    // Committed by itself: whoever adds the same row waits for it no longer than for one write.
    const message = isNew ? `BEGIN; ${insertStream(t, stream)}; COMMIT; ${asked}` : asked;
    const results = await connection.send(message, AbortSignal.timeout(tryMs));
    const token = firstValue(results, "lockkeeper_token");
    if (token === undefined) return undefined;
    const row = results.flatMap(({ rows }) => rows).find((candidate) => "lockkeeper_attempt" in candidate);
    if (row === undefined) {
      await connection.send(release(t, { stream, token: Number(token), runId: run.id }));
      throw new RunnerError("RUN_ENDED", `run ${run.id} has ended already`, {
        hint: "ask for a new run",
        fields: { run: run.id },
      });
    }
    return {
      token: Number(token),
      attempt: readAttempt(row),
      backendPid: Number(firstValue(results, "lockkeeper_backend")),
    };
  } catch (cause) {
    await connection.send("ROLLBACK").catch(() => undefined);
    throw cause;
  }
}

function heldBy(state: StreamState, orphan: Orphan | undefined, why: string): RunnerError {
  const { lease } = state;
  if (orphan !== undefined) {
    const { runId, pid, since } = orphan;
    const whose = runId === null ? "an earlier run" : `run ${runId}, which has died,`;
    return new RunnerError(
      "LEASE_HELD",
      `a statement of ${whose} is still under way on the server (backend ${pid}, since ${since.toISOString()}) ${why}`,
      {
        hint: "wait for it (--wait), or have it cancelled (--orphans cancel)",
        fields: { ...(runId === null ? {} : { run: runId }), pid, since: since.toISOString() },
      },
    );
  }
  const who =
    lease === null
      ? "a statement of an earlier run"
      : `run ${lease.runId} on ${lease.holder}, since ${lease.acquiredAt.toISOString()},`;
  return new RunnerError("LEASE_HELD", `${who} holds the lease ${why}`, {
    hint: "wait for it (--wait), or see what it does with status",
    fields:
      lease === null ? {} : { run: lease.runId, holder: lease.holder, since: lease.acquiredAt.toISOString() },
  });
}
