import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { commandError, errorCode, isConflict } from "./command-error.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import { insertStream } from "./lease.ts";

/** milliseconds that a change waits for a transaction that is under way: the server lets none live for longer than a minute */
const patienceMs = 75_000;
/** milliseconds that one try of it waits */
const tryMs = 5_000;

/**
 * Sets or ends a pause. The stream's document is also its fence, so a transaction of a run that is under way is waited for.
 *
 * @returns whether that changed anything
 * @throws RunnerError `LEASE_HELD` - it does not end
 */
export async function setPaused(
  database: MongoDatabase,
  stream: string,
  paused: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  const giveUpAt = performance.now() + patienceMs;
  for (;;) {
    const isChanged = await database.use(signal, () =>
      change(database, stream, paused, signal).catch((cause: unknown) => {
        const isOpen = isConflict(cause) || commandError(cause)?.code === errorCode.maxTimeMsExpired;
        if (!isOpen) throw cause;
      }),
    );
    if (isChanged !== undefined) return isChanged;
    if (performance.now() > giveUpAt) {
      throw new RunnerError("LEASE_HELD", `a transaction of a run on stream "${stream}" does not end`, {
        hint: "try again when it has ended, or cancel that run",
      });
    }
    await sleep(50 + Math.random() * 50, undefined, { signal });
  }
}

async function change(
  database: MongoDatabase,
  stream: string,
  paused: boolean,
  signal: AbortSignal,
): Promise<boolean> {
  const { streams } = database.collections;
  const update = async (): Promise<boolean> => {
    const isOtherwise = { _id: stream, paused: paused ? { $ne: true } : true };
    const { matchedCount } = await streams.updateOne(isOtherwise, { $set: { paused } }, { maxTimeMS: tryMs });
    return matchedCount === 1;
  };
  const isChanged = await update();
  if (isChanged || !paused) return isChanged;
  if ((await streams.findOne({ _id: stream }, { maxTimeMS: answerMs })) !== null) return false;
  await database.prepare(signal);
  await insertStream(database, stream, null);
  return update();
}
