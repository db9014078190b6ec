import { placeName } from "../history/foreign.ts";
import { emptyChain, formatChainEnd } from "../release/chain.ts";
import type { TargetStatus } from "../status/status.ts";
import { formatDuration } from "../report/duration.ts";
import { redactText } from "../report/redact.ts";
import { describeFailure } from "./failure.ts";
import { formatPairs, formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** Pending migrations that are listed for a person; the number of all of them is always told. */
const shownPending = 20;

/** A status as programs read it. */
export function describeStatus(status: TargetStatus): Record<string, unknown> {
  return {
    target: status.target,
    stream: status.stream,
    environment: status.environment,
    version: status.position.version,
    applied: status.position.length,
    chain: formatChainEnd({
      length: status.position.length,
      head: status.position.chain ?? emptyChain(status.stream),
    }),
    completed: status.completed,
    release: status.release,
    fresh: status.fresh,
    stale: status.stale === null ? null : describeFailure(status.stale),
    pending: status.pending,
    attention: status.unfinished,
    held: status.held,
    failed: status.failed,
    paused: status.paused !== null,
    inStep: status.inStep === null ? null : { tool: status.inStep.tool, table: placeName(status.inStep) },
    lease: status.lease,
    last: status.applied.at(-1) ?? null,
    problem: status.problem === null ? null : describeFailure(status.problem),
  };
}

/** A status as one page for a person. */
export function formatStatus(status: TargetStatus, paint: Paint): string {
  const last = status.applied.at(-1);
  const head = formatPairs([
    ["target", status.target],
    ["stream", `${status.stream}, environment ${status.environment}`],
    ["version", `${paint.strong(status.position.version ?? "0")} (${status.position.length} applied)`],
    [
      "last",
      last === undefined
        ? undefined
        : `${last.path} at ${last.startedAt.toISOString()} by ${last.appliedBy}, ${formatDuration(last.durationMs)}`,
    ],
    ["release", releaseOf(status, paint)],
    ["pending", pendingOf(status, paint)],
    [status.unfinished?.status === "failed" ? "failed" : "attention", attentionOf(status, paint)],
    [
      "held",
      status.held === null
        ? undefined
        : paint.warn(
            `${status.held.reason}, at ${status.held.version ?? "0"} since run ${status.held.runId}; what starts by itself waits for a newer release, "lockkeeper up" goes on`,
          ),
    ],
    ["given up", givenUpOf(status, paint)],
    ["paused", pausedOf(status, paint)],
    [
      "in step",
      status.inStep === null
        ? undefined
        : `${placeName(status.inStep)}, so that ${status.inStep.tool} can take over again`,
    ],
    ["lease", leaseOf(status, paint)],
    ["problem", problemOf(status, paint)],
  ]);
  if (status.pending.length === 0) return head;
  const rows = status.pending.slice(0, shownPending).map(({ version, path }) => [version, path]);
  const more = status.pending.length - rows.length;
  return `${head}\n\n${formatTable(["pending", "migration"], rows, paint)}${more > 0 ? `\n… and ${more} more` : ""}`;
}

function releaseOf({ release, completed, stale }: TargetStatus, paint: Paint): string | undefined {
  if (release === null) return undefined;
  const version = release.version === null ? "" : ` version ${release.version}`;
  const state = stale
    ? paint.bad(
        stale.code === "RELEASE_EXPIRED"
          ? ", expired: publish it anew"
          : `, not fresh: ${stale.message} (${stale.code})`,
      )
    : completed === release.digest
      ? ", applied whole"
      : "";
  return `${release.digest}${version}${state}`;
}

function pendingOf({ pending, problem }: TargetStatus, paint: Paint): string {
  if (problem !== null) return paint.warn("unknown, see problem");
  return pending.length === 0 ? paint.good("none") : paint.warn(String(pending.length));
}

function attentionOf({ unfinished, lease }: TargetStatus, paint: Paint): string | undefined {
  if (unfinished === null) return undefined;
  const { checkpoint } = unfinished;
  const isBackfill = checkpoint?.kind === "backfill";
  const done = isBackfill
    ? `a backfill, ${checkpoint.rows} rows changed`
    : `${unfinished.statementsDone} of ${unfinished.statements} statements done`;
  const where = `${unfinished.path} (${unfinished.direction}), ${done}`;
  const why = unfinished.error === null ? "" : `: ${redactText(unfinished.error.message)}`;
  if (unfinished.status === "failed") return paint.bad(`${where}${why}; correct it and run up again`);
  // a runner that works holds the lease
  if (unfinished.status === "started" && lease !== null)
    return paint.warn(`${where}, under way, or its runner died`);
  // its cursor says what is done, so nobody has to decide anything
  if (unfinished.status === "started" && isBackfill)
    return paint.warn(`${where}; its runner died, up goes on behind them`);
  return paint.bad(
    `${where}, statement ${unfinished.statementsDone + 1} unknown${why}; decide with "lockkeeper repair"`,
  );
}

/** Only where it says more than the failed entry does. */
function pausedOf({ paused }: TargetStatus, paint: Paint): string | undefined {
  switch (paused) {
    case null:
      return undefined;
    case "configuration":
      return paint.warn("yes, by its configuration: nothing is applied");
    case "database":
      return paint.warn('yes, in the database: nothing is applied until "lockkeeper resume"');
  }
}

function givenUpOf({ failed }: TargetStatus, paint: Paint): string | undefined {
  if (failed === null) return undefined;
  return paint.warn(
    `release ${failed.digest} failed in run ${failed.runId} (${failed.error.code}); what starts by itself does not try it again, "lockkeeper up" does`,
  );
}

function leaseOf({ lease }: TargetStatus, paint: Paint): string | undefined {
  if (lease === null) return undefined;
  return paint.warn(`held by ${lease.holder}, run ${lease.runId}, since ${lease.acquiredAt.toISOString()}`);
}

function problemOf({ problem }: TargetStatus, paint: Paint): string | undefined {
  if (problem === null) return undefined;
  return `${paint.bad(problem.code)} ${redactText(problem.message)}${problem.hint === undefined ? "" : `; ${redactText(problem.hint)}`}`;
}
