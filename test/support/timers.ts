import { onTestFinished, vi } from "vitest";

/** Time that passes only when the test says so. */
export interface HeldTimers {
  /** Lets `ms` pass at once, and a second more for what follows from it. */
  pass(ms: number): Promise<void>;
}

/**
 * From now on, until the test ends, what was given to `setTimeout` waits for {@link HeldTimers.pass}: deadlines above all.
 * Clocks, sockets, intervals and `timers/promises` go on as ever.
 */
export function holdTimers(): HeldTimers {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  return { pass: async (ms) => void (await vi.advanceTimersByTimeAsync(ms + 1_000)) };
}
