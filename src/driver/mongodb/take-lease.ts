import { setTimeout as sleep } from "node:timers/promises";

import type { Binary } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { LeaseOptions, Orphan } from "../driver.ts";
import type { LeaseHolder } from "../stream-state.ts";
import { within, type MongoDatabase } from "./database.ts";
import type { LeaseDocument } from "./documents.ts";
import { expiryOf, insertStream, takeFree, takeNew, takeSeen, type Asker } from "./lease.ts";
import { cancelOrphans, findOrphan } from "./orphan.ts";
import { readCancel } from "./runs.ts";
import { readStream, type SeenStream } from "./state.ts";

/** A lease that was just taken. */
export interface TakenLease {
  readonly lease: LeaseDocument;
  /** `performance.now()` before it was asked for */
  readonly acquiredAt: number;
  /** of the driver's session that the lease names for its holder */
  readonly session: Binary | undefined;
  /** the stream as it was looked at, where nobody has had the lease since; see `stillSeen` */
  readonly seen: SeenStream | undefined;
}

/** milliseconds between two looks at a lease that another holds */
const pollMs = { shortest: 50, longest: 1_000 };
/** milliseconds in which the server answers to a try, also when the run is to stop meanwhile: cut off, it would leave a lease that nobody holds */
const tryMs = 10_000;

/**
 * Takes the lease of a stream, or waits for it: who waits looks at it now and then, with jitter, and tries only when it
 * says that trying may succeed.
 *
 * @param looked - the stream as it was a moment ago
 * @throws RunnerError `LEASE_HELD` - another still has it after `options.waitMs`; `CANCELED` - somebody asked the run to stop
 */
export async function takeLease(
  database: MongoDatabase,
  options: LeaseOptions,
  leaseMs: number,
  looked: SeenStream | undefined,
): Promise<TakenLease> {
  const { stream, run, holder, signal } = options;
  const session = database.hasTransactions ? nextSession(database) : undefined;
  const asker = { stream, runId: run.id, holder, leaseMs, session };
  signal.throwIfAborted();
  if (looked !== undefined) {
    const acquiredAt = performance.now();
    const lease = isLeftBehind(looked) ? undefined : await tryAsSeen(database, asker, looked);
    if (lease !== undefined) return { lease, acquiredAt, session, seen: looked };
  }
  const giveUpAt = performance.now() + options.waitMs;
  let seen: SeenStream | undefined;
  for (let delayMs = pollMs.shortest; ; delayMs = Math.min(delayMs * 1.5, pollMs.longest)) {
    signal.throwIfAborted();
    const orphan = await lookForOrphan(database, options, seen);
    const acquiredAt = performance.now();
    // Of what was looked at, something has changed: perhaps it is done, and the lease is not needed any more.
    const isToLook = seen === undefined && looked !== undefined;
    const taken = orphan === undefined && !isToLook ? await tryToTake(database, asker, seen) : undefined;
    if (taken !== undefined) return { lease: taken, acquiredAt, session, seen: undefined };
    const wasFree = seen !== undefined && isFree(seen);
    seen = await within(() => readStream(database, stream, signal), signal);
    if (!seen.state.exists) {
      // Somebody has the lease, and has not come so far yet, or died before.
      await database.prepare(signal);
      await within(() => insertStream(database, stream, options.targetId), signal);
      seen = await within(() => readStream(database, stream, signal), signal);
    }
    options.assertStillWanted?.(seen.state);
    if (isFree(seen) && !wasFree) continue;
    if (seen.state.lease !== null) options.onWaiting(seen.state.lease);
    await assertNotCanceled(database, options);
    if (performance.now() >= giveUpAt)
      throw heldBy(
        seen.state.lease,
        orphan,
        `and did not finish within ${Math.round(options.waitMs / 1000)} s`,
      );
    await sleep(delayMs * (0.5 + Math.random()), undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/**
 * The driver's session that its next transaction will have: its pool lends the one first that it was given back last. Were it
 * another after all, that would be named then, at the cost of a write.
 */
function nextSession({ client }: MongoDatabase): Binary | undefined {
  const session = client.startSession();
  const id = session.id?.id;
  void session.endSession();
  return id;
}

/** Whether nobody holds the lease, or it has expired. */
export function isFree({ lease, state }: SeenStream): boolean {
  return lease === undefined || lease.runId === null || expiryOf(lease) < state.now;
}

/** Whether whoever had the lease last did not give it back: what he sent may still be under way. */
export function isLeftBehind({ lease }: SeenStream): boolean {
  return lease !== undefined && (lease.runId !== null || lease.wasTaken === true);
}

/** Who has seen nothing yet tries all the same: mostly the lease is free, and then one write is all. */
async function tryToTake(
  database: MongoDatabase,
  asker: Asker,
  seen: SeenStream | undefined,
): Promise<LeaseDocument | undefined> {
  if (seen?.lease !== undefined) return tryAsSeen(database, asker, seen);
  return within(() => takeFree(database, asker), AbortSignal.timeout(tryMs));
}

/** Takes the lease only where nobody has had it since it was seen to be free. */
async function tryAsSeen(
  database: MongoDatabase,
  asker: Asker,
  seen: SeenStream,
): Promise<LeaseDocument | undefined> {
  const { lease } = seen;
  if (!isFree(seen)) return undefined;
  const take = () => (lease === undefined ? takeNew(database, asker) : takeSeen(database, asker, lease));
  return within(take, AbortSignal.timeout(tryMs));
}

/** The lease could be had, but for a command of whoever had it last. */
async function lookForOrphan(
  database: MongoDatabase,
  { stream, orphans, onOrphan, signal }: LeaseOptions,
  seen: SeenStream | undefined,
): Promise<Orphan | undefined> {
  if (seen === undefined || !isFree(seen) || !isLeftBehind(seen) || seen.lease === undefined)
    return undefined;
  const search = { stream, throughToken: seen.lease.token, unfinished: seen.state.unfinished };
  const found = await findOrphan(database, search, signal);
  if (found === undefined) return undefined;
  const isCanceled = orphans === "cancel" && (await cancelOrphans(database, search, signal)) > 0;
  const orphan = { ...found, isCanceled };
  onOrphan(orphan);
  return orphan;
}

/** A run that waits has no heartbeat that would tell it. */
async function assertNotCanceled(database: MongoDatabase, { run, signal }: LeaseOptions): Promise<void> {
  const reason = await within(() => readCancel(database, run.id), signal);
  if (reason !== undefined) throw new RunnerError("CANCELED", `the run was asked to stop: ${reason}`);
}

function heldBy(lease: LeaseHolder | null, orphan: Orphan | undefined, why: string): RunnerError {
  if (orphan !== undefined) {
    const { runId, since } = orphan;
    const whose = runId === null ? "an earlier run" : `run ${runId}, which has died,`;
    return new RunnerError(
      "LEASE_HELD",
      `a command of ${whose} is still under way on the server (since ${since.toISOString()}) ${why}`,
      {
        hint: "wait for it (--wait), or have it cancelled (--orphans cancel)",
        fields: { ...(runId === null ? {} : { run: runId }), since: since.toISOString() },
      },
    );
  }
  if (lease === null)
    return new RunnerError("LEASE_HELD", `another run holds the lease ${why}`, {
      hint: "wait for it (--wait)",
    });
  const { runId: run, holder, acquiredAt } = lease;
  const since = acquiredAt.toISOString();
  return new RunnerError("LEASE_HELD", `run ${run} on ${holder}, since ${since}, holds the lease ${why}`, {
    hint: "wait for it (--wait), or see what it does with status",
    fields: { run, holder, since },
  });
}
