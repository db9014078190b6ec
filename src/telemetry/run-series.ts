import type { RunEvent } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import type { ObservedRun, RunObserver } from "../run/observer.ts";
import type { Recorder } from "./series.ts";

/** Counts runs, and measures them. */
export function countRuns(recorder: Recorder): RunObserver {
  return {
    begin(run) {
      const isWaiting = new Stopwatch();
      return {
        event(event) {
          countEvent(event, run, recorder, isWaiting);
        },
        ended(result) {
          countEnd(result, run, recorder);
        },
      };
    },
  };
}

class Stopwatch {
  #startedAt: number | undefined;

  start(): void {
    this.#startedAt = performance.now();
  }

  /** seconds since it was started; undefined where it was not */
  stop(): number | undefined {
    const startedAt = this.#startedAt;
    this.#startedAt = undefined;
    return startedAt === undefined ? undefined : (performance.now() - startedAt) / 1000;
  }
}

function countEvent(event: RunEvent, { target }: ObservedRun, recorder: Recorder, wait: Stopwatch): void {
  // once all bodies are here the lease is asked for
  if (event.kind === "bodies.fetched") wait.start();
  if (event.kind === "lease.acquired") {
    const seconds = wait.stop();
    if (seconds !== undefined) recorder.record("lockkeeper_lock_wait_seconds", { target }, seconds);
  }
  if (event.kind === "step.succeeded") {
    const kind = event.version === "" ? "repeatable" : event.direction;
    recorder.record("lockkeeper_migrations_applied_total", { target, kind }, 1);
  }
}

function countEnd(
  { status, outcome, durationMs, error }: RunResult,
  { target, trigger }: ObservedRun,
  recorder: Recorder,
): void {
  if (status === "handing_over") {
    recorder.record("lockkeeper_runs_handed_over_total", { target }, 1);
    return;
  }
  recorder.record("lockkeeper_runs_total", { target, trigger, outcome: outcome ?? status }, 1);
  recorder.record("lockkeeper_run_duration_seconds", { target }, durationMs / 1000);
  if (outcome === "refused" && error !== null)
    recorder.record("lockkeeper_release_refused_total", { reason: error.code }, 1);
}
