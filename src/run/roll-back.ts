import type { LeasedSession } from "../driver/session.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError, toRunnerError } from "../error.ts";
import { execute, type ExecuteOptions } from "../executor/execute.ts";
import type { HistoryEntry, Position } from "../history/entry.ts";
import { planDigest, positionAt } from "../plan/make-plan.ts";
import type { Plan, Step } from "../plan/plan.ts";
import type { Release } from "../release/release.ts";
import type { RunRequest } from "./request.ts";
import type { OnFailure } from "./target.ts";

/** How a run goes back to where it began. */
export interface WayBack {
  readonly start: Position;
  /** the down files of all that the run applies, newest first */
  readonly steps: readonly Step[];
  /** statements of the run's first migration that an earlier run has done: that is where this one began */
  readonly doneBefore: number;
}

/**
 * How to take back what a plan applies; undefined where a failure is to leave it.
 * Found before the first step, because a rollback that cannot be done must not be discovered in the middle of one.
 *
 * @param usual - what the target's configuration says
 * @throws RunnerError `NO_DOWN` - a migration of the run has no down file
 * @throws RunnerError `USAGE` - asked for a plan that itself goes back: it could only be taken back by going up
 */
export function findWayBack(
  release: Release,
  plan: Plan,
  { onFailure, resumed }: Pick<RunRequest, "onFailure" | "resumed">,
  usual: OnFailure | undefined,
): WayBack | undefined {
  if ((onFailure ?? usual ?? "keep") === "keep") return undefined;
  if (
    plan.steps.some(({ direction, migration }) => direction === "down" && migration.seq <= plan.from.length)
  ) {
    if (onFailure === undefined) return undefined;
    throw new RunnerError(
      "USAGE",
      "--on-failure rollback is for runs that go up; this one takes back itself",
      {
        hint: "leave it out: where a down file fails, those before it stay taken back",
      },
    );
  }
  const start = resumed?.hasBegun === true ? positionOf(release, resumed.fromVersion, plan) : plan.from;
  return {
    start,
    steps: release.migrations.slice(start.length, plan.to.length).map(downStep).toReversed(),
    doneBefore: resumed?.hasBegun === true ? 0 : (plan.steps[0]?.resumeAt ?? 0),
  };
}

/** Whether a rollback that this very run began did not come to its end: then that is what is left to do. */
export function isRollingBack({ held }: Pick<StreamState, "held">, { id, action }: RunRequest): boolean {
  return action === "apply" && held?.runId === id;
}

/** What a rollback needs besides the steps. */
export interface RollBackOptions extends Omit<ExecuteOptions, "unfinished"> {
  readonly runId: string;
}

/** What came of a rollback. */
export interface RolledBack {
  /** the database stands where the run began */
  readonly isWhole: boolean;
  /** why the run failed, with what became of the rollback */
  readonly error: RunnerError;
}

/**
 * Takes back under the held lease what the run has applied, because a migration failed. The stream is held from the
 * start, so that nothing automatic goes up again, whatever becomes of this process.
 *
 * @returns undefined where there is nothing to take back, or the failure was not the migration's own
 * @throws RunnerError `LEASE_LOST`, `CANCELED`, `DEADLINE` - the rollback stopped; the message says so
 */
export async function rollBack(
  plan: Plan,
  back: WayBack,
  failure: RunnerError,
  session: LeasedSession,
  options: RollBackOptions,
): Promise<RolledBack | undefined> {
  if (!isOfMigration(failure) || session.signal.aborted) return undefined;
  const state = await session.state();
  if (stepsBack(state, back).length === 0) return undefined;
  const reason = `${String(failure.fields["migration"])} failed, and the run was rolled back`;
  const { highWaterMark } = state;
  const hold = { runId: options.runId, version: back.start.version, reason, highWaterMark };
  await session.finish({ status: "running", held: hold });
  return takeBack(plan, back, failure, state, session, options);
}

/**
 * Goes on with a rollback whose executor was lost.
 *
 * @param entries - what the run has done so far, oldest first
 */
export function resumeRollBack(
  plan: Plan,
  back: WayBack,
  entries: readonly HistoryEntry[],
  state: StreamState,
  session: LeasedSession,
  options: RollBackOptions,
): Promise<RolledBack> {
  const failed = entries.findLast(({ direction, error }) => direction === "up" && error !== null)?.error;
  const failure =
    failed === undefined || failed === null
      ? new RunnerError("MIGRATION_FAILED", "a migration failed in an earlier attempt at this run")
      : new RunnerError(failed.code, failed.message, {
          ...(failed.hint === null ? {} : { hint: failed.hint }),
          fields: failed.fields,
        });
  return takeBack(plan, back, failure, state, session, options);
}

