import type { HistoryEntry, Position } from "../history/entry.ts";
import type { Body } from "../migration/migration.ts";
import type { Release } from "../release/release.ts";
import type { Step } from "./plan.ts";
import { isHalfDone } from "./step.ts";

/** What a database says of repeatable migrations: sha256 of what was applied last, by path. */
export type AppliedRepeatables = Readonly<Record<string, string>>;

/** Those of a release that the database has not, or has as they were before. */
export function pendingRepeatables({ repeatable }: Release, applied: AppliedRepeatables): readonly Body[] {
  return repeatable.filter(({ path, sha256 }) => applied[path] !== sha256);
}

/** A repeatable migration as a step: it has no place in the sequence, and moves no position. */
export function repeatableStep(body: Body): Step {
  return {
    direction: "up",
    migration: { ...body, seq: 0, version: "", chain: "" },
    body,
    covers: [],
    resumeAt: 0,
  };
}

/** The one that an earlier run has left half done, in front of all else. */
export function halfDoneRepeatable(
  { repeatable }: Release,
  unfinished: HistoryEntry | null,
): Body | undefined {
  if (!isHalfDone(unfinished) || unfinished.seq !== 0) return undefined;
  return repeatable.find(({ path }) => path === unfinished.path);
}

/** Whether a database at `position` has all of a release, once `steps` are done. */
export function isComplete(
  release: Release,
  position: Position,
  applied: AppliedRepeatables,
  steps: readonly Step[] = [],
): boolean {
  const done = new Set(steps.map(({ body }) => body.sha256));
  return (
    position.length === release.migrations.length &&
    pendingRepeatables(release, applied).every(({ sha256 }) => done.has(sha256))
  );
}
