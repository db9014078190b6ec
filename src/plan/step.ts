import { RunnerError } from "../error.ts";
import type { HistoryEntry } from "../history/entry.ts";
import type { Migration } from "../migration/migration.ts";
import type { Release } from "../release/release.ts";
import type { Step } from "./plan.ts";

/**
 * The steps from the first `from` migrations of a release to the first `to`; an empty database takes the newest
 * checkpoint on the way.
 *
 * @param unfinished - what an earlier run has left half done decides the way that is gone on
 */
export function stepsUp(
  release: Release,
  from: number,
  to: number,
  unfinished: HistoryEntry | null,
): readonly Step[] {
  const start = from === 0 ? checkpointStep(release, to, unfinished) : undefined;
  if (start === undefined) return release.migrations.slice(from, to).map(upStep);
  return [start, ...release.migrations.slice(start.migration.seq, to).map(upStep)];
}

/** One migration applied. */
export function upStep(migration: Migration): Step {
  return { direction: "up", migration, body: migration, covers: [], resumeAt: 0 };
}

/**
 * One migration taken back.
 *
 * @throws RunnerError `NO_DOWN` - it has no down file; never skipped
 */
export function downStep(migration: Migration): Step {
  if (migration.down === undefined) {
    throw new RunnerError("NO_DOWN", `"${migration.path}" has no down file, so it cannot be taken back`, {
      hint: "write the down file and publish it, or go forward with a new migration",
      fields: { migration: migration.path, version: migration.version },
    });
  }
  return { direction: "down", migration, body: migration.down, covers: [], resumeAt: 0 };
}

/** Whether some of an attempt has taken effect, or nobody knows. */
export function isHalfDone(unfinished: HistoryEntry | null): unfinished is HistoryEntry {
  return unfinished !== null && (unfinished.statementsDone > 0 || unfinished.checkpoint !== null);
}

function checkpointStep(release: Release, to: number, unfinished: HistoryEntry | null): Step | undefined {
  const isOpen = ({ seq, checkpoint }: Migration): boolean =>
    checkpoint !== undefined &&
    (!isHalfDone(unfinished) || (unfinished.seq === seq && unfinished.path === checkpoint.path));
  const migration = release.migrations.slice(0, to).findLast(isOpen);
  if (migration?.checkpoint === undefined) return undefined;
  const covers = release.migrations.slice(0, migration.seq - 1);
  return { direction: "up", migration, body: migration.checkpoint, covers, resumeAt: 0 };
}
