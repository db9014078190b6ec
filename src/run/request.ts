import { randomBytes } from "node:crypto";

import { ulid } from "ulid";

import type { StreamState } from "../driver/stream-state.ts";
import type { Emit } from "../executor/event.ts";
import type { Caller, RunAction, RunTrigger } from "../history/run.ts";
import type { Goal } from "../plan/plan.ts";
import type { Limits, OnFailure } from "./target.ts";

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
  /** default: as the target says */
  readonly onFailure?: OnFailure;
  /** what is otherwise refused */
  readonly allow?: readonly Allowance[];
  /** `Driver.acceptRun` has recorded it already with its order: its row is ended, or handed over, whatever happens */
  readonly isAccepted: boolean;
  /** `traceparent` of whoever asked, so that their trace shows the run; absent: it belongs to none */
  readonly traceparent?: string;
  /** earlier executors had it */
  readonly resumed?: Resumed;
}

/** What a request may allow: migrations that its service marks as breaking. */
export type Allowance = "breaking";

/** What is known of a run that another executor had. */
export interface Resumed {
  /** attempts so far */
  readonly attempt: number;
  /** it had a plan and had begun to carry it out */
  readonly hasBegun: boolean;
  /** where it began; null before the first migration */
  readonly fromVersion: string | null;
  readonly isCanceled: boolean;
  /** its deadline has passed */
  readonly isLate: boolean;
}

/** What a run is given by whoever starts it. */
export interface RunOptions {
  /** stops the run; with a `HANDED_OVER` as its reason an accepted run is left for another executor instead of canceled */
  readonly signal: AbortSignal;
  /** milliseconds that this process has, less what it needs afterwards: then an accepted run is handed over */
  readonly executorMs?: number;
  readonly emit: Emit;
  now(): Date;
  /** what was found just before, or is being asked; absent: the run looks itself */
  readonly looked?: Look | Promise<Look>;
}

/** What decides whether there is anything to do: the database's row, and the release that is wanted. */
export interface Look {
  readonly state: StreamState;
  /** digest; undefined where the bucket does not say */
  readonly head: string | undefined;
}

/** `<target>.<ULID>`, unique and growing with time. */
export function newRunId(target: string): string {
  // By itself it would ask the system for each of its characters.
  const random = randomBytes(randomChars).values();
  return `${target}.${ulid(undefined, () => (random.next().value ?? 0) / 256)}`;
}

/** of a ULID */
const randomChars = 16;
