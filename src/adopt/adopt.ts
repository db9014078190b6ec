import type { DeclaredEntry } from "../driver/session.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import { appliedEntries } from "../history/applied.ts";
import { placeName, type ForeignPlace } from "../history/foreign.ts";
import type { Body, Direction, Migration } from "../migration/migration.ts";
import { continues, rewritten } from "../plan/continuity.ts";
import { repeatableStep } from "../plan/repeatable.ts";
import type { AppliedMigration, Release } from "../release/release.ts";
import { fetchRelease } from "../run/fetch-release.ts";
import { type Declare, declareUnderLease, type Declaration } from "../run/declare.ts";
import type { RunOptions } from "../run/request.ts";
import type { Target } from "../run/target.ts";
import { assertUsable } from "../run/usable.ts";
import type { Claim } from "./claim.ts";
import { bodiesToCompare, compareChecksums, sameRepeatables } from "./checksums.ts";
import { chooseRecord, type ChosenRecord, type RecordWish } from "./choose-record.ts";
import { findingOf, type AppliedFinding, type Finding } from "./finding.ts";
import { assertCanKeep, readClaim } from "./in-step.ts";

/** What is to be adopted, and how. */
export interface AdoptionWish extends RecordWish {
  /** keep the record true with every later run; undefined leaves it as it is */
  readonly keepsInStep: true | undefined;
  readonly ignoresChecksums: boolean;
  /** digest; another release is refused */
  readonly release?: string | undefined;
}

/** What was found, and what came of it. */
export interface Adoption {
  readonly finding: Finding<Migration>;
  /** repeatable migrations whose text of now the record has */
  readonly repeatable: readonly Body[];
  /** what our history lacks of it: down where the tool took something back since the last time */
  readonly changes: readonly AdoptedChange[];
  /** the record that is kept true from now on */
  readonly inStep: ForeignPlace | null;
}

/** One entry that an adoption makes. */
export interface AdoptedChange extends Pick<AppliedFinding<Migration>, "migration" | "assumed"> {
  readonly direction: Direction;
}

/**
 * What an adoption would declare; nothing is changed.
 *
 * @throws RunnerError `ADOPTION` - no record, several of them, or one that nobody can read; not for what does not fit, which is in the finding
 * @throws RunnerError `HISTORY_NOT_EMPTY` - there is a history of ours, which is not in step with that record
 */
export async function previewAdoption(
  wish: AdoptionWish,
  target: Target,
  options: RunOptions,
): Promise<Adoption> {
  const state = await target.driver.state(target.stream, options.signal);
  const chosen = await choose(wish, state, target, options.signal);
  const seen = await look(chosen, wish, state, target, options);
  return {
    finding: seen.finding,
    repeatable: seen.repeatable,
    changes: changesOf(seen, state),
    inStep: wish.keepsInStep === true ? chosen.place : state.inStep,
  };
}

/**
 * Takes another tool's record of what it applied over into our history, under our lease and the tool's own lock.
 * Where the stream is in step with that record already, what the tool did since is taken over.
 *
 * @throws RunnerError `ADOPTION`, `HISTORY_NOT_EMPTY` - as of {@link previewAdoption}; `ADOPTION` for what does not fit too
 */
export async function adopt(
  wish: AdoptionWish,
  declaration: Declaration,
  target: Target,
  options: RunOptions,
): Promise<Adoption> {
  const { signal } = options;
  const before = await target.driver.state(target.stream, signal);
  const chosen = await choose(wish, before, target, signal);
  // Network and checksums are done before the lease is taken; under it only the rows are read again.
  const first = await look(chosen, wish, before, target, options);
  const as = { action: "adopt", goal: `${chosen.place.tool}, ${placeName(chosen.place)}` } as const;
  return declareUnderLease(as, declaration, target, options, (session, declare) =>
    target.driver.foreign.withLock(
      chosen.place,
      { waitMs: target.limits.waitMs, signal: session.signal, stream: target.stream },
      async () => {
        const state = await session.state();
        assertMayAdopt(state, chosen.place);
        assertUsable(first.release, state, target);
        const claim = await readClaim(target.driver.foreign, chosen, session.signal);
        const now = understand(claim, chosen, wish, first.release, first.bodies);
        assertFits(now.finding);
        assertSame(first, now);
        const changes = changesOf(now, state);
        await declareChanges(declare, changes, chosen, wish, declaration, first.release);
        const inStep = wish.keepsInStep === true ? chosen.place : state.inStep;
        return { finding: now.finding, repeatable: now.repeatable, changes, inStep };
      },
    ),
  );
}

