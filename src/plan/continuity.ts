import { RunnerError } from "../error.ts";
import type { HistoryEntry, Position } from "../history/entry.ts";
import type { Release } from "../release/release.ts";

/** Whether what is applied is the beginning of the release, byte for byte; `trust.md` 2.2: applied rows are a prefix of the chain. */
export function continues(release: Release, position: Position): boolean {
  if (position.length === 0) return true;
  return release.migrations[position.length - 1]?.chain === position.chain;
}

/** What to say when it is not: names the first migration that differs. `applied` are the entries in force. */
export function rewritten(release: Release, applied: readonly HistoryEntry[]): RunnerError {
  for (const [index, entry] of applied.entries()) {
    const migration = release.migrations[index];
    if (migration === undefined) {
      return new RunnerError(
        "HISTORY_REWRITTEN",
        `the database has ${applied.length} migrations applied, the release only ${release.migrations.length}: "${entry.path}" is gone`,
        {
          hint: "publish a release that has all that is applied",
          fields: { migration: entry.path, version: entry.version },
        },
      );
    }
    if (migration.chain === entry.chain) continue;
    const isSamePlace = migration.path === entry.path;
    return new RunnerError(
      "HISTORY_REWRITTEN",
      isSamePlace
        ? `"${entry.path}" was changed after it was applied: was sha256:${entry.sha256}, is sha256:${migration.sha256}`
        : `migration ${index + 1} of the release is "${migration.path}", but "${entry.path}" was applied there`,
      {
        hint: "restore what was applied and put the change into a new migration",
        fields: {
          migration: entry.path,
          version: entry.version,
          expected: `sha256:${entry.sha256}`,
          actual: `sha256:${migration.sha256}`,
        },
      },
    );
  }
  return new RunnerError("HISTORY_REWRITTEN", "the database's history is not the beginning of this release", {
    hint: "check that the stream of the release is the one that this database was migrated with",
  });
}
