import { RunnerError } from "../error.ts";
import type { HistoryEntry, Position } from "../history/entry.ts";
import { formatDigest, sha256Hex } from "../migration/checksum.ts";
import type { Direction, Migration } from "../migration/migration.ts";
import { compareVersions, versionKey } from "../migration/version.ts";
import { emptyChain } from "../release/chain.ts";
import type { Release } from "../release/release.ts";
import type { Goal, Plan, Step } from "./plan.ts";
import {
  halfDoneRepeatable,
  pendingRepeatables,
  repeatableStep,
  type AppliedRepeatables,
} from "./repeatable.ts";
import { downStep, isHalfDone, stepsUp, upStep } from "./step.ts";

/** Where a database stands, as far as a plan depends on it. */
export interface Standing {
  readonly position: Position;
  /** newest entry that had an effect, when it is not done */
  readonly unfinished: HistoryEntry | null;
  readonly repeatables: AppliedRepeatables;
}

/**
 * The steps that bring a database from where it stands to where `goal` wants it. Pure; the same answer for the same arguments.
 *
 * The caller has made sure that what is applied is the beginning of the release (`assertContinues`).
 *
 * @throws RunnerError `UNKNOWN_VERSION`, `WRONG_DIRECTION` - the goal names a version that is not there, or is on the other side
 * @throws RunnerError `NO_DOWN` - a step back has no down file; never skipped
 * @throws RunnerError `NEEDS_ATTENTION` - a half-done migration is in the way of another step
 */
export function makePlan(release: Release, standing: Standing, goal: Goal): Plan {
  const { position } = standing;
  const endLength = goal.kind === "redo" ? position.length : goalLength(release, position.length, goal);
  const opening = openingSteps(release, standing);
  const steps =
    goal.kind === "redo" ? redoSteps(release, position.length) : stepsBetween(release, standing, endLength);
  const closing = isToTheEnd(release, endLength, goal) ? closingSteps(release, standing, opening) : [];
  const resumed = resume([...opening, ...register(steps, release), ...closing], standing.unfinished);
  return {
    stream: release.stream,
    from: position,
    to: positionAt(release, endLength),
    steps: resumed,
    releaseDigest: release.digest,
    digest: planDigest(release.stream, position, resumed),
  };
}

/** Digest of a plan: over where it starts and what it runs in which order. */
export function planDigest(stream: string, from: Position, steps: readonly Step[]): string {
  const lines = [
    "lockkeeper/plan/v1",
    stream,
    `${from.length} ${from.chain ?? emptyChain(stream)}`,
    ...steps.map(
      ({ direction, migration, body }) => `${direction} ${migration.seq} ${migration.version} ${body.sha256}`,
    ),
  ];
  return formatDigest(sha256Hex(`${lines.join("\n")}\n`));
}

/** The position that a database has with the first `length` migrations of `release` applied. */
export function positionAt(release: Release, length: number): Position {
  const last = release.migrations[length - 1];
  return { length, chain: last?.chain ?? null, version: last?.version ?? null };
}

/** The first migrations of a release, up to and including `version`. */
export function migrationsUpTo(release: Release, version: string): readonly Migration[] {
  return release.migrations.slice(0, lengthOf(release, version));
}

function stepsBetween(release: Release, { position, unfinished }: Standing, to: number): readonly Step[] {
  if (to >= position.length) return stepsUp(release, position.length, to, unfinished);
  return release.migrations.slice(to, position.length).toReversed().map(downStep);
}

/** Repeatable migrations come after all others, once those are all there. */
function isToTheEnd(release: Release, endLength: number, goal: Goal): boolean {
  if (endLength !== release.migrations.length) return false;
  switch (goal.kind) {
    case "latest":
      return true;
    case "steps":
      return goal.direction === "up";
    case "version":
      return goal.allow !== "down";
    case "redo":
      return false;
  }
}

function closingSteps(
  release: Release,
  { repeatables }: Standing,
  opening: readonly Step[],
): readonly Step[] {
  return pendingRepeatables(release, repeatables)
    .filter(({ path }) => !opening.some(({ body }) => body.path === path))
    .map(repeatableStep);
}