/** Ends what `--keep-in-step` began: the other tool's record is written to no more. */
export async function endInStep(
  declaration: Declaration,
  target: Target,
  options: RunOptions,
): Promise<{ readonly was: ForeignPlace | null }> {
  const as = { action: "adopt", goal: "keep in step: off" } as const;
  return declareUnderLease(as, declaration, target, options, async (session, declare) => {
    const { inStep } = await session.state();
    await declare([], null);
    return { was: inStep };
  });
}

async function choose(
  wish: AdoptionWish,
  state: StreamState,
  target: Target,
  signal: AbortSignal,
): Promise<ChosenRecord> {
  const named =
    wish.table ?? (wish.from === undefined && state.inStep !== null ? placeName(state.inStep) : undefined);
  const chosen = chooseRecord(await target.driver.foreign.tables(named, signal), wish);
  assertMayAdopt(state, chosen.place);
  if (wish.keepsInStep === true) assertCanKeep(chosen);
  return chosen;
}

/** A history of ours is continued only where it was in step with that record all the time. */
function assertMayAdopt({ position, unfinished, inStep }: StreamState, place: ForeignPlace): void {
  if (unfinished !== null) {
    throw new RunnerError(
      "HISTORY_NOT_EMPTY",
      `"${unfinished.path}" was begun by lockkeeper and is not done`,
      {
        hint: "run up to finish it, or decide about it with lockkeeper repair",
        fields: { migration: unfinished.path },
      },
    );
  }
  if (position.length === 0 || (inStep !== null && placeName(inStep) === placeName(place))) return;
  const version = `"${position.version ?? "none"}"`;
  throw new RunnerError("HISTORY_NOT_EMPTY", `the history already stands at version ${version}`, {
    hint:
      inStep === null
        ? "only a database without a history of ours is adopted; look at it with lockkeeper history"
        : `it is in step with ${placeName(inStep)}: adopt from that table`,
  });
}

interface Understood {
  readonly release: Release;
  readonly finding: Finding<Migration>;
  readonly repeatable: readonly Body[];
}

interface Look extends Understood {
  /** of migrations with a checksum in the record, by sha256 */
  readonly bodies: ReadonlyMap<string, Buffer>;
}

async function look(
  chosen: ChosenRecord,
  wish: AdoptionWish,
  state: StreamState,
  target: Target,
  options: RunOptions,
): Promise<Look> {
  const { signal } = options;
  const foreign = target.driver.foreign;
  const ours = appliedEntries(await target.driver.history(target.stream, {}, signal));
  const fetch = async (applied: readonly AppliedMigration[]): Promise<Release> => {
    const wanted = { expected: undefined, now: options.now(), applied: async () => applied };
    const fetched = await fetchRelease(target, state, wanted, signal);
    assertUsable(fetched, state, target);
    return fetched;
  };
  const isAnyoneAtIt = state.lease !== null && state.lease.expiresAt > state.now;
  const lock = {
    waitMs: target.limits.waitMs,
    signal,
    ...(isAnyoneAtIt ? {} : { stream: target.stream }),
  };
  const claim = await foreign.withLock(chosen.place, lock, () => readClaim(foreign, chosen, signal));
  let release = await fetch(ours);
  if (!continues(release, state.position)) throw rewritten(release, ours);
  let finding = findingOf(chosen.place, claim, release.migrations);
  const isPrefix = finding.applied.every(({ migration }, index) => migration.seq === index + 1);
  if (!isPrefix && release.kind === "plain") {
    // A folder's sequence follows what is applied; what came late is appended, where that is allowed.
    const theirs = finding.applied.map(({ migration }) => migration).filter(({ seq }) => seq > ours.length);
    release = await fetch([...ours, ...theirs]);
    finding = findingOf(chosen.place, claim, release.migrations);
  }
  if (wish.release !== undefined && wish.release !== release.digest) {
    throw new RunnerError("UNEXPECTED_RELEASE", "the newest release is not the one that was asked for", {
      hint: "look at it with --dry-run, or name its digest",
      fields: { expected: wish.release, actual: release.digest },
    });
  }
  const bodies = await target.releases.bodies(release, bodiesToCompare(finding, claim, release), signal);
  return { ...understand(claim, chosen, wish, release, bodies), bodies };
}