async function takeBack(
  plan: Plan,
  back: WayBack,
  failure: RunnerError,
  state: StreamState,
  session: LeasedSession,
  options: RollBackOptions,
): Promise<RolledBack> {
  const from = state.position;
  const steps = stepsBack(state, back);
  options.emit({ kind: "rollback.started", steps: steps.length, to: back.start.version });
  const digest = planDigest(plan.stream, from, steps);
  const second = await execute({ ...plan, from, to: back.start, steps, digest }, session, {
    ...options,
    unfinished: state.unfinished,
  }).catch((cause: unknown) => {
    throw cutOff(failure, session.signal.aborted ? session.signal.reason : cause);
  });
  if (second === null) return { isWhole: true, error: rolledBack(failure, back, steps.length) };
  if (!isOfMigration(second)) throw cutOff(failure, second);
  const { position } = await session.state();
  return { isWhole: false, error: stuck(failure, second, position.version) };
}

/** A circumstance, such as a lost connection, is no reason to take anything back; nor is what a person has to look at first. */
function isOfMigration({ code }: RunnerError): boolean {
  return code === "MIGRATION_FAILED" || code === "LOCK_TIMEOUT";
}

/** What is there of the way back: all that is applied, and the migration that is there in part. */
function stepsBack({ position, unfinished }: StreamState, back: WayBack): readonly Step[] {
  const part = unfinished?.seq === position.length + 1 && isPartlyThere(unfinished, back) ? unfinished : null;
  const resumeAt = part?.direction === "down" ? part.statementsDone : 0;
  return back.steps
    .filter(({ migration }) => migration.seq <= position.length || migration.seq === part?.seq)
    .map((step) => (step.migration.seq === part?.seq ? { ...step, resumeAt } : step));
}

function isPartlyThere({ seq, direction, statementsDone, checkpoint }: HistoryEntry, back: WayBack): boolean {
  const doneBefore = seq === back.start.length + 1 ? back.doneBefore : 0;
  return direction === "down" || statementsDone > doneBefore || checkpoint !== null;
}

function positionOf(release: Release, version: string | null, plan: Plan): Position {
  if (version === null) return positionAt(release, 0);
  const index = release.migrations.findIndex((migration) => migration.version === version);
  // Nothing is taken back that could have been there before.
  return index < 0 ? plan.from : positionAt(release, index + 1);
}

function downStep(migration: Step["migration"]): Step {
  if (migration.down !== undefined)
    return { direction: "down", migration, body: migration.down, covers: [], resumeAt: 0 };
  throw new RunnerError(
    "NO_DOWN",
    `"${migration.path}" has no down file, so this run could not be rolled back; nothing was changed`,
    {
      hint: "write the down file and publish it, or run with --on-failure keep",
      fields: { migration: migration.path, version: migration.version },
    },
  );
}

function rolledBack(failure: RunnerError, { start }: WayBack, steps: number): RunnerError {
  const count = steps === 1 ? "1 migration was" : `${steps} migrations were`;
  return retold(
    failure,
    `${count} taken back, and the database is at version "${start.version ?? "0"}", where the run began`,
    failure.hint,
    { rollback: "done", takenBack: steps },
  );
}

function stuck(failure: RunnerError, second: RunnerError, version: string | null): RunnerError {
  return retold(
    failure,
    `taking back what the run had applied failed as well: ${second.message}; the database is at version "${version ?? "0"}"`,
    "correct the down file and go down, or correct the migration and go up: both go on from there",
    {
      rollback: "failed",
      rollbackMigration: second.fields["migration"] ?? null,
      rollbackCode: second.code,
    },
  );
}

/** The run ends, or is handed over, for the reason that stopped it; why it was going back is told as well. */
function cutOff(failure: RunnerError, reason: unknown): RunnerError {
  const cause = toRunnerError(reason);
  return new RunnerError(
    cause.code,
    `${cause.message}; the run was taking back what it had applied, because ${failure.message}`,
    {
      hint: "look at the history for how far it came; up and down both go on from there",
      fields: { ...failure.fields, ...cause.fields, rollback: "stopped" },
      cause,
    },
  );
}

function retold(
  failure: RunnerError,
  what: string,
  hint: string | undefined,
  fields: RunnerError["fields"],
): RunnerError {
  return new RunnerError(failure.code, `${failure.message}; ${what}`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { ...failure.fields, ...fields },
    cause: failure.cause,
  });
}
