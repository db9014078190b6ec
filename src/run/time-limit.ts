import { RunnerError } from "../error.ts";
import type { RunOptions, RunRequest } from "./request.ts";

/** When a run has to stop by itself: its deadline, and the end of the process that executes it. */
export class TimeLimit {
  /** the caller's signal, the run's deadline, or the end of this executor's time */
  readonly signal: AbortSignal;
  readonly #began = performance.now();
  readonly #timers: NodeJS.Timeout[] = [];
  /** milliseconds from the start */
  #endsAfter = Infinity;

  constructor({ limits, isAccepted }: RunRequest, { signal, executorMs = 0 }: RunOptions) {
    this.signal = AbortSignal.any([
      signal,
      this.#after(limits.deadlineMs, "DEADLINE", "the run's deadline has passed"),
      // Only an accepted run has a row from which somebody else could go on.
      this.#after(
        executorMs,
        isAccepted ? "HANDED_OVER" : "DEADLINE",
        "the time of the process that executes the run is over",
      ),
    ]);
  }

  /** Milliseconds until the run has to stop at the latest; undefined where it may go on for ever. */
  msLeft(): number | undefined {
    return this.#endsAfter === Infinity
      ? undefined
      : Math.max(0, this.#endsAfter - (performance.now() - this.#began));
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
  }

  /** Fires after `ms`; never where that is 0. */
  #after(ms: number, code: "DEADLINE" | "HANDED_OVER", message: string): AbortSignal {
    const controller = new AbortController();
    if (ms === 0) return controller.signal;
    this.#endsAfter = Math.min(this.#endsAfter, ms);
    const hint =
      code === "DEADLINE"
        ? "run again to go on where it stopped, or give it more time (--deadline)"
        : "nothing to do: the next executor goes on with it";
    const timer = setTimeout(() => controller.abort(new RunnerError(code, message, { hint })), ms);
    timer.unref();
    this.#timers.push(timer);
    return controller.signal;
  }
}
