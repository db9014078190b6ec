import { RunnerError } from "../error.ts";
import type { RunEvent } from "../executor/event.ts";
import type { RunOptions, RunRequest } from "./request.ts";

/** When a run has to stop by itself: its deadline, and the end of the process that executes it. */
export class TimeLimit {
  /** the caller's signal, the run's deadline, or the end of this executor's time */
  readonly signal: AbortSignal;
  readonly #began = performance.now();
  readonly #timers: NodeJS.Timeout[] = [];
  /** milliseconds from the start */
  #endsAfter = Infinity;
  readonly #executor: AbortSignal;
  #wasReady = false;

  constructor({ limits, isAccepted }: RunRequest, { signal, executorMs = 0 }: RunOptions) {
    // Only an accepted run has a row from which somebody else could go on.
    this.#executor = this.#after(
      executorMs,
      isAccepted ? "HANDED_OVER" : "DEADLINE",
      "the time of the process that executes the run is over",
    );
    this.signal = AbortSignal.any([
      signal,
      this.#after(limits.deadlineMs, "DEADLINE", "the run's deadline has passed"),
      this.#executor,
    ]);
  }

  /** Told of all that happens in the run. */
  seen({ kind }: RunEvent): void {
    this.#wasReady ||= readyKinds.has(kind);
  }

  /**
   * What a run's error is: where not even its release was there in an executor's whole time, the next one would pass the
   * run on as well, and so for ever.
   */
  judged(error: RunnerError): RunnerError {
    if (this.#wasReady || !this.#executor.aborted || this.#executor.reason !== error) return error;
    return new RunnerError("DEADLINE", "the time of the process was over before the run had its release", {
      hint: "give the process more time, or more of a processor and memory",
      cause: error,
    });
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

/** What a run tells once it has all that it needs, and waits for others or works. */
const readyKinds: ReadonlySet<RunEvent["kind"]> = new Set([
  "dependency.waiting",
  "lease.waiting",
  "orphan.waiting",
  "lease.acquired",
]);