function understand(
  claim: Claim,
  { place }: ChosenRecord,
  { ignoresChecksums }: AdoptionWish,
  release: Release,
  bodies: ReadonlyMap<string, Buffer>,
): Understood {
  const finding = compareChecksums(findingOf(place, claim, release.migrations), bodies, ignoresChecksums);
  return { release, finding, repeatable: sameRepeatables(claim, release, bodies) };
}

/** Between the two looks the tool may have been at work: then its sequence and checksums were not looked at. */
function assertSame(before: Understood, now: Understood): void {
  const told = ({ finding, repeatable }: Understood): string =>
    JSON.stringify([
      finding.applied.map(({ migration }) => migration.path),
      repeatable.map(({ path }) => path),
    ]);
  if (told(before) === told(now)) return;
  const { place } = now.finding;
  throw new ChangedMeanwhile(place);
}

/** The tool, or a run of ours that keeps its record, was at work while the record was being read. */
export class ChangedMeanwhile extends RunnerError {
  constructor(place: ForeignPlace) {
    super("ADOPTION", `${place.tool} has changed ${placeName(place)} while it was being read`, {
      hint: "adopt again",
      fields: { tool: place.tool, table: placeName(place) },
    });
  }
}

/** What our history lacks, or has beyond what the record says; a misfit leaves nothing to be declared. */
function changesOf(
  { finding, release, repeatable }: Understood,
  { position, repeatables }: StreamState,
): readonly AdoptedChange[] {
  if (finding.misfits.length > 0) return [];
  const undone = release.migrations.slice(finding.applied.length, position.length).toReversed();
  return [
    ...undone.map((migration) => ({ direction: "down" as const, migration, assumed: null })),
    ...finding.applied
      .slice(position.length)
      .map(({ migration, assumed }) => ({ direction: "up" as const, migration, assumed })),
    ...repeatable
      .filter(({ path, sha256 }) => repeatables[path] !== sha256)
      .map((body) => ({
        direction: "up" as const,
        migration: repeatableStep(body).migration,
        assumed: null,
      })),
  ];
}

/** @throws RunnerError `ADOPTION` - what does not fit, all of it in one message */
function assertFits({ misfits, place }: Finding<Migration>): void {
  const [first] = misfits;
  if (first === undefined) return;
  const fields = { tool: place.tool, table: placeName(place), misfits: misfits.length };
  if (misfits.length === 1) throw new RunnerError("ADOPTION", first.reason, { hint: first.hint, fields });
  const listed = misfits.slice(0, shownMisfits).map(({ reason, hint }) => `\n  ${reason}; ${hint}`);
  const more = misfits.length > shownMisfits ? `\n  and ${misfits.length - shownMisfits} more` : "";
  throw new RunnerError(
    "ADOPTION",
    `${misfits.length} things in ${placeName(place)} do not fit:${listed.join("")}${more}`,
    { hint: "settle them all, then adopt again", fields },
  );
}

const shownMisfits = 10;

async function declareChanges(
  declare: Declare,
  changes: readonly AdoptedChange[],
  { place }: ChosenRecord,
  { keepsInStep }: AdoptionWish,
  declaration: Declaration,
  release: Release,
): Promise<void> {
  const source = `${place.tool}, ${placeName(place)}`;
  const reason = declaration.reason === "" ? "" : `: ${declaration.reason}`;
  const entries = changes.map(({ direction, migration, assumed }): DeclaredEntry => {
    const down = direction === "down" ? migration.down : undefined;
    return {
      migration: down === undefined ? migration : { ...migration, path: down.path, sha256: down.sha256 },
      direction,
      origin: "adopt",
      status: "done",
      statementsDone: 1,
      statements: 1,
      statementChecksums: [],
      signed: release.kind === "signed",
      note: `${source} (${assumed === null ? "exact" : `assumed: ${assumed}`})${reason}`,
      appliedBy: declaration.caller.subject,
    };
  });
  await declare(entries, keepsInStep === true ? place : undefined);
}
