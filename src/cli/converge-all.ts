import { RunnerError, toRunnerError } from "../error.ts";
import type { RunResult } from "../executor/result.ts";
import { formatDuration } from "../report/duration.ts";
import { runChange } from "./change.ts";
import type { OpenTargets } from "./context.ts";
import { compareExits, exitOf } from "./exit-code.ts";
import { describeFailure, formatFailure } from "./failure.ts";
import { countFlag, switchFlag, type Flag } from "./flag.ts";
import * as flags from "./flags.ts";
import { formatTable, type Paint } from "./output.ts";
import type { Invocation } from "./verb.ts";

/** Each may hold the bodies of its release in memory. */
const defaultAtOnce = 4;

/** On `converge`: what makes it {@link convergeAll}. */
export const all = switchFlag("all", {
  text: "every target of the configuration file, for what no event has told; ends with the exit code of the worst",
});
/** How many targets {@link convergeAll} opens at the same time. */
export const atOnce = countFlag("at-once", {
  placeholder: "<n>",
  text: "with --all: targets worked on at the same time",
  fallback: defaultAtOnce,
  least: 1,
});

/** What says which target is meant, or which release: of all of them that could not be. */
const ofOneTarget: readonly Flag<unknown>[] = [
  ...flags.targetFlags.filter((flag) => flag !== flags.config && !flags.storageFlags.includes(flag)),
  flags.plan,
];

/** What became of one target. */
interface Converged {
  readonly target: string;
  /** `applied`, `noop`, `paused`, `held`…; how a run ended, or why there was none */
  readonly outcome: string;
  readonly result: RunResult | null;
  /** also of a target that counts for nothing */
  readonly error: RunnerError | null;
  /** of this target alone */
  readonly exit: number;
}

/**
 * Converges every target of the configuration, several at once; what one of them meets keeps nobody from the others.
 * Those that somebody has paused, or rolled back, are where they are meant to be: they are shown and count for nothing.
 *
 * @throws RunnerError `USAGE` - together with what chooses one target; `CONFIG`
 */
export async function convergeAll(invocation: Invocation): Promise<number> {
  const { context, output, get } = invocation;
  const given = ofOneTarget.find((flag) => isGiven(get(flag)));
  if (given !== undefined) {
    throw new RunnerError("USAGE", `--all and --${given.name} (or its variable) do not go together`, {
      hint: "each target has its own in the configuration file",
    });
  }
  const wiring = await context.wire();
  await using targets = await wiring.openTargets(flags.chooseTarget(invocation));
  const results: Converged[] = [];
  const left = targets.names.entries();
  const work = async (): Promise<void> => {
    for (const [index, name] of left) {
      const one = await converged(name, targets, invocation);
      results[index] = one;
      output.note(`${one.target}: ${one.outcome}${one.error === null ? "" : ` (${one.error.code})`}`);
    }
  };
  await Promise.all(Array.from({ length: get(atOnce) ?? defaultAtOnce }, work));
  return show(results, invocation);
}

async function converged(name: string, targets: OpenTargets, invocation: Invocation): Promise<Converged> {
  try {
    invocation.signal.throwIfAborted();
    await using opened = await targets.open(name);
    const change = { goal: { kind: "latest" }, trigger: "converge", emit: () => undefined } as const;
    const result = await runChange(invocation, opened.target, change);
    return { target: name, ...outcomeOf(result), result };
  } catch (thrown) {
    const error = toRunnerError(thrown);
    return { target: name, outcome: "not begun", result: null, error, exit: exitOf(error) };
  }
}

function outcomeOf({ status, outcome, error }: RunResult): Pick<Converged, "outcome" | "error" | "exit"> {
  if (error === null) return { outcome: outcome ?? status, error, exit: 0 };
  if (error.code === "PAUSED") return { outcome: "paused", error, exit: 0 };
  if (error.code === "HELD") return { outcome: "held", error, exit: 0 };
  return { outcome: outcome ?? status, error, exit: exitOf(error) };
}

function show(results: readonly Converged[], { output, ended }: Invocation): number {
  const worst = results.reduce<Converged | undefined>(
    (one, other) => (one === undefined || compareExits(other.exit, one.exit) < 0 ? other : one),
    undefined,
  );
  const exit = worst?.exit ?? 0;
  output.result({ exitCode: exit, targets: results.map(describe) }, () => format(results, output.paint.out));
  const failed = results.filter((one) => one.exit !== 0);
  for (const { target, error } of output.isJson ? [] : failed)
    if (error !== null) output.stderr.write(`\n${target}\n${formatFailure(error, output)}\n`);
  const counted = `${results.length - failed.length} of ${results.length} targets are where they should be`;
  const error = worst?.error ?? null;
  if (worst === undefined || error === null || exit === 0) ended({ kind: "done", words: counted });
  else ended({ kind: "failed", error, exit, target: worst.target, state: counted });
  return exit;
}

function describe({ target, outcome, result, error, exit }: Converged): Record<string, unknown> {
  return {
    target,
    outcome,
    exitCode: exit,
    run: result?.runId ?? null,
    release: result?.release ?? null,
    from: result?.from?.version ?? null,
    to: result?.to?.version ?? null,
    done: result?.done ?? [],
    left: result?.left ?? null,
    durationMs: result?.durationMs ?? null,
    error: error === null ? null : describeFailure(error),
  };
}

function format(results: readonly Converged[], paint: Paint): string {
  const rows = results.map(({ target, outcome, result, error }) => [
    target,
    outcome,
    result?.from?.version ?? "",
    result?.to?.version ?? "",
    result === null ? "" : formatDuration(result.durationMs),
    error?.code ?? "",
  ]);
  return formatTable(["target", "outcome", "from", "to", "took", "code"], rows, paint);
}

/** Whether a flag, or its variable, says anything. */
function isGiven(value: unknown): boolean {
  if (value === undefined || value === false) return false;
  return typeof value !== "object" || value === null || Object.keys(value).length > 0;
}
