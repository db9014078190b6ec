import type { LeasedSession } from "../driver/session.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError, type RunnerErrorCode } from "../error.ts";
import { automaticTriggers, type RunTrigger } from "../history/run.ts";
import { assertRootKnown } from "../release/trust/anchor.ts";
import type { HighWaterMark, Release } from "../release/release.ts";
import { checkHighWaterMark } from "../release/verify.ts";
import { isProduction } from "./production.ts";
import type { Step } from "../plan/plan.ts";
import type { RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** What of a target decides whether a release may be used on its database. */
export interface Usage {
  readonly name: string;
  readonly environment: string;
  readonly isPaused?: boolean;
}

/** milliseconds between the database's clock and ours, above which no expiry can be judged */
const maxClockSkewMs = 5 * 60_000;

/**
 * Judges a release against what the database remembers, beyond its own signatures.
 *
 * @throws RunnerError `PAUSED`, `WRONG_ENVIRONMENT`, `UNSIGNED_REFUSED`, `CLOCK_SKEW`, `ROLLBACK`, `EQUIVOCATION`, `ROOT_ROLLBACK`
 */
export function assertUsable(
  release: Release | undefined,
  state: StreamState,
  usage: Usage,
  now = new Date(),
): void {
  assertNotPaused(usage);
  // Where the database has what is asked for nothing is about to change, and a pod may start.
  if (state.paused && release !== undefined) {
    throw new RunnerError("PAUSED", `the stream of "${usage.name}" is paused in the database`, {
      hint: "lockkeeper resume ends that; the audit log says who paused it, and why",
    });
  }
  if (state.environment !== null && state.environment !== usage.environment) {
    throw new RunnerError(
      "WRONG_ENVIRONMENT",
      `the database belongs to environment "${state.environment}", the run is for "${usage.environment}"`,
      {
        hint: "check the database URL, or correct --environment",
        fields: { expected: state.environment, actual: usage.environment },
      },
    );
  }
  if (release === undefined) return;
  if (release.kind === "plain") assertMayBeUnsigned(usage);
  if (release.kind === "signed") assertClocksAgree(state, now);
  // once more than when it was fetched: the database may know a newer one by now
  checkHighWaterMark(release, state.highWaterMark);
  assertRootKnown(release.root ?? null, state.rootVersion);
}

/**
 * Judges a target by its configuration alone: where that pauses it, nobody is asked anything.
 *
 * @throws RunnerError `PAUSED`
 */
export function assertNotPaused({ name, isPaused }: Pick<Usage, "name" | "isPaused">): void {
  if (isPaused !== true) return;
  throw new RunnerError("PAUSED", `"${name}" is paused by its configuration`, {
    hint: "take paused: true out of the configuration of this target to go on",
  });
}

/** Only what is signed expires: for all else no clock but the database's counts. */
function assertClocksAgree(state: StreamState, now: Date): void {
  const skewMs = Math.abs(state.now.getTime() - now.getTime());
  if (skewMs <= maxClockSkewMs) return;
  throw new RunnerError(
    "CLOCK_SKEW",
    `the database's clock and this machine's differ by ${Math.round(skewMs / 1000)} s`,
    {
      hint: "correct the clocks: whether a release has expired cannot be judged",
    },
  );
}

/**
 * Failures that the same release would meet again. Not among them: what another moment may bring, such as a lock, a
 * deadline or a database that was away.
 */
export const stickyFailures: ReadonlySet<RunnerErrorCode> = new Set([
  "MIGRATION_FAILED",
  "NEEDS_ATTENTION",
  "NO_PROGRESS",
]);

/**
 * Judges a run that would change the database: what starts by itself does not undo a rollback, and does not try a
 * release again that failed here. Whoever asks in person is never stopped by either.
 *
 * @throws RunnerError `HELD`, `FAILED_BEFORE`
 */
export function assertMayStart(
  trigger: RunTrigger,
  release: Release,
  { held, failed }: Pick<StreamState, "held" | "failed">,
  { name }: Usage,
): void {
  if (!automaticTriggers.has(trigger)) return;
  if (held !== null && !isNewer(release, held.highWaterMark)) {
    throw new RunnerError(
      "HELD",
      `"${name}" is held at version "${held.version ?? "0"}" since run ${held.runId}: ${held.reason}`,
      {
        hint: "publish a newer release; or apply this one in person, with lockkeeper up or POST /v1/runs",
        fields: { run: held.runId, version: held.version, release: release.digest },
      },
    );
  }
  if (failed?.digest !== release.digest) return;
  throw new RunnerError(
    "FAILED_BEFORE",
    `this release failed on "${name}" before, in run ${failed.runId}: ${failed.error.message}`,
    {
      hint: "correct the migration and publish it; or try again in person, with lockkeeper up or POST /v1/runs",
      fields: {
        ...failed.error.fields,
        run: failed.runId,
        release: release.digest,
        failure: failed.error.code,
      },
    },
  );
}

/**
 * Judges a run's steps, and those of its way back: a server runs no programs that somebody else has written.
 *
 * @throws RunnerError `CODE_REFUSED`
 */
export function assertMayRunCode(
  steps: readonly Step[],
  { name, mayRunCode }: Pick<Target, "name" | "mayRunCode">,
): void {
  const first = steps.find(({ body }) => body.code === true);
  if (first === undefined || mayRunCode === true) return;
  const { path } = first.body;
  throw new RunnerError("CODE_REFUSED", `"${path}" is a program, and programs are not run here`, {
    hint: `apply it to "${name}" from the command line or an init container: lockkeeper up, or converge; a server never runs programs`,
    fields: { migration: path, version: first.migration.version },
  });
}

/**
 * Judges the same steps under the lease, when it is known what the server has: a program is one transaction.
 *
 * @throws RunnerError `DATABASE_UNSUPPORTED`
 */
export function assertTakesCode(
  steps: readonly Step[],
  { applyFunction }: Pick<LeasedSession, "applyFunction">,
): void {
  const first = steps.find(({ body }) => body.code === true);
  if (first === undefined || applyFunction !== undefined) return;
  const { path } = first.body;
  throw new RunnerError(
    "DATABASE_UNSUPPORTED",
    `"${path}" is a program, which runs in one transaction, and this server has none: it is no member of a replica set`,
    {
      hint: "run the server as a replica set, of one member if need be, or write the migration as commands",
      fields: { migration: path, version: first.migration.version },
    },
  );
}

/** Only signed releases have an order; the first signed one is newer than any folder. */
function isNewer({ rank }: Release, mark: HighWaterMark | null): boolean {
  if (rank === undefined) return false;
  return mark === null || (rank.epoch - mark.epoch || rank.version - mark.version) > 0;
}

function assertMayBeUnsigned({ environment }: Usage): void {
  if (!isProduction(environment)) return;
  throw new RunnerError("UNSIGNED_REFUSED", `environment "${environment}" takes signed releases only`, {
    hint: "publish the folder as a signed release",
  });
}

/**
 * A run that goes on after another executor: whether it ended while nobody had it.
 *
 * @throws RunnerError `CANCELED`, `DEADLINE`
 */
export function assertNotOver({ resumed }: RunRequest): void {
  const hint = "run again to go on where it stopped";
  if (resumed?.isCanceled === true)
    throw new RunnerError("CANCELED", "the run was asked to stop before it could go on", { hint });
  if (resumed?.isLate === true)
    throw new RunnerError("DEADLINE", "the run's deadline passed before it could go on", { hint });
}

/**
 * An entry that is still `started` under our lease belongs to a runner that died in the middle of it: the driver finds
 * out how far it came. Only where it could not does a person have to say.
 *
 * @throws RunnerError `NEEDS_ATTENTION`
 */
export function assertOutcomeKnown({ unfinished }: StreamState): void {
  if (unfinished?.status !== "needs_attention") return;
  const { path, direction, error, version, runId, statements } = unfinished;
  const statement = unfinished.statementsDone + 1;
  throw new RunnerError(
    "NEEDS_ATTENTION",
    error?.message ??
      `"${path}" (${direction}): whether statement ${statement} of ${statements} took effect is not known`,
    {
      hint:
        error?.hint ??
        'look whether it did, then say so: lockkeeper repair --as applied|not-applied --reason "…"',
      fields: { migration: path, version, direction, statement, statements, ...error?.fields, run: runId },
    },
  );
}
