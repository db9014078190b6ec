import { setTimeout as sleep } from "node:timers/promises";

import type { Binary } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { LeaseOptions } from "../driver.ts";
import { commandError, errorCode, isConflict } from "./command-error.ts";
import { within, type MongoDatabase } from "./database.ts";
import type { LeaseDocument, StreamDocument } from "./documents.ts";
import { isAway } from "./failure.ts";
import { followFence, leaseLost, raiseFence, type LeaseKey } from "./lease.ts";

/** milliseconds that one try to raise the fence waits for an open transaction of an earlier holder */
const raiseMs = 1_000;

/** How a fence is raised; see {@link passOn}. */
export interface PassOnOptions extends Pick<LeaseOptions, "waitMs" | "targetId"> {
  /** says until when the token is ours */
  readonly signal: AbortSignal;
  /** the stream was seen to have no document */
  readonly isNew?: boolean;
}

/** The fence is raised. */
export interface PassedOn {
  /** the key from now on */
  readonly key: LeaseKey;
  /** the stream's document before that */
  readonly before: StreamDocument;
}

/**
 * Raises the fence to a new token. What an earlier holder has in an open transaction the server is told to end, by the
 * sessions that the lease names; where it does not, it is waited for, for `transactionLifetimeLimitSeconds` at most.
 *
 * @throws RunnerError `LEASE_HELD` - it did not end within `options.waitMs`; `LEASE_LOST`
 */
export async function passOn(
  database: MongoDatabase,
  taken: LeaseKey,
  sessions: LeaseDocument["sessions"],
  { waitMs, signal, targetId, isNew = false }: PassOnOptions,
): Promise<PassedOn> {
  let isAbsent = isNew;
  const giveUpAt = performance.now() + waitMs;
  for (let key = taken; ;) {
    signal.throwIfAborted();
    try {
      if (isAbsent) await database.prepare(signal);
      const first = isAbsent ? { targetId } : undefined;
      const raised = await within(() => raiseFence(database, key, raiseMs, first), signal);
      if (raised.kind === "raised") return { key, before: raised.before };
      isAbsent = raised.kind === "absent";
      if (raised.kind === "absent") continue;
      const next = await followFence(database, key, raised.token);
      if (next === undefined) throw leaseLost();
      key = next;
    } catch (cause) {
      const isOpen = commandError(cause)?.code === errorCode.maxTimeMsExpired || isConflict(cause);
      if (!isOpen && !isAway(cause)) throw cause;
      if (isOpen && performance.now() >= giveUpAt) throw transactionOpen(key, cause);
      if (isOpen && sessions !== undefined) await endTransactions(database, sessions, signal);
      await sleep(50 + Math.random() * 50, undefined, { signal }).catch(() => undefined);
    }
  }
}

/** Has the server end what is open in these sessions. A user may do so to its own without any right; what is refused is waited for. */
export async function endTransactions(
  { client }: MongoDatabase,
  sessions: readonly Binary[],
  signal: AbortSignal,
): Promise<void> {
  const killSessions = sessions.map((id) => ({ id }));
  await client
    .db("admin")
    .command({ killSessions }, { signal })
    .catch(() => undefined);
}

function transactionOpen({ stream }: LeaseKey, cause: unknown): RunnerError {
  return new RunnerError(
    "LEASE_HELD",
    `a transaction of an earlier run on stream "${stream}" is still open on the server`,
    {
      hint: "wait for it (--wait): the server ends it within transactionLifetimeLimitSeconds, mostly 60",
      cause,
    },
  );
}
