import { userInfo, hostname } from "node:os";
import type { RunAction } from "../history/run.ts";
import type { Goal } from "../plan/plan.ts";
import type { RunResult } from "../executor/result.ts";
import { compareVersions } from "../migration/version.ts";
import type { Target } from "../runner.ts";
import { formatDuration } from "../report/duration.ts";
import { exitOf } from "./exit-code.ts";
import { describeFailure, formatFailure } from "./failure.ts";
import { allowBreaking, chooseTarget, onFailure, plan, release } from "./flags.ts";
import { formatTable } from "./output.ts";
import type { Output, Paint } from "./output.ts";
import { openReporter } from "./reporter.ts";
import type { Invocation } from "./verb.ts";

/** Runs a change and shows how it goes and how it ended; gives the exit code. */
export async function changeDatabase(
  invocation: Invocation,
  goal: Goal,
  trigger: "cli" | "converge" = "cli",
): Promise<number> {
  const { context, output, signal, get } = invocation;
  const [wiring, runner] = await Promise.all([context.wire(), import("../runner.ts")]);
  const isUp = goal.kind === "latest" || (goal.kind === "steps" && goal.direction === "up");
  const asked = get(onFailure);
  await using opened = await wiring.openTarget(
    chooseTarget(invocation),
    isUp && asked !== "rollback" ? "up" : "both",
  );
  const reporter = await openReporter(output);
  try {
    const result = await runner.run(
      {
        id: runner.newRunId(opened.target.name),
        action: await actionOf(goal, opened.target, signal),
        goal,
        release: get(release) ?? null,
        plan: get(plan) ?? null,
        trigger,
        caller: { issuer: "cli", subject: whoAmI(), rule: null },
        labels: {},
        limits: opened.target.limits,
        ...(asked === undefined ? {} : { onFailure: asked }),
        ...(get(allowBreaking) ? { allow: ["breaking"] } : {}),
        isAccepted: false,
      },
      opened.target,
      { signal, emit: reporter.emit, now: () => new Date() },
    );
    reporter.end();
    return showResult(result, output);
  } finally {
    reporter.end();
  }
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

/** Writes a run's end to stdout, its error to stderr; gives the exit code. */
function showResult(result: RunResult, output: Output): number {
  output.result(describeResult(result), () => formatResult(result, output.paint.out));
  if (result.error === null) return 0;
  if (!output.isJson) output.stderr.write(`${formatFailure(result.error, output, describeState(result))}\n`);
  return exitOf(result.error);
}

/** A run's end as programs read it. */
export function describeResult(result: RunResult): Record<string, unknown> {
  return {
    run: result.runId,
    target: result.target,
    status: result.status,
    outcome: result.outcome,
    release: result.release,
    fresh: result.fresh,
    from: result.from?.version ?? null,
    to: result.to?.version ?? null,
    done: result.done,
    left: result.left,
    durationMs: result.durationMs,
    backup: result.backup,
    audit: result.audit,
    error: result.error === null ? null : describeFailure(result.error),
  };
}

function formatResult(result: RunResult, paint: Paint): string {
  const at = result.to === null ? "" : `; ${result.target} is at ${result.to.version ?? "0"}`;
  const took = formatDuration(result.durationMs);
  if (result.done.length === 0) return result.error === null ? `${paint.good("nothing to do")}${at}` : "";
  const rows = result.done.map((step) => [
    step.version,
    step.direction,
    step.path,
    formatDuration(step.durationMs),
  ]);
  const table = formatTable(["version", "direction", "migration", "took"], rows, paint);
  const count = `${result.done.length} ${result.done.length === 1 ? "migration" : "migrations"}`;
  const left = result.left === 0 ? "" : `, ${result.left} left`;
  const did = result.outcome === "rolled_back" && result.error !== null ? "rolled back" : `${count} done`;
  const summary = `${did} in ${took}${left}${at}`;
  return `${table}\n\n${result.error === null ? paint.good(summary) : summary}`;
}

/** The state that a run which did not succeed left the database in, in words. */
function describeState(result: RunResult): string {
  if (result.from === null) return "not reached; nothing was changed";
  if (result.to === null) return 'unknown: it could not be asked; "lockkeeper status" tells when it can be';
  const at = `at version ${result.to.version ?? "0"}`;
  if (result.outcome === "rolled_back")
    return `${at}, where the run began; it is held until a person, or a newer release, comes`;
  const before = result.done.length === 0 ? `unchanged, ${at}` : `${at} after ${result.done.length} done`;
  const left = result.left === 0 ? "" : `; ${result.left} left`;
  const { statement, statements, rollback } = result.error?.fields ?? {};
  if (rollback === "failed" || rollback === "stopped")
    return `${at}, in the middle of a rollback${left}; it is held until a person, or a newer release, comes`;
  switch (result.error?.code) {
    case "MIGRATION_FAILED":
    case "LOCK_TIMEOUT":
      return typeof statement === "number" && statement > 1
        ? `${at}, and ${statement - 1} of ${String(statements)} statements of the failed migration; the next run goes on after them${left}`
        : `${before}; the failed migration left nothing behind${left}`;
    case "NEEDS_ATTENTION":
      return `${at}; one migration needs attention: see "lockkeeper status"${left}`;
    default:
      return `${before}${left}`;
  }
}
