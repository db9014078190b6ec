import type { Driver } from "./driver/driver.ts";
import type { Emit } from "./executor/event.ts";
import type { RunResult } from "./executor/result.ts";
import type { Caller, RunAction, RunTrigger } from "./history/run.ts";
import type { Goal, Plan } from "./plan/plan.ts";
import type { ReleaseProvider } from "./release/release.ts";

/** A named database with the release stream it follows: one entry of the configuration, opened. */
export interface Target {
  readonly name: string;
  readonly stream: string;
  readonly environment: string;
  readonly releases: ReleaseProvider;
  readonly driver: Driver;
  readonly limits: Limits;
}

/** Milliseconds; 0 means none for `statementTimeoutMs` and `deadlineMs`. */
export interface Limits {
  /** for another run's lease */
  readonly waitMs: number;
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  /** for the whole run */
  readonly deadlineMs: number;
}

/** One request to change a target. */
export interface RunRequest {
  /** `newRunId(target)` */
  readonly id: string;
  readonly action: RunAction;
  readonly goal: Goal;
  /** release digest that the caller expects */
  readonly release: string | null;
  /** plan digest that was approved */
  readonly plan: string | null;
  readonly trigger: RunTrigger;
  readonly caller: Caller;
  readonly labels: Readonly<Record<string, string>>;
  readonly limits: Limits;
  /** idempotency and single use, already recorded by `Driver.acceptRun` for HTTP */
  readonly isAccepted: boolean;
}

export interface RunOptions {
  readonly signal: AbortSignal;
  readonly emit: Emit;
  now(): Date;
}

/** One run, start to end. Never throws for what can go wrong in a run: that is in the result. */
export declare function run(request: RunRequest, target: Target, options: RunOptions): Promise<RunResult>;

/** What `run` would do now, without the lease and without changing anything. */
export declare function planRun(
  request: Pick<RunRequest, "goal" | "release">,
  target: Target,
  options: RunOptions,
): Promise<Plan>;

/** `<target>.<ULID>`, unique and growing with time. */
export declare function newRunId(target: string): string;
