import { RunnerError } from "../error.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { appliedEntries } from "../history/applied.ts";
import { placeName, type ForeignTable } from "../history/foreign.ts";
import type { Declaration } from "../run/declare.ts";
import type { RunOptions } from "../run/request.ts";
import type { Target } from "../run/target.ts";
import { adopt, ChangedMeanwhile, type Adoption } from "./adopt.ts";
import { chooseRecord, type ChosenRecord } from "./choose-record.ts";
import { findingOf } from "./finding.ts";
import { readClaim } from "./in-step.ts";

/** How golang-migrate's record is taken over. */
export interface TakeOver {
  /** its table, where it is not called as usual */
  readonly table: string | undefined;
  /** write it with every later run; where there is none yet, make it */
  readonly keepsInStep: boolean;
}

/** How golang-migrate calls its table where nobody renames it; of MongoDB its collection. */
const usualTable = "schema_migrations";
/** Looks in a row at what others change at the same time. */
const attempts = 10;
/** Milliseconds: it is one small statement. */
const beginMs = 15_000;

/**
 * Takes over what golang-migrate has applied, without being told when: at our first contact with a database, and again
 * where it was at work since, because somebody has gone back to it for a while. Where there is nothing to take over,
 * nothing is locked and nothing is written.
 *
 * @returns undefined where our history said it all already
 * @throws RunnerError `ADOPTION` - what is there is dirty, does not fit, or is another tool's
 */
export async function takeOver(
  wish: TakeOver,
  declaration: Declaration,
  target: Target,
  options: RunOptions,
): Promise<Adoption | undefined> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await takeOverOnce(wish, declaration, target, options);
    } catch (error) {
      // A replica that started at the same time has done it, or a run of one was at work meanwhile: that is looked at again.
      const isOvertaken =
        error instanceof ChangedMeanwhile ||
        (error instanceof RunnerError && error.code === "HISTORY_NOT_EMPTY");
      if (!isOvertaken || attempt === attempts) throw error;
    }
  }
}

async function takeOverOnce(
  { table, keepsInStep }: TakeOver,
  declaration: Declaration,
  target: Target,
  options: RunOptions,
): Promise<Adoption | undefined> {
  const { signal } = options;
  const state = await target.driver.state(target.stream, signal);
  const isFirst = isFirstContact(state);
  if (!isFirst && state.inStep?.tool !== "golang-migrate") return undefined;
  const named = state.inStep === null ? (table ?? usualTable) : placeName(state.inStep);
  let tables = await target.driver.foreign.tables(named, signal);
  if (tables.length === 0 && isFirst && keepsInStep) tables = await begin(named, target, options);
  // Gone while it was kept in step: a run says so.
  if (tables.length === 0) return undefined;
  const chosen = chooseRecord(tables, { from: "golang-migrate", table: named });
  if (!isFirst && (await isInStep(chosen, target, signal))) return undefined;
  const wish = { from: "golang-migrate", table: named, ignoresChecksums: false };
  const keep = keepsInStep ? ({ keepsInStep: true } as const) : { keepsInStep: undefined };
  return adopt({ ...wish, ...keep }, declaration, target, options);
}

/** Nothing of ours is there: not even a migration that was begun. */
function isFirstContact({ position, unfinished, inStep }: StreamState): boolean {
  return position.length === 0 && unfinished === null && inStep === null;
}

async function begin(
  named: string,
  { driver }: Target,
  options: RunOptions,
): Promise<readonly ForeignTable[]> {
  try {
    await driver.foreign.begin(named, AbortSignal.any([options.signal, AbortSignal.timeout(beginMs)]));
    return await driver.foreign.tables(named, options.signal);
  } catch (error) {
    if (!(error instanceof RunnerError) || error.code !== "DATABASE_DENIED") throw error;
    options.emit({
      kind: "warning",
      message: `golang-migrate's table "${named}" cannot be made, so golang-migrate could not take over again: ${error.message}`,
    });
    return [];
  }
}

/** Without the tool's lock: what seems out of step is looked at again under it. */
async function isInStep(
  { place, table }: ChosenRecord,
  target: Target,
  signal: AbortSignal,
): Promise<boolean> {
  const claim = await readClaim(target.driver.foreign, { place, table }, signal);
  const entries = appliedEntries(await target.driver.history(target.stream, {}, signal));
  const { applied, misfits } = findingOf(place, claim, entries);
  return misfits.length === 0 && applied.length === entries.length;
}
