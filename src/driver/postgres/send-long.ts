import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { selectAtWork, watchAnswer } from "./answer-watch.ts";
import { readBlocker, selectBlockers, watchBlockers, type Blocker } from "./blocker.ts";
import {
  answerMs,
  type Connection,
  type ConnectionPool,
  type Row,
  type StatementResult,
} from "./connection.ts";
import type { LeaseKey } from "./lease.ts";
import { cancelRun } from "./transaction.ts";

/** The run that sends, and the pool for what has to be told or asked beside its busy connection. */
export interface Sender {
  readonly pool: ConnectionPool;
  /** the run is to stop */
  readonly signal: AbortSignal;
  /** nobody knows which backend works on it */
  readonly isPooled: boolean;
  key(): LeaseKey;
}

/** What is sent. */
export interface LongMessage {
  /** begins with `runMark` */
  readonly message: string;
  /** for its parameters, where it is one statement that has some */
  readonly values?: readonly unknown[];
  /** milliseconds; that of its statements. 0: nobody looks who blocks them */
  readonly lockTimeoutMs: number;
}

/** milliseconds that a person's cancel leaves the current statement to end by itself */
const cancelGraceMs = 3_000;
/** milliseconds after which a server that ignores the cancel is no longer waited for */
const cutAfterCancelMs = 10_000;
/** milliseconds between two cancels: the first may come before the server has begun with the statement */
const cancelAgainMs = 500;

/**
 * Sends a message that may take hours, and looks after it by other connections: when the run is to stop the server is
 * told to cancel it, whoever blocks it is looked for, and an answer that will never come is not waited for.
 *
 * @param onBlocker - told when it failed, who was in its way
 */
export async function sendLong(
  sender: Sender,
  connection: Connection,
  { message, values, lockTimeoutMs }: LongMessage,
  onBlocker: (blocker: Blocker) => void,
): Promise<readonly StatementResult[]> {
  const { signal } = sender;
  const cut = new AbortController();
  const ended = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    const isPatient =
      signal.reason instanceof RunnerError &&
      (signal.reason.code === "CANCELED" || signal.reason.code === "HANDED_OVER");
    timer = setTimeout(() => void cancel(sender, cut, ended.signal), isPatient ? cancelGraceMs : 0);
  };
  if (signal.aborted) onAbort();
  else signal.addEventListener("abort", onAbort, { once: true });
  const blockers = watchBlockers(lockTimeoutMs, () => lookForBlocker(sender));
  try {
    return await awaitAnswer(sender, connection, message, cut.signal, values);
  } catch (cause) {
    const blocker = blockers.stop();
    if (blocker !== undefined) onBlocker(blocker);
    throw cause;
  } finally {
    blockers.stop();
    ended.abort();
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** Sends what may take long, and does not wait for an answer that will never come. */
export async function awaitAnswer(
  sender: Pick<Sender, "pool" | "isPooled">,
  connection: Connection,
  message: string,
  signal: AbortSignal,
  values?: readonly unknown[],
): Promise<readonly StatementResult[]> {
  const lost = new AbortController();
  const answer = sender.isPooled
    ? undefined
    : watchAnswer(
        () => isAtWork(sender, connection.processId),
        () => lost.abort(),
      );
  try {
    return await connection.send(message, AbortSignal.any([signal, lost.signal]), Infinity, values);
  } finally {
    answer?.stop();
  }
}

async function cancel({ pool, key }: Sender, cut: AbortController, ended: AbortSignal): Promise<void> {
  const enough = AbortSignal.timeout(cutAfterCancelMs);
  try {
    const connection = await pool.connect(enough);
    try {
      while (!ended.aborted && !enough.aborted) {
        await connection.send(cancelRun(key()), enough);
        await sleep(cancelAgainMs, undefined, { signal: AbortSignal.any([ended, enough]) }).catch(
          () => undefined,
        );
      }
    } finally {
      connection.release();
    }
    if (!ended.aborted) cut.abort();
  } catch {
    // The database cannot be reached: nobody there to tell, and nothing to wait for.
    cut.abort();
  }
}

async function lookForBlocker(sender: Sender): Promise<Blocker | undefined> {
  const row = await ask(sender, selectBlockers(sender.key()));
  return row === undefined ? undefined : readBlocker(row);
}

async function isAtWork(sender: Pick<Sender, "pool">, processId: number): Promise<boolean> {
  return (await ask(sender, selectAtWork(processId)))?.["lockkeeper_at_work"] !== false;
}

/** The first row of a short query, by another connection than the busy one. */
async function ask({ pool }: Pick<Sender, "pool">, query: string): Promise<Row | undefined> {
  const patience = AbortSignal.timeout(answerMs);
  const connection = await pool.connect(patience);
  try {
    const [result] = await connection.send(query, patience);
    return result?.rows[0];
  } finally {
    connection.release();
  }
}