/** What is half done in a way that no other step goes on with: only when it is finished can anything else begin. */
function openingSteps(release: Release, { position, unfinished }: Standing): readonly Step[] {
  const repeatable = halfDoneRepeatable(release, unfinished);
  if (repeatable !== undefined) return [repeatableStep(repeatable)];
  if (unfinished?.direction !== "down" || unfinished.seq <= position.length) return [];
  const migration = release.migrations[unfinished.seq - 1];
  return migration === undefined ? [] : [downStep(migration)];
}

function redoSteps(release: Release, length: number): readonly Step[] {
  const last = release.migrations[length - 1];
  if (last === undefined) {
    throw new RunnerError("UNKNOWN_VERSION", "there is nothing to redo: no migration is applied", {
      hint: "run up first",
    });
  }
  return [downStep(last), upStep(last)];
}

function goalLength(release: Release, length: number, goal: Exclude<Goal, { kind: "redo" }>): number {
  switch (goal.kind) {
    case "latest":
      return release.migrations.length;
    case "steps":
      return goal.direction === "up"
        ? Math.min(length + goal.count, release.migrations.length)
        : Math.max(length - goal.count, 0);
    case "version": {
      const target = lengthOf(release, goal.version);
      assertDirection(goal, length, target);
      return target;
    }
  }
}

function lengthOf(release: Release, version: string): number {
  const index = release.migrations.findIndex(
    (migration) => compareVersions(migration.version, version) === 0,
  );
  if (index >= 0) return index + 1;
  if (/^0+$/.test(version)) return 0;
  const last = release.migrations.at(-1);
  throw new RunnerError(
    "UNKNOWN_VERSION",
    `the release has no version "${version}"; its last is "${last?.version ?? "none"}"`,
    {
      hint: 'name a version of the release, or "0" for none',
      fields: { version },
    },
  );
}

function assertDirection(
  goal: { readonly version: string; readonly allow: Direction | "both" },
  length: number,
  target: number,
): void {
  const needed: Direction = target < length ? "down" : "up";
  if (target === length || goal.allow === "both" || goal.allow === needed) return;
  const verb = needed === "down" ? "rollback (down, goto)" : "apply (up, goto)";
  throw new RunnerError(
    "WRONG_DIRECTION",
    `version "${goal.version}" lies ${needed === "down" ? "below" : "above"} what is applied`,
    {
      hint: `ask for ${verb} if that is what you want`,
      fields: { version: goal.version },
    },
  );
}

/** Adds what the release's registry says of each step upwards. */
function register(steps: readonly Step[], { registry }: Release): readonly Step[] {
  if (registry === undefined) return steps;
  const known = new Map(registry.migrations.map((entry) => [versionKey(entry.version), entry]));
  return steps.map((step) => {
    if (step.direction === "down") return step;
    const { version } = step.migration;
    const entries = [...step.covers, step.migration].flatMap(
      (one) => known.get(versionKey(one.version)) ?? [],
    );
    const [only, ...others] = entries;
    if (only === undefined) return step;
    if (others.length === 0) return { ...step, registered: { ...only, version } };
    // A checkpoint is all that it covers.
    const breaking = entries.some((entry) => entry.breaking);
    const dependencies = entries.flatMap((entry) => entry.dependencies);
    return { ...step, registered: { version, breaking, dependencies } };
  });
}

/** Lets the first step go on after the statements that an earlier attempt has done. */
function resume(steps: readonly Step[], unfinished: HistoryEntry | null): readonly Step[] {
  if (!isHalfDone(unfinished)) return steps;
  const [first, ...rest] = steps;
  if (first === undefined) return steps;
  if (first.migration.seq !== unfinished.seq || first.direction !== unfinished.direction) {
    throw new RunnerError(
      "NEEDS_ATTENTION",
      `"${unfinished.path}" (${unfinished.direction}) is half done: ${unfinished.statementsDone} of ${unfinished.statements} statements`,
      {
        hint: "run up to finish it first, or correct what is left of it and publish that",
        fields: {
          migration: unfinished.path,
          statement: unfinished.statementsDone,
          statements: unfinished.statements,
        },
      },
    );
  }
  return [{ ...first, resumeAt: unfinished.statementsDone }, ...rest];
}
