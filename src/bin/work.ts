import type { Variables } from "../cli/context.ts";
import { compareExits, exitOf } from "../cli/exit-code.ts";
import { work, workTimes } from "../dispatch/work.ts";
import { RunnerError, traits } from "../error.ts";
import type { RunResult } from "../executor/result.ts";
import type { RunObserver } from "../run/observer.ts";
import { loadConfig, namedTarget } from "./config.ts";
import { openHandOver } from "./open-hand-over.ts";
import { openLog } from "./open-log.ts";
import { lastFlushMs, openObservers } from "./open-observers.ts";
import { lazyTarget } from "./open-target.ts";

/** milliseconds before the end in which runs are put down, recorded and handed over, or a fifth of a shorter time */
const lastMs = 10_000;

/**
 * `lockkeeper work`: executes the open runs of a configuration's targets to their end, or hands them over when it is told to
 * stop or its time is over. Log lines, one JSON document each, go to standard output.
 *
 * @param choice.deadlineMs - what this process has; 0: as long as it takes
 * @returns the exit code: of the worst that a run came to
 * @throws RunnerError `CONFIG`, `UNKNOWN_TARGET`
 */
export async function workOn(
  choice: {
    readonly config: string | undefined;
    readonly target: string | undefined;
    readonly deadlineMs: number;
  },
  variables: Variables,
  signal: AbortSignal,
): Promise<number> {
  const startedAt = performance.now();
  const config = await loadConfig(choice.config);
  const settings =
    choice.target === undefined ? [...config.targets.values()] : [namedTarget(choice.target, config)];
  const now = (): Date => new Date();
  const { observers, flush, log } = await openObservers({
    variables,
    config: async () => config,
    log: openLog(variables, now),
  });
  const seen = new Map<string, RunResult>();
  const targets = await Promise.all(
    settings.map((one) =>
      lazyTarget(one, {
        variables,
        directions: "both",
        others: async () => config.targets,
        observers: [...observers, remembering(seen)],
      }),
    ),
  );
  const { deadlineMs } = choice;
  const reserveMs = Math.min(lastMs, deadlineMs / 5);
  const late = new AbortController();
  const timer = deadlineMs === 0 ? undefined : setTimeout(() => late.abort(), deadlineMs - reserveMs).unref();
  // Later than that: a run that found its time over by itself would be taken again here.
  const endsAt = startedAt + deadlineMs - reserveMs / 2;
  const handOver = await openHandOver(config.work);
  try {
    log({ level: "info", event: "work.started", fields: { targets: names(targets) } });
    const { isStopped, unreachable } = await work(targets, {
      ...workTimes,
      signal: AbortSignal.any([signal, late.signal]),
      ...(handOver === undefined ? {} : { handOver }),
      ...(deadlineMs === 0 ? {} : { executorMs: () => Math.max(1, endsAt - performance.now()) }),
      log,
      now,
    });
    const results = [...seen.values()];
    const fields = {
      runs: results.length,
      succeeded: results.filter(({ status }) => status === "succeeded").length,
      handedOver: results.filter(({ status }) => status === "handing_over").length,
      unreachable: unreachable.map(({ target }) => target).join(" "),
    };
    log({ level: "info", event: "work.ended", fields });
    const exits = [
      ...results.flatMap(exitsOf),
      ...unreachable.map(({ code }) => traits[code].exit),
      ...(isStopped ? [stopCode(signal)] : []),
    ];
    return exits.toSorted(compareExits)[0] ?? 0;
  } finally {
    clearTimeout(timer);
    await Promise.allSettled([...targets.map(({ driver }) => driver.close()), flush(lastFlushMs)]);
  }
}

function names(targets: readonly { readonly name: string }[]): string {
  return targets.map(({ name }) => name).join(" ");
}

/** The last that each run came to in this process. */
function remembering(results: Map<string, RunResult>): RunObserver {
  return { begin: ({ id }) => ({ event: () => undefined, ended: (result) => results.set(id, result) }) };
}

function exitsOf({ status, error }: RunResult): readonly number[] {
  if (status === "handing_over") return [traits.HANDED_OVER.exit];
  return error === null ? [] : [exitOf(error)];
}

/** By which signal it was stopped, or that its own time was over. */
function stopCode(signal: AbortSignal): number {
  return signal.reason instanceof RunnerError ? exitOf(signal.reason) : traits.HANDED_OVER.exit;
}
