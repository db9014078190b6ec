import { RunnerError } from "../error.ts";

/** Times of a lease, in milliseconds; the defaults are those of `design.md` 4. */
export interface LeaseTimes {
  /** how long the database lets a holder be silent */
  readonly leaseMs: number;
  readonly heartbeatMs: number;
  /** taken off the lease on our side: clocks drift, and a statement takes time to be sent */
  readonly marginMs: number;
  /** how often the database is asked whether somebody wants the run to stop */
  readonly cancelPollMs: number;
  /** for tests: before the second try of a body that met a lock */
  readonly retryMs?: number;
}

/** The times that hold wherever a test does not say otherwise. */
export const leaseTimes: LeaseTimes = {
  leaseMs: 15_000,
  heartbeatMs: 5_000,
  marginMs: 1_000,
  cancelPollMs: 1_000,
};

/** What the keeper asks the database; both reject when it cannot be reached. */
export interface LeaseLine {
  /** false: another has the lease now */
  renew(): Promise<boolean>;
  /** the reason somebody gave for stopping the run; undefined while nobody did */
  cancelReason(): Promise<string | undefined>;
}

/** A lease being kept. */
export interface KeptLease {
  /** aborts with `LEASE_LOST` when the lease may no longer be trusted, `CANCELED` when somebody asked, or with the run's own reason */
  readonly signal: AbortSignal;
  /** throws the signal's reason; also finds out that trust ran out while the process was frozen and no timer could fire */
  assertTrusted(): void;
  /** milliseconds for which the lease can be trusted if no heartbeat comes through any more; at least 0 */
  trustedForMs(): number;
  /** ends the heartbeats and waits for the one under way */
  stop(): Promise<void>;
}

/**
 * Renews a lease in the background and says when it may no longer be trusted: at the send time of the last good
 * heartbeat plus lease minus margin, by the local monotonic clock, so that a process that was frozen finds out by itself.
 *
 * @param acquiredAt - `performance.now()` before the acquiring message was sent
 */
export function keepLease(
  line: LeaseLine,
  times: LeaseTimes,
  acquiredAt: number,
  runSignal: AbortSignal,
): KeptLease {
  const lost = new AbortController();
  const signal = AbortSignal.any([runSignal, lost.signal]);
  let trustedUntil = acquiredAt + times.leaseMs - times.marginMs;
  let lastRenewal = acquiredAt;
  let asking: Promise<void> | undefined;

  const ask = async (): Promise<void> => {
    const sentAt = performance.now();
    if (sentAt - lastRenewal >= times.heartbeatMs) {
      if (!(await line.renew())) {
        lost.abort(leaseLost("another runner has taken the lease over"));
        return;
      }
      lastRenewal = sentAt;
      trustedUntil = sentAt + times.leaseMs - times.marginMs;
    }
    const reason = await line.cancelReason();
    if (reason !== undefined) lost.abort(new RunnerError("CANCELED", `the run was asked to stop: ${reason}`));
  };
  const judge = (): void => {
    if (performance.now() > trustedUntil) lost.abort(leaseLost("the database did not confirm it in time"));
  };
  const tick = (): void => {
    judge();
    if (signal.aborted) return;
    // A failed question is asked again at the next tick; trust runs out by itself if none succeeds.
    asking ??= ask()
      .catch(() => undefined)
      .finally(() => {
        asking = undefined;
      });
  };
  const timer = setInterval(tick, Math.min(times.cancelPollMs, times.heartbeatMs));
  timer.unref();
  return {
    signal,
    assertTrusted() {
      judge();
      signal.throwIfAborted();
    },
    trustedForMs: () => Math.max(0, trustedUntil - performance.now()),
    async stop() {
      clearInterval(timer);
      await asking;
    },
  };
}

function leaseLost(why: string): RunnerError {
  return new RunnerError("LEASE_LOST", `the lease of this run is lost: ${why}`, {
    hint: "nothing was written after that; run again to go on where it stopped",
  });
}
