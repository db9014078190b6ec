import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { TrustReset } from "../driver.ts";
import { leaseTimes } from "../lease-keeper.ts";
import { answerMs, within, type MongoDatabase } from "./database.ts";
import { isOurs, leaseLost, release, takeFree, takeSeen, type LeaseKey } from "./lease.ts";
import { passOn } from "./pass-on.ts";
import { forgetRoots } from "./roots.ts";
import { readStream, type SeenStream } from "./state.ts";
import { isFree, isLeftBehind } from "./take-lease.ts";

/** tries of taking a lease that is free, while others take it and give it back */
const mostTries = 20;
/** milliseconds that it waits for a transaction of a dead holder, which the server was told to end; shorter than the lease */
const waitMs = 10_000;

/**
 * Makes a stream forget what it remembered of trust, and tells what that was. It has the lease meanwhile, for a run that
 * nobody asked for: so a holder whose own has expired, and who might say it all once more, can write nothing any more.
 *
 * @throws RunnerError `LEASE_HELD`
 */
export async function resetTrust(
  database: MongoDatabase,
  stream: string,
  what: { readonly releases: boolean },
  signal: AbortSignal,
): Promise<TrustReset> {
  const asker = { stream, runId: `trust-reset.${randomUUID()}`, holder: "trust reset" };
  for (let attempt = 1; ; attempt += 1) {
    const seen = await readStream(database, stream, signal);
    if (!seen.state.exists) return { rootVersion: null, highWaterMark: null };
    if (!isFree(seen) || attempt === mostTries) throw stillHeld(seen);
    const taken = await take(database, { ...asker, leaseMs: leaseTimes.leaseMs }, seen);
    if (taken !== undefined) {
      let key: LeaseKey = { stream, token: taken.token, runId: asker.runId };
      try {
        ({ key } = await passOn(database, key, taken.sessions, { waitMs, signal, targetId: "" }));
        return await forget(database, key, what.releases);
      } finally {
        // Whoever had it last may have left something under way: the next one has to look for that.
        await release(database, key, !isLeftBehind(seen)).catch(() => undefined);
      }
    }
    await sleep(50 + Math.random() * 50, undefined, { signal });
  }
}

function take(
  database: MongoDatabase,
  asker: Parameters<typeof takeFree>[1],
  { lease }: SeenStream,
): ReturnType<typeof takeFree> {
  const patience = AbortSignal.timeout(answerMs);
  return within(
    () => (lease === undefined ? takeFree(database, asker) : takeSeen(database, asker, lease)),
    patience,
  );
}

/** The version last: where this ends half way, it is still known that there is something to forget. */
async function forget(database: MongoDatabase, key: LeaseKey, releases: boolean): Promise<TrustReset> {
  await forgetRoots(database, key.stream);
  const before = await database.collections.streams.findOneAndUpdate(
    isOurs(key),
    { $unset: { rootVersion: true, ...(releases ? { highWaterMark: true } : {}) } },
    { returnDocument: "before", maxTimeMS: answerMs },
  );
  if (before === null) throw leaseLost();
  return {
    rootVersion: before.rootVersion ?? null,
    highWaterMark: releases ? (before.highWaterMark ?? null) : null,
  };
}

function stillHeld({ state: { lease } }: SeenStream): RunnerError {
  const who = lease === null ? "another" : `run ${lease.runId} on ${lease.holder}`;
  return new RunnerError("LEASE_HELD", `${who} is at work on this stream`, {
    hint: "wait until it has ended, or cancel it; then reset its trust",
    fields: lease === null ? {} : { run: lease.runId, holder: lease.holder },
  });
}
