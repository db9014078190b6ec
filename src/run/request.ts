import { ulid } from "ulid";

import type { Emit } from "../executor/event.ts";
import type { Caller, RunAction, RunTrigger } from "../history/run.ts";
import type { Goal } from "../plan/plan.ts";
import type { Limits } from "./target.ts";

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
  /** `Driver.acceptRun` has recorded it already, so its row must be ended whatever happens */
  readonly isAccepted: boolean;
}

/** What a run is given by whoever starts it. */
export interface RunOptions {
  readonly signal: AbortSignal;
  readonly emit: Emit;
  now(): Date;
}

/** `<target>.<ULID>`, unique and growing with time. */
export function newRunId(target: string): string {
  return `${target}.${ulid()}`;
}
