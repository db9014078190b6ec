/** What a tool's record says was applied, free of how the tool writes it. */
export interface Claim {
  readonly applied: readonly ClaimedMigration[];
  /** everything up to here, although the record names only this one: golang-migrate's number, a baseline */
  readonly upTo: ClaimedReach | null;
  /** migrations without a version, by the script and what was noted of its text when it was applied last */
  readonly repeatable: ReadonlyMap<string, ClaimedChecksum>;
  /** what nobody but a person can decide, and what would have to be done first */
  readonly misfits: readonly Misfit[];
  /** rows that stand for no migration */
  readonly notes: readonly string[];
}

/** One migration that the record names. */
export interface ClaimedMigration {
  /** as the record has it; null where it only has a name */
  readonly version: string | null;
  /** script or name, as the record has it; null where it only has a version */
  readonly name: string | null;
  readonly checksum: ClaimedChecksum | null;
}

/** A checksum that the tool noted; each has its own way of making it. */
export interface ClaimedChecksum {
  readonly kind: "flyway";
  readonly value: number;
}

/** A version, and all that comes before it. */
export interface ClaimedReach {
  readonly version: string;
  /** a migration of this very version has to be there: the number is one that was applied, not one that was declared */
  readonly mustExist: boolean;
  /** why it says nothing of each single one */
  readonly why: string;
}

/** Something that does not fit, and what to do about it. */
export interface Misfit {
  readonly reason: string;
  readonly hint: string;
}

/** A claim with nothing in it. */
export const emptyClaim: Claim = { applied: [], upTo: null, repeatable: new Map(), misfits: [], notes: [] };
