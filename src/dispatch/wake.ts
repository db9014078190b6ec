import { toRunnerError } from "../error.ts";
import type { LogRecord } from "../report/log.ts";
import { originOf } from "../report/origin.ts";
import type { Target } from "../runner.ts";
import type { ActiveRuns } from "./active-runs.ts";
import { beginRelease, isWorthAnother } from "./begin-release.ts";
import type { HandOver } from "./hand-over.ts";
import { look } from "./look.ts";
import { within } from "./patience.ts";
import { lineOfNobody } from "./received.ts";
import { targetsOf } from "./watched.ts";
import type { Woken, Waker, WokenBy } from "./waker.ts";

/** Targets that are looked at at once. */
const atOnce = 8;
/** milliseconds to ask for runs that nobody works on */
const readMs = 8_000;

/** What a waker needs. */
export interface WakerOptions {
  readonly targets: ReadonlyMap<string, Target>;
  readonly active: ActiveRuns;
  /** where runs go on in executions of their own: a sweep has one started for what was left open; absent: this process picks runs up by itself */
  readonly handOver?: HandOver;
  log(record: LogRecord): void;
}

/** The waker of these targets. It never throws: what could not be asked is `unreachable`. */
export function createWaker(options: WakerOptions): Waker {
  const { targets } = options;
  return {
    async wake(events, by, signal) {
      const watching = targetsOf(events, targets.values());
      if (watching.length === 0) for (const event of events) options.log(lineOfNobody(event, by));
      return each(watching, (target) => wakeTarget(target, by, options, signal));
    },
    wakeTarget: (target, by, signal) => wakeTarget(target, by, options, signal),
    sweep: (by, signal) =>
      each([...targets.values()], async (target) => {
        await startLeftOpen(target, options, signal);
        return wakeTarget(target, by, options, signal);
      }),
  };
}

async function each(
  targets: readonly Target[],
  act: (target: Target) => Promise<Woken>,
): Promise<readonly Woken[]> {
  const results: Woken[] = [];
  const left = targets.entries();
  const work = async (): Promise<void> => {
    for (const [index, target] of left) results[index] = await act(target);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, targets.length) }, work));
  return results;
}

async function wakeTarget(
  target: Target,
  by: WokenBy,
  { active, log }: WakerOptions,
  signal: AbortSignal,
): Promise<Woken> {
  const woken = await converged(target, by, active, signal).catch((thrown: unknown): Woken => {
    const error = toRunnerError(thrown);
    const { code, message } = error;
    const fields = { target: target.name, code, message, origin: originOf(error) };
    log({ level: code === "INTERNAL" ? "error" : "warn", event: "wake.failed", fields });
    return { target: target.name, kind: isWorthAnother(code) ? "unreachable" : "left-alone", code };
  });
  log(recordOf(target, woken, by));
  return woken;
}

async function converged(
  target: Target,
  by: WokenBy,
  active: ActiveRuns,
  signal: AbortSignal,
): Promise<Woken> {
  if (target.isPaused === true) return { target: target.name, kind: "left-alone", code: "PAUSED" };
  const seen = await look(target, signal);
  if (seen.kind !== "pending") return { target: target.name, ...seen };
  return beginRelease(target, seen, by, { active, signal });
}

/** Runs whose executor is gone and that nobody else looks for: a host that stops its processes has none that look again and again. */
async function startLeftOpen(
  target: Target,
  { handOver, log }: WakerOptions,
  signal: AbortSignal,
): Promise<void> {
  if (handOver === undefined || target.isPaused === true) return;
  const { name, driver } = target;
  try {
    const open = await within(
      readMs,
      (patience) => driver.runs({ target: name, isOpen: true, limit: 1 }, patience),
      signal,
    );
    if (open.length > 0) await handOver.start(name);
  } catch (thrown) {
    const { code, message } = toRunnerError(thrown);
    log({ level: "warn", event: "pickup.failed", fields: { target: name, code, message } });
  }
}

/** One line a target; what counts events reads `via`, `provider` and `result`. */
function recordOf(
  { name, watched }: Target,
  woken: Woken,
  { trigger, via, issuer, subject }: WokenBy,
): LogRecord {
  const fields = {
    via,
    provider: watched?.provider ?? null,
    result: woken.kind,
    target: name,
    run: woken.kind === "run" ? woken.run.id : null,
    code: woken.kind === "left-alone" || woken.kind === "unreachable" ? woken.code : null,
    issuer,
    subject,
  };
  const event = trigger === "event" ? "event.received" : "sweep.looked";
  const isQuiet = trigger === "converge" && woken.kind === "up-to-date";
  return { level: woken.kind === "unreachable" ? "warn" : isQuiet ? "debug" : "info", event, fields };
}
