import type { ForeignPlace } from "../history/foreign.ts";
import { placeName } from "../history/foreign.ts";
import { bareName } from "../migration/bare-name.ts";
import { compareVersions, isVersion } from "../migration/version.ts";
import type { Claim, ClaimedMigration, Misfit } from "./claim.ts";

/** What of a migration a record can be compared with. */
export interface KnownMigration {
  readonly version: string;
  readonly path: string;
}

/** What a tool's record means for a sequence of migrations. */
export interface Finding<M extends KnownMigration> {
  readonly place: ForeignPlace;
  /** in the order of the sequence */
  readonly applied: readonly AppliedFinding<M>[];
  /** empty: the applied ones are the beginning of the sequence, and nothing else is in the way */
  readonly misfits: readonly Misfit[];
  readonly notes: readonly string[];
}

/** One migration that the record has, or stands for. */
export interface AppliedFinding<M extends KnownMigration> {
  readonly migration: M;
  /** why that is only assumed; null where the record says it */
  readonly assumed: string | null;
  /** the row of this very migration */
  readonly claimed: ClaimedMigration | null;
}

/** Compares what a record claims with a sequence of migrations. Pure. */
export function findingOf<M extends KnownMigration>(
  place: ForeignPlace,
  claim: Claim,
  migrations: readonly M[],
): Finding<M> {
  const found = new Map<number, AppliedFinding<M>>();
  const misfits: Misfit[] = [...claim.misfits];
  reach(claim, migrations, found, misfits);
  for (const claimed of claim.applied) {
    const match = matchOf(claimed, migrations);
    const migration = match === undefined ? undefined : migrations[match.index];
    if (match === undefined || migration === undefined) misfits.push(unknown(claimed, place));
    else found.set(match.index, { migration, assumed: match.assumed, claimed });
  }
  const indexes = [...found.keys()].toSorted((a, b) => a - b);
  const applied = indexes.flatMap((index) => found.get(index) ?? []);
  const gap = indexes.findIndex((index, place) => index !== place);
  const [missing, later] = [migrations[gap], migrations[indexes[gap] ?? -1]];
  if (missing !== undefined && later !== undefined) misfits.push(outOfOrder(missing, later));
  return { place, applied, misfits, notes: claim.notes };
}

/** What stands for all that comes before it. */
function reach<M extends KnownMigration>(
  { upTo }: Claim,
  migrations: readonly M[],
  found: Map<number, AppliedFinding<M>>,
  misfits: Misfit[],
): void {
  if (upTo === null) return;
  const { version, mustExist, why } = upTo;
  const isThere = migrations.some((migration) => isSame(migration.version, version));
  if (mustExist && !isThere) {
    misfits.push({
      reason: `the record stands at version ${version}, which the release does not have`,
      hint: "put its file back; or, if the release is another one on purpose, say what is there with lockkeeper baseline",
    });
  }
  for (const [index, migration] of migrations.entries()) {
    const isLast = isSame(migration.version, version);
    if (!isLast && !isBefore(migration.version, version)) continue;
    found.set(index, { migration, assumed: isLast && mustExist ? null : why, claimed: null });
  }
}

function matchOf(
  claimed: ClaimedMigration,
  migrations: readonly KnownMigration[],
): { readonly index: number; readonly assumed: string | null } | undefined {
  const { version, name } = claimed;
  if (version !== null) {
    const index = migrations.findIndex((migration) => isSame(migration.version, version));
    return index < 0 ? undefined : { index, assumed: null };
  }
  if (name === null) return undefined;
  const base = bareName(name);
  const exact = migrations.findIndex(
    ({ path }) => path === name || bareName(path) === base || bareName(path) === name,
  );
  if (exact >= 0) return { index: exact, assumed: null };
  const number = /^[0-9]+/.exec(name)?.[0];
  if (number === undefined) return undefined;
  const index = migrations.findIndex((migration) => isSame(migration.version, number));
  return index < 0
    ? undefined
    : { index, assumed: `the record has the name "${name}": only its number is the same` };
}

/** By value where both are versions, else letter by letter. */
function isSame(a: string, b: string): boolean {
  return a === b || (isVersion(a) && isVersion(b) && compareVersions(a, b) === 0);
}

function isBefore(a: string, b: string): boolean {
  return isVersion(a) && isVersion(b) ? compareVersions(a, b) < 0 : a < b;
}

function unknown({ version, name }: ClaimedMigration, place: ForeignPlace): Misfit {
  const what = version === null ? `"${name ?? ""}"` : `version ${version}`;
  return {
    reason: `${placeName(place)} has ${what}, which the release does not have`,
    hint: "put its file back and publish that; or delete the row, if it was a mistake",
  };
}

function outOfOrder(missing: KnownMigration, later: KnownMigration): Misfit {
  return {
    reason: `"${later.path}" is applied, but "${missing.path}", which comes before it, is not`,
    hint: `let the old tool apply "${missing.path}" first; or take what is applied now, and publish that file afterwards with --allow-late`,
  };
}
