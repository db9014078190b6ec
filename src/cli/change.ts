import { userInfo, hostname } from "node:os";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Emit } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import type { RunAction } from "../history/run.ts";
import type { Goal } from "../plan/plan.ts";
import { compareVersions } from "../migration/version.ts";
import { look } from "../run/look.ts";
import type { RunOptions } from "../run/request.ts";
import type { OnFailure } from "../run/target.ts";
import type { Limits, Target } from "../runner.ts";
import { allowBreaking, chooseTarget, onFailure, plan, release } from "./flags.ts";
import { openReporter } from "./reporter.ts";
import { showResult } from "./show-result.ts";
import type { Invocation } from "./verb.ts";

/** Runs a change and shows how it goes and how it ended; gives the exit code. */
export async function changeDatabase(
  invocation: Invocation,
  goal: Goal,
  trigger: "cli" | "converge" = "cli",
): Promise<number> {
  const { context, output, get } = invocation;
  const wiring = await context.wire();
  await using opened = await wiring.openTarget(chooseTarget(invocation), directionsOf(goal, get(onFailure)));
  // Database and bucket answer while the rest of the program is loaded. That keeps it busy, so the questions leave first: the
  // bucket's in this turn, and in the next the database's, whose client is loaded then.
  const looked = look({ release: get(release) ?? null }, opened.target, invocation.signal);
  looked.catch(() => "the run meets it again");
  await nextTurn();
  await nextTurn();
  const reporter = await openReporter(output);
  try {
    const result = await runChange(invocation, opened.target, { goal, trigger, emit: reporter.emit, looked });
    reporter.end();
    return showResult(invocation, result);
  } finally {
    reporter.end();
  }
}

/** What of a plain folder a change may need. */
export function directionsOf(goal: Goal, asked: OnFailure | undefined): "up" | "both" {
  const isUp = goal.kind === "latest" || (goal.kind === "steps" && goal.direction === "up");
  return isUp && asked !== "rollback" ? "up" : "both";
}

/** One run of what was asked for, on an opened target. */
export async function runChange(
  { signal, get }: Pick<Invocation, "signal" | "get">,
  target: Target,
  {
    goal,
    trigger,
    emit,
    limits = target.limits,
    looked,
  }: {
    readonly goal: Goal;
    readonly trigger: "cli" | "converge" | "init";
    readonly emit: Emit;
    readonly limits?: Limits;
    readonly looked?: RunOptions["looked"];
  },
): Promise<RunResult> {
  const { newRunId, run } = await import("../runner.ts");
  const asked = get(onFailure);
  return run(
    {
      id: newRunId(target.name),
      action: await actionOf(goal, target, signal),
      goal,
      release: get(release) ?? null,
      plan: get(plan) ?? null,
      trigger,
      caller: { issuer: "cli", subject: whoAmI(), rule: null },
      labels: {},
      limits,
      ...(asked === undefined ? {} : { onFailure: asked }),
      ...(get(allowBreaking) ? { allow: ["breaking"] } : {}),
      isAccepted: false,
    },
    target,
    { signal, emit, now: () => new Date(), ...(looked === undefined ? {} : { looked }) },
  );
}

/** Going to a lower version is a rollback, so that automatic triggers do not undo it. */
async function actionOf(goal: Goal, target: Target, signal: AbortSignal): Promise<RunAction> {
  switch (goal.kind) {
    case "latest":
    case "redo":
      return "apply";
    case "steps":
      return goal.direction === "up" ? "apply" : "rollback";
    case "version": {
      const { position } = await target.driver.state(target.stream, signal);
      return position.version !== null && compareVersions(goal.version, position.version) < 0
        ? "rollback"
        : "apply";
    }
  }
}

/** Who runs this, for the history: the operating system's user, or its number where a container gave it no name. */
export function whoAmI(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    return `uid ${process.getuid?.() ?? "?"}@${hostname()}`;
  }
}
