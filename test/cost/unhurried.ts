import { afterEach, beforeEach, vi } from "vitest";
import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";

/** Nothing is asked by the clock, so there is no other reason to ask than the run itself. */
export const unhurried: LeaseTimes = {
  leaseMs: 600_000,
  heartbeatMs: 600_000,
  marginMs: 0,
  cancelPollMs: 600_000,
};

/** Of what PostgreSQL is asked: a lease that is renewed, a look whether the run is to stop, one at what a long message waits for. */
const byTheClock = /^(SELECT cancel_reason |UPDATE \S+ SET expires_at = |SELECT b\.pid, )/;

/** What was asked for the sake of the run: the rest goes by the clock, and a slow machine sees more of it. */
export function withoutClock(asked: readonly string[]): readonly string[] {
  return asked.filter((what) => !byTheClock.test(what));
}

/** Migrations in the first message, and in any. Each message that was quick lets the next be four times as large. */
const messageSteps = { first: 16, growth: 4, most: 256 };

/** Every message is quick in the tests of this file, however slow the machine is. */
export function stopTheClock(): void {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["performance"] }));
  afterEach(() => void vi.useRealTimers());
}

/** Messages in which so many small migrations go, while each is quick. */
export function messages(count: number): number {
  let sent = 0;
  for (let [rest, size] = [count, messageSteps.first]; rest > 0; sent += 1) {
    rest -= size;
    size = Math.min(size * messageSteps.growth, messageSteps.most);
  }
  return sent;
}
