import { onTestFinished } from "vitest";

import { ActiveRuns, type ActiveRunsOptions } from "../../src/dispatch/active-runs.ts";
import type { Woken, Waker, WokenBy } from "../../src/dispatch/waker.ts";
import { createWaker } from "../../src/dispatch/wake.ts";
import type { BucketEvent } from "../../src/event/event.ts";
import type { LogRecord } from "../../src/report/log.ts";
import type { Target } from "../../src/runner.ts";
import { never } from "../support/steps.ts";

/** What stands for one process: its own runs, its own waker, its own connections. */
export interface Process {
  readonly active: ActiveRuns;
  readonly waker: Waker;
  readonly target: Target;
  readonly log: readonly LogRecord[];
  /** One event of the object that the target watches; waits for what it began here. */
  wake(change?: Partial<WokenBy>): Promise<Woken>;
  sweep(): Promise<Woken>;
  /** As a process that is told to stop. */
  stop(): void;
}

/** The object that every target of these tests watches. */
const watched = { provider: "s3", bucket: "releases", key: "orders/head.json" } as const;

/** Its event. */
export const event: BucketEvent = { ...watched, version: null, id: null };

/** Who sends it, let through by the host. */
export const bySqs: WokenBy = {
  trigger: "event",
  via: "sqs",
  issuer: "urn:lockkeeper:event:sqs",
  subject: "arn:aws:sqs:eu-west-1:111122223333:lockkeeper",
  rule: null,
};

/** Who sweeps. */
const bySchedule: WokenBy = {
  ...bySqs,
  trigger: "converge",
  via: "schedule",
  issuer: "urn:lockkeeper:event:schedule",
};

/** A process with one target, which ends with the test. */
export function processOf(opened: Target, options: Partial<ActiveRunsOptions> = {}): Process {
  const target: Target = { watched, ...opened };
  const log: LogRecord[] = [];
  const stopping = new AbortController();
  const say = (record: LogRecord): void => void log.push(record);
  const active = new ActiveRuns({
    perTarget: 8,
    signal: stopping.signal,
    log: say,
    now: () => new Date(),
    ...options,
  });
  onTestFinished(async () => {
    stopping.abort();
    await active.drained();
  });
  const { handOver } = options;
  const targets = new Map([[target.name, target]]);
  const waker = createWaker({ targets, active, log: say, ...(handOver === undefined ? {} : { handOver }) });
  const ended = async ([woken]: readonly Woken[]): Promise<Woken> => {
    if (woken === undefined) throw new TypeError("nobody was woken");
    if (woken.kind === "run") await active.ended(woken.run.id);
    return woken;
  };
  return {
    active,
    waker,
    target,
    log,
    wake: async (change = {}) => ended(await waker.wake([event], { ...bySqs, ...change }, never)),
    sweep: async () => ended(await waker.sweep(bySchedule, never)),
    stop: () => stopping.abort(),
  };
}
