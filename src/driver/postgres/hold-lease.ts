import { RunnerError } from "../../error.ts";
import type { LeasedSession } from "../session.ts";
import { keepLease } from "../lease-keeper.ts";
import type { Connection, StatementResult } from "./connection.ts";
import { firstValue, type PostgresDatabase } from "./database.ts";
import { heartbeat, release, selectCancel } from "./lease.ts";
import { assertFreeSlots } from "./pooler.ts";
import { openSession } from "./session.ts";
import type { Workbench } from "./workbench.ts";

/** milliseconds to give the lease back when the run's connection is lost; else it expires by itself */
const giveBackMs = 5_000;
/** transactions that a run has open at once: its work, and its heartbeats */
const slotsOfRun = 2;

/**
 * Keeps the lease of `bench` while `work` is done, and gives it back also when that throws. Heartbeats go by a
 * connection of their own, opened when the first is due, because the bench's may be busy.
 */
export async function holdLease<T>(
  database: PostgresDatabase,
  bench: Workbench,
  acquiredAt: number,
  signal: AbortSignal,
  work: (session: LeasedSession) => Promise<T>,
): Promise<T> {
  const { pool, t } = database;
  const { times } = bench;
  let line: Connection | undefined;
  const ask = async (message: string, withinMs = times.leaseMs): Promise<readonly StatementResult[]> => {
    const patience = AbortSignal.timeout(withinMs);
    if (line?.isLost() === true) {
      line.release(true);
      line = undefined;
    }
    line ??= await pool.connect(patience);
    return line.send(message, patience);
  };
  const kept = keepLease(
    {
      renew: async () => {
        const key = bench.key();
        const [result] = await ask(heartbeat(t, key, times.leaseMs));
        if (result?.rows.length === 1) return true;
        if (bench.isRenewing() || bench.key().token !== key.token)
          throw new Error("the token was renewed meanwhile");
        return false;
      },
      cancelReason: async () => {
        const value = firstValue(await ask(selectCancel(t, bench.key().runId)), "cancel_reason");
        return typeof value === "string" ? value : undefined;
      },
    },
    times,
    acquiredAt,
    signal,
  );
  bench.guardBy(kept);
  try {
    if (bench.isPooled) await assertFreeSlots(pool, slotsOfRun, database.shownUrl, kept.signal);
    return await work(openSession(bench));
  } finally {
    await kept.stop();
    // Who lost it has nothing to give back, and where the network is silent would wait in vain to say so.
    if (!isLost(kept.signal)) {
      const giveBack = release(t, bench.key());
      await bench
        .send(giveBack)
        .catch(() => ask(giveBack, giveBackMs))
        .catch(() => undefined);
    }
    line?.release();
  }
}

function isLost({ reason }: AbortSignal): boolean {
  return reason instanceof RunnerError && reason.code === "LEASE_LOST";
}
