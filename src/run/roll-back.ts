import type { LeasedSession, StreamState } from "../driver/driver.ts";
import { RunnerError, toRunnerError } from "../error.ts";
import { execute, type ExecuteOptions } from "../executor/execute.ts";
import type { HistoryEntry } from "../history/entry.ts";
import { planDigest } from "../plan/make-plan.ts";
import type { Plan, Step } from "../plan/plan.ts";
import type { OnFailure } from "./target.ts";

/**
 * The steps that could take back what a plan applies, newest first; undefined where a failure is to leave it.
 * Found before the first step, because a rollback that cannot be done must not be discovered in the middle of one.
 *
 * @param asked - by the caller; `usual` is what the target's configuration says
 * @throws RunnerError `NO_DOWN` - a migration of the plan has no down file
 * @throws RunnerError `USAGE` - asked for a plan that itself goes back: it could only be taken back by going up
 */
export function wayBack(
  plan: Plan,
  asked: OnFailure | undefined,
  usual: OnFailure | undefined,
): readonly Step[] | undefined {
  if ((asked ?? usual ?? "keep") === "keep") return undefined;
  if (
    plan.steps.some(({ direction, migration }) => direction === "down" && migration.seq <= plan.from.length)
  ) {
    if (asked === undefined) return undefined;
    throw new RunnerError(
      "USAGE",
      "--on-failure rollback is for runs that go up; this one takes back itself",
      {
        hint: "leave it out: where a down file fails, those before it stay taken back",
      },
    );
  }
  return plan.steps
    .filter(({ direction }) => direction === "up")
    .map(downStep)
    .toReversed();
}

/** What a rollback needs besides the steps. */
export interface RollBackOptions extends ExecuteOptions {
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
 * @param steps - of {@link wayBack}
 * @returns undefined where there is nothing to take back, or the failure was not the migration's own
 * @throws RunnerError `LEASE_LOST`, `CANCELED`, `DEADLINE` - the rollback stopped; the message says so
 */
export async function rollBack(
  plan: Plan,
  steps: readonly Step[],
  failure: RunnerError,
  session: LeasedSession,
  options: RollBackOptions,
): Promise<RolledBack | undefined> {
  if (!isOfMigration(failure) || session.signal.aborted) return undefined;
  const state = await session.state();
  const needed = steps.filter(({ migration }) => isThere(migration.seq, state, plan));
  if (needed.length === 0) return undefined;
  const hold = {
    runId: options.runId,
    version: plan.from.version,
    reason: `${String(failure.fields["migration"])} failed, and the run was rolled back`,
  };
  await session.finish({ status: "running", held: hold });
  options.emit({ kind: "rollback.started", steps: needed.length, to: plan.from.version });
  const from = state.position;
  const back: Plan = {
    ...plan,
    from,
    to: plan.from,
    steps: needed,
    digest: planDigest(plan.stream, from, needed),
  };
  const second = await execute(back, session, { ...options, unfinished: null }).catch((cause: unknown) => {
    throw cutOff(failure, session.signal.aborted ? session.signal.reason : cause);
  });
  if (second === null) return { isWhole: true, error: rolledBack(failure, plan, needed.length) };
  if (!isOfMigration(second)) throw cutOff(failure, second);
  const { position } = await session.state();
  return { isWhole: false, error: stuck(failure, second, position.version) };
}

/** A circumstance, such as a lost connection, is no reason to take anything back; nor is what a person has to look at first. */
function isOfMigration({ code }: RunnerError): boolean {
  return code === "MIGRATION_FAILED" || code === "LOCK_TIMEOUT";
}

/** Whether the run has applied the migration, wholly or, outside a transaction, in part. */
function isThere(seq: number, { position, unfinished }: StreamState, plan: Plan): boolean {
  if (seq <= position.length) return seq > plan.from.length;
  return unfinished?.seq === seq && unfinished.direction === "up" && hasEffect(unfinished, plan);
}

/** Statements done by an earlier run only are where this one began. */
function hasEffect(entry: HistoryEntry, plan: Plan): boolean {
  const resumeAt = plan.steps.find(({ migration }) => migration.seq === entry.seq)?.resumeAt ?? 0;
  return entry.statementsDone > resumeAt || entry.checkpoint !== null;
}

function downStep({ migration }: Step): Step {
  if (migration.down !== undefined)
    return { direction: "down", migration, body: migration.down, resumeAt: 0 };
  throw new RunnerError(
    "NO_DOWN",
    `"${migration.path}" has no down file, so this run could not be rolled back; nothing was changed`,
    {
      hint: "write the down file and publish it, or run with --on-failure keep",
      fields: { migration: migration.path, version: migration.version },
    },
  );
}

function rolledBack(failure: RunnerError, plan: Plan, steps: number): RunnerError {
  const count = steps === 1 ? "1 migration was" : `${steps} migrations were`;
  return retold(
    failure,
    `${count} taken back, and the database is at version "${plan.from.version ?? "0"}", where the run began`,
    { hint: failure.hint, fields: { rollback: "done", takenBack: steps } },
  );
}

function stuck(failure: RunnerError, second: RunnerError, version: string | null): RunnerError {
  return retold(
    failure,
    `taking back what the run had applied failed as well: ${second.message}; the database is at version "${version ?? "0"}"`,
    {
      hint: `correct the down file and go down, or correct the migration and go up: both go on from there`,
      fields: {
        rollback: "failed",
        rollbackMigration: second.fields["migration"] ?? null,
        rollbackCode: second.code,
      },
    },
  );
}

/** The failure's own code would hide why the run ended where it did. */
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
  { hint, fields }: { readonly hint: string | undefined; readonly fields: RunnerError["fields"] },
): RunnerError {
  return new RunnerError(failure.code, `${failure.message}; ${what}`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { ...failure.fields, ...fields },
    cause: failure.cause,
  });
}
