import { RunnerError } from "../../error.ts";
import type { LeaseOptions } from "../driver.ts";
import { keepLease, type LeaseTimes } from "../lease-keeper.ts";
import type { LeasedSession } from "../session.ts";
import { Bench } from "./bench.ts";
import { within, type MongoDatabase } from "./database.ts";
import { release, renew, type LeaseKey } from "./lease.ts";
import { passOn } from "./pass-on.ts";
import { readCancel, startRun } from "./runs.ts";
import { openSession } from "./session.ts";
import { stillSeen } from "./state.ts";
import type { TakenLease } from "./take-lease.ts";

/** milliseconds to give the lease back; else it expires by itself */
const giveBackMs = 5_000;

/**
 * Keeps the lease while `work` is done, and gives it back also when that throws. Before the work begins the fence is
 * raised: from then on whoever had the lease before can commit nothing more.
 */
export async function holdLease<T>(
  database: MongoDatabase,
  { lease, acquiredAt, session, seen }: TakenLease,
  options: LeaseOptions,
  times: LeaseTimes,
  work: (session: LeasedSession) => Promise<T>,
): Promise<T> {
  let key: LeaseKey = { stream: options.stream, token: lease.token, runId: options.run.id };
  const ended = new AbortController();
  const ask = <A>(question: () => Promise<A>): Promise<A> =>
    within(question, AbortSignal.any([AbortSignal.timeout(times.leaseMs), ended.signal]));
  const kept = keepLease(
    {
      renew: () => {
        const asked = key;
        return ask(async () => (await renew(database, asked)) || asked !== key);
      },
      cancelReason: () => ask(() => readCancel(database, options.run.id)),
    },
    times,
    acquiredAt,
    options.signal,
  );
  try {
    const isNew = options.looked?.exists === false;
    const own = session?.toString("hex");
    const earlier = lease.sessions?.filter((each) => each.toString("hex") !== own);
    const passed = await passOn(database, key, earlier, { ...options, signal: kept.signal, isNew });
    ({ key } = passed);
    const clock = { server: lease.acquiredAt, local: acquiredAt };
    const { environment, targetId } = options;
    const parts = { database, environment, targetId, times, orphans: options, acquiredAt: clock };
    const bench = new Bench(parts, key, session);
    bench.guardBy(kept);
    const mayHold = database.hasTransactions && key.token === lease.token;
    const still = mayHold && seen !== undefined ? stillSeen(seen, passed.before, lease) : undefined;
    if (still !== undefined) bench.saw(still);
    await beginAttempt(bench, options);
    try {
      return await work(openSession(bench));
    } finally {
      // What fails is found out by the next run, as after a crash.
      if (!isLost(kept.signal)) await ask(() => bench.entries.withdraw()).catch(() => undefined);
    }
  } finally {
    // A heartbeat that the network has swallowed is not waited for: without our run in the lease it would change nothing.
    ended.abort();
    await kept.stop();
    // Who lost it has nothing to give back, and where the network is silent would wait in vain to say so.
    if (!isLost(kept.signal)) await giveBack(database, key);
  }
}

/** A lost connection is no reason to keep others waiting: the next one may do. */
async function giveBack(database: MongoDatabase, key: LeaseKey): Promise<void> {
  const enough = AbortSignal.timeout(giveBackMs);
  const tryOnce = (): Promise<void> => within(() => release(database, key), enough);
  await tryOnce()
    .catch(tryOnce)
    .catch(() => undefined);
}

/** Ends what is left of dead holders' runs, and begins an attempt at this one. */
async function beginAttempt(bench: Bench, { run }: LeaseOptions): Promise<void> {
  const { database } = bench;
  const attempt = await bench.write((session) =>
    bench.own(session, () => startRun(database, run, bench.key(), bench.now(), session)),
  );
  bench.begun(attempt);
}

function isLost({ reason }: AbortSignal): boolean {
  return reason instanceof RunnerError && reason.code === "LEASE_LOST";
}
