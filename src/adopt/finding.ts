import type { ForeignPlace } from "../history/foreign.ts";
import { placeName } from "../history/foreign.ts";
import { bareName } from "../migration/bare-name.ts";
import { compareVersions, isVersion, versionKey } from "../migration/version.ts";
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
  const index = indexOf(migrations);
  reach(claim, migrations, found, misfits);
  for (const claimed of claim.applied) {
    const match = matchOf(claimed, index);
    const migration = match === undefined ? undefined : migrations[match.at];
    if (match === undefined || migration === undefined) misfits.push(unknown(claimed, place));
    else found.set(match.at, { migration, assumed: match.assumed, claimed });
  }
  const places = [...found.keys()].toSorted((a, b) => a - b);
  const applied = places.flatMap((at) => found.get(at) ?? []);
  const gap = places.findIndex((at, expected) => at !== expected);
  const [missing, later] = [migrations[gap], migrations[places[gap] ?? -1]];
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
  if (mustExist && !migrations.some((migration) => keyOf(migration.version) === keyOf(version))) {
    misfits.push({
      reason: `the record stands at version ${version}, which the release does not have`,
      hint: "put its file back; or, if the release is another one on purpose, say what is there with lockkeeper baseline",
    });
  }
  for (const [at, migration] of migrations.entries()) {
    const isLast = keyOf(migration.version) === keyOf(version);
    if (!isLast && !isBefore(migration.version, version)) continue;
    found.set(at, { migration, assumed: isLast && mustExist ? null : why, claimed: null });
  }
}

/** Places in the sequence, by what a record may call a migration. */
interface Index {
  readonly byVersion: ReadonlyMap<string, number>;
  readonly byName: ReadonlyMap<string, number>;
}

function indexOf(migrations: readonly KnownMigration[]): Index {
  return {
    byVersion: new Map(migrations.map(({ version }, at) => [keyOf(version), at])),
    byName: new Map(migrations.map(({ path }, at) => [bareName(path), at])),
  };
}

function matchOf(
  { version, name }: ClaimedMigration,
  { byVersion, byName }: Index,
): { readonly at: number; readonly assumed: string | null } | undefined {
  if (version !== null) return exact(byVersion.get(keyOf(version)));
  if (name === null) return undefined;
  // Some tools note the name with its ending, some without.
  const named = byName.get(bareName(name)) ?? byName.get(name);
  if (named !== undefined) return exact(named);
  const number = /^[0-9]+/.exec(name)?.[0];
  const at = number === undefined ? undefined : byVersion.get(keyOf(number));
  return at === undefined
    ? undefined
    : { at, assumed: `the record has the name "${name}": only its number is the same` };
}

function exact(at: number | undefined): { readonly at: number; readonly assumed: null } | undefined {
  return at === undefined ? undefined : { at, assumed: null };
}

/** Versions are compared by value; anything else letter by letter. */
function keyOf(version: string): string {
  return isVersion(version) ? versionKey(version) : version;
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
