import type { RunEvent } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import type { Caller, RunAction, RunTrigger } from "../history/run.ts";

/**
 * Somebody who looks at runs from outside: metrics, traces, notifications. A run never waits for an observer, and nothing
 * that one does or throws can change how a run ends.
 */
export interface RunObserver {
  /** A run begins in this process, also one that another executor had before. */
  begin(run: ObservedRun): RunWatch;
}

/** What is known of a run as it begins. */
export interface ObservedRun {
  readonly id: string;
  readonly action: RunAction;
  readonly trigger: RunTrigger;
  readonly caller: Caller;
  readonly labels: Readonly<Record<string, string>>;
  /** attempts that other executors had at it */
  readonly earlierAttempts: number;
  /** name of the target */
  readonly target: string;
  readonly stream: string;
  readonly environment: string;
  /** of whoever asked for it, as it came */
  readonly traceparent?: string;
  readonly startedAt: Date;
}

/** One run, looked at until its end in this process. */
export interface RunWatch {
  event(event: RunEvent): void;
  /** The last call; with `status: "handing_over"` another executor goes on with the run. */
  ended(result: RunResult): void;
}

/** All of the observers as one watch, whose calls never throw. */
export function watchAll(observers: readonly RunObserver[], run: ObservedRun): RunWatch {
  const watches = observers.flatMap((observer) => quietly(() => [observer.begin(run)]) ?? []);
  return {
    event(event) {
      for (const watch of watches) quietly(() => watch.event(event));
    },
    ended(result) {
      for (const watch of watches) quietly(() => watch.ended(result));
    },
  };
}

/** A database is being changed: what an observer cannot bear is its own affair, and it tells so by its own means. */
function quietly<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}
