import type { StreamState } from "../driver/stream-state.ts";
import type { RunResult } from "../executor/result.ts";
import { formatDuration } from "../report/duration.ts";
import { exitOf } from "./exit-code.ts";
import { describeFailure, formatFailure } from "./failure.ts";
import { formatPairs, formatTable } from "./output.ts";
import type { Paint } from "./output.ts";
import type { Invocation } from "./verb.ts";

/**
 * Writes a run's end to stdout, its error to stderr; gives the exit code.
 *
 * @param exit - of its error, where the verb has one of its own
 */
export function showResult(
  { output, ended }: Pick<Invocation, "output" | "ended">,
  result: RunResult,
  exit = result.error === null ? 0 : exitOf(result.error),
): number {
  const { error, target, outcome, runId } = result;
  output.result(describeResult(result, exit), () => formatResult(result, output.paint.out));
  if (error === null) {
    ended({ kind: "done", words: describeSuccess(result) });
    return 0;
  }
  const state = describeState(result);
  if (!output.isJson) output.stderr.write(`${formatFailure(error, output, state)}\n`);
  const run = outcome === "refused" ? {} : { run: runId };
  ended({ kind: "failed", error, exit, target, state, ...run });
  return exit;
}

/** Tells that a database has what was asked for, and went on since: nothing is to do, and nothing is to be undone. */
export function showAhead(
  { output, ended }: Pick<Invocation, "output" | "ended">,
  target: string,
  { state, what }: { readonly state: StreamState; readonly what: string },
): number {
  const { position, completed } = state;
  const version = position.version ?? "0";
  output.result(
    { target, status: "succeeded", outcome: "noop", has: what, to: version, completed, error: null },
    () =>
      formatPairs([
        ["target", target],
        ["has", `${what}, and more since`],
        ["version", version],
      ]),
  );
  ended({ kind: "done", words: `${target} ${version} (has ${what}, and more since)` });
  return 0;
}

/** `orders-prod 38 -> 42 (4 applied, 12.3 s) release=sha256:… run=…` */
function describeSuccess({ target, from, to, done, durationMs, release, runId }: RunResult): string {
  const [before, after] = [from?.version ?? "0", to?.version ?? "0"];
  const what =
    done.length === 0
      ? `${target} ${after} (nothing to do)`
      : `${target} ${before} -> ${after} (${done.length} done, ${formatDuration(durationMs)})`;
  return `${what}${release === null ? "" : ` release=${release.digest}`}${done.length === 0 ? "" : ` run=${runId}`}`;
}

/** A run's end as programs read it. */
function describeResult(result: RunResult, exit: number): Record<string, unknown> {
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
    error: result.error === null ? null : describeFailure(result.error, exit),
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
