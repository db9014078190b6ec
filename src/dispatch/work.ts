import { setTimeout as sleep } from "node:timers/promises";
import { toRunnerError, type RunnerErrorCode } from "../error.ts";
import type { Target } from "../runner.ts";
import { ActiveRuns, type ActiveRunsOptions } from "./active-runs.ts";
import { within } from "./patience.ts";

/** What a process that only works is given. */
export interface WorkOptions extends Pick<
  ActiveRunsOptions,
  "signal" | "handOver" | "executorMs" | "log" | "now"
> {
  /** milliseconds between two looks at the databases; well within the 45 s that a claim lasts */
  readonly lookMs: number;
  /** milliseconds for which a run is watched that another executor has: longer than what a dead one leaves behind lasts */
  readonly patienceMs: number;
}

/** Milliseconds that serve in production. */
export const workTimes = { lookMs: 5_000, patienceMs: 120_000 } as const;

/** How the work ended. */
export interface WorkEnd {
  /** it was told to stop, and there may be something left */
  readonly isStopped: boolean;
  /** targets that could not be asked when they were looked at last */
  readonly unreachable: readonly { readonly target: string; readonly code: RunnerErrorCode }[];
}

/** Runs of one target at once: all but one of them wait for the lease. */
const perTarget = 8;
/** Databases that are asked at once. */
const atOnce = 8;
/** milliseconds */
const readMs = 10_000;

/**
 * Executes the open runs of targets to their end: those that nobody works on, and, when they are not renewed any more, those
 * of an executor that died. Ends when none is open but those that others are seen to work on, or when it is told to stop;
 * what is under way then is handed over. Never throws.
 */
export async function work(targets: readonly Target[], options: WorkOptions): Promise<WorkEnd> {
  const { signal, lookMs, patienceMs } = options;
  const active = new ActiveRuns({ ...options, perTarget });
  let idleSince: number | undefined;
  let looks: readonly Look[] = [];
  while (!signal.aborted) {
    looks = await lookAtAll(targets, active, options);
    if (!active.isIdle) {
      idleSince = undefined;
      await Promise.race([active.drained(), pause(lookMs, signal)]);
      continue;
    }
    if (!looks.some(({ kind }) => kind === "open")) break;
    idleSince ??= performance.now();
    if (performance.now() - idleSince >= patienceMs) break;
    await pause(lookMs, signal);
  }
  await active.drained();
  return {
    isStopped: signal.aborted,
    unreachable: looks.flatMap((look) =>
      look.kind === "unreachable" ? [{ target: look.target, code: look.code }] : [],
    ),
  };
}

/** What there was at one target, after what nobody worked on was taken. */
type Look = { readonly target: string } & (
  | { readonly kind: "open" | "done" }
  | { readonly kind: "unreachable"; readonly code: RunnerErrorCode }
);

async function lookAtAll(
  targets: readonly Target[],
  active: ActiveRuns,
  options: WorkOptions,
): Promise<readonly Look[]> {
  const looks: Look[] = [];
  const left = targets.values();
  const worker = async (): Promise<void> => {
    for (const target of left) looks.push(await lookAt(target, active, options));
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, targets.length) }, worker));
  return looks;
}

async function lookAt(target: Target, active: ActiveRuns, { log, signal }: WorkOptions): Promise<Look> {
  const { name, driver } = target;
  // What was left open stays so until the pause is over.
  if (target.isPaused === true) return { target: name, kind: "done" };
  try {
    await active.pickUp(target);
    const open = await within(
      readMs,
      (patience) => driver.runs({ target: name, isOpen: true, limit: 1 }, patience),
      signal,
    );
    return { target: name, kind: open.length > 0 ? "open" : "done" };
  } catch (thrown) {
    const { code, message } = toRunnerError(thrown);
    if (!signal.aborted)
      log({ level: "warn", event: "pickup.failed", fields: { target: name, code, message } });
    return { target: name, kind: "unreachable", code };
  }
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}
