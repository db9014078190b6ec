import { RunnerError } from "../../error.ts";
import { compareVersions } from "../../migration/version.ts";

/** A migration that has its place: applied to a database, or listed by an earlier release. */
export interface SettledMigration {
  readonly version: string;
  readonly path: string;
  readonly sha256: string;
}

/** A migration as its folder holds it now. */
export interface FoundMigration {
  readonly version: string;
  readonly path: string;
  readonly sha256: string;
}

/** Who settled the order: the history of a database, or the release before. */
export type SettledBy = "database" | "release";

const who = { database: "the database", release: "the last release" } as const satisfies Record<
  SettledBy,
  string
>;

/** One place in a sequence: the folder's migration, and what it is where it was settled before. */
export interface Place<S, F> {
  readonly found: F;
  readonly settled: S | undefined;
}

/**
 * The sequence that continues `settled` with what else is in the folder, lowest version first.
 *
 * What is settled keeps its order for ever; a version lower than the highest settled one comes at the end, if it may come at all.
 *
 * @throws RunnerError `DATABASE_AHEAD` — settled migrations above everything in the folder; `HISTORY_REWRITTEN` — another settled one is gone
 * @throws RunnerError `CHANGED_FILE` — a settled one has other bytes now; `OUT_OF_ORDER` — a late lower version, unless `allowLate`
 */
export function continueSequence<S extends SettledMigration, F extends FoundMigration>(
  settled: readonly S[],
  found: readonly F[],
  options: { readonly allowLate: boolean; readonly settledBy: SettledBy },
): readonly Place<S, F>[] {
  const sorted = sortByVersion(found);
  const places: Place<S, F>[] = settled.map((migration) => {
    const now = findVersion(sorted, migration.version);
    if (now === undefined) throw missing(migration, settled, sorted, options.settledBy);
    if (now.sha256 !== migration.sha256) throw changed(migration, now, options.settledBy);
    return { found: now, settled: migration };
  });
  const taken = new Set(places.map((place) => place.found));
  const fresh = sorted.filter((migration) => !taken.has(migration));
  const highest = settled.reduce<string | undefined>(
    (top, { version }) => (top === undefined || compareVersions(version, top) > 0 ? version : top),
    undefined,
  );
  const late =
    highest === undefined ? [] : fresh.filter(({ version }) => compareVersions(version, highest) < 0);
  if (late.length > 0 && !options.allowLate) throw outOfOrder(late, highest ?? "", options.settledBy);
  // sorted by version, the late ones would come first among the fresh; they keep that order, after everything settled
  return [...places, ...fresh.map((migration) => ({ found: migration, settled: undefined }))];
}

/** A copy, lowest version first. */
export function sortByVersion<F extends { readonly version: string }>(
  migrations: readonly F[],
): readonly F[] {
  return migrations.toSorted((a, b) => compareVersions(a.version, b.version));
}

/** The one with this version, in whatever way it is written, in a list made by {@link sortByVersion}. */
export function findVersion<F extends { readonly version: string }>(
  sorted: readonly F[],
  version: string,
): F | undefined {
  let low = 0;
  let high = sorted.length - 1;
  while (low <= high) {
    const middle = (low + high) >>> 1;
    const candidate = sorted[middle];
    if (candidate === undefined) return undefined;
    const order = compareVersions(candidate.version, version);
    if (order === 0) return candidate;
    if (order < 0) low = middle + 1;
    else high = middle - 1;
  }
  return undefined;
}

/** The one case in which what is settled may change. */
const unlessUnapplied = {
  database: "",
  release:
    "; where no database has applied it, --follow <the release before it>, or none where it was the first",
} as const satisfies Record<SettledBy, string>;

function missing(
  migration: SettledMigration,
  settled: readonly SettledMigration[],
  sorted: readonly FoundMigration[],
  settledBy: SettledBy,
): RunnerError {
  const top = sorted.at(-1);
  const fields = { migration: migration.path, version: migration.version };
  if (
    settledBy === "database" &&
    (top === undefined || compareVersions(migration.version, top.version) > 0)
  ) {
    const end = top === undefined ? "holds no migration" : `ends at version "${top.version}"`;
    const known = sortByVersion(settled);
    const pending = sorted.filter(({ version }) => findVersion(known, version) === undefined).length;
    return new RunnerError("DATABASE_AHEAD", `"${migration.path}" is applied, but the folder ${end}`, {
      hint: "take the newer files; to go back to this version, run down with the newer files first",
      fields: { ...fields, pending },
    });
  }
  return new RunnerError(
    "HISTORY_REWRITTEN",
    `"${migration.path}" is gone from the folder, but ${who[settledBy]} has it`,
    {
      hint: `put the file back; to take its change back, add a new migration${unlessUnapplied[settledBy]}`,
      fields,
    },
  );
}

function changed(settled: SettledMigration, now: FoundMigration, settledBy: SettledBy): RunnerError {
  return new RunnerError(
    "CHANGED_FILE",
    `"${now.path}" is not what ${who[settledBy]} has: was sha256:${settled.sha256}, is sha256:${now.sha256}`,
    {
      hint: `restore the file and put the change into a new migration${unlessUnapplied[settledBy]}`,
      fields: {
        migration: now.path,
        version: now.version,
        expected: `sha256:${settled.sha256}`,
        actual: `sha256:${now.sha256}`,
      },
    },
  );
}

function outOfOrder(late: readonly FoundMigration[], highest: string, settledBy: SettledBy): RunnerError {
  const [first] = late;
  const others = late.length > 1 ? ` and ${late.length - 1} more` : "";
  return new RunnerError(
    "OUT_OF_ORDER",
    `"${first?.path ?? ""}"${others} came after ${who[settledBy]} reached version "${highest}"`,
    {
      hint: "give it a version above the highest, or say --allow-late to append it at the end of the sequence",
      fields: { migration: first?.path ?? null, version: first?.version ?? null, highest },
    },
  );
}
