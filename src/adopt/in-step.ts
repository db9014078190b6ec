import type { ForeignHistories } from "../driver/foreign.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError } from "../error.ts";
import { appliedEntries } from "../history/applied.ts";
import type { HistoryEntry } from "../history/entry.ts";
import { placeName, type ForeignPlace } from "../history/foreign.ts";
import type { Target } from "../run/target.ts";
import type { Claim } from "./claim.ts";
import { chooseRecord, type ChosenRecord } from "./choose-record.ts";
import { findingOf } from "./finding.ts";
import { formatOf } from "./record/formats.ts";

/**
 * Runs `work` for a stream that is in step with another tool's record: while that tool's lock is held, and only if the
 * record says what our history says. For any other stream `work` is all that happens.
 *
 * @throws RunnerError `ADOPTION` - the other tool has changed something since; `LEASE_HELD` - it is at it
 */
export async function inStepWith<T>(
  { inStep, unfinished }: Pick<StreamState, "inStep" | "unfinished">,
  target: Target,
  waitMs: number,
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  if (inStep === null) return work();
  const foreign = target.driver.foreign;
  const options = { waitMs, signal, stream: target.stream };
  return foreign.withLock(inStep, options, async () => {
    const tables = await foreign.tables(placeName(inStep), signal);
    if (tables.length === 0) throw gone(inStep);
    const record = chooseRecord(tables, { from: inStep.tool, table: placeName(inStep) });
    assertCanKeep(record);
    const claim = await readClaim(foreign, record, signal);
    const entries = appliedEntries(await target.driver.history(target.stream, {}, signal));
    const written = onlyWritten(unfinished);
    const known = written?.direction === "up" && written.seq === entries.length + 1 ? [written] : [];
    const { applied, misfits } = findingOf(inStep, claim, [...entries, ...known]);
    const lengths = [entries.length, ...(written === null ? [] : [lengthAfter(written)])];
    if (misfits.length > 0 || !lengths.includes(applied.length)) throw outOfStep(inStep, misfits[0]?.reason);
    return work();
  });
}

/**
 * A migration of which nothing is missing but the word that it is done. Where a server has no transactions, the other
 * tool's record is written just before that.
 */
function onlyWritten(unfinished: HistoryEntry | null): HistoryEntry | null {
  return unfinished !== null && unfinished.statementsDone === unfinished.statements ? unfinished : null;
}

function lengthAfter({ direction, seq }: HistoryEntry): number {
  return direction === "up" ? seq : seq - 1;
}

/** What a record says; its tool's lock is held. */
export async function readClaim(
  foreign: ForeignHistories,
  { place, table }: ChosenRecord,
  signal: AbortSignal,
): Promise<Claim> {
  const format = formatOf(place.tool);
  if (format === undefined) throw new RunnerError("INTERNAL", `no way to read a record of ${place.tool}`);
  return format.read(await foreign.rows(table, signal), table);
}

/** @throws RunnerError `ADOPTION` - our role may not write to the record */
export function assertCanKeep({ place, table }: ChosenRecord): void {
  if (table.isWritable) return;
  throw new RunnerError(
    "ADOPTION",
    `our role may not write to ${placeName(place)}, so it cannot be kept in step`,
    {
      hint: "grant it INSERT, UPDATE and DELETE on that table, or leave it alone with lockkeeper adopt --keep-in-step off",
      fields: { tool: place.tool, table: placeName(place) },
    },
  );
}

function gone(place: ForeignPlace): RunnerError {
  return new RunnerError(
    "ADOPTION",
    `${placeName(place)}, which is kept in step for ${place.tool}, is gone`,
    {
      hint: "bring it back; or, if the old tool is no longer used, say lockkeeper adopt --keep-in-step off",
      fields: { tool: place.tool, table: placeName(place) },
    },
  );
}

function outOfStep(place: ForeignPlace, why: string | undefined): RunnerError {
  const what = why ?? "it lacks some that our history has";
  return new RunnerError("ADOPTION", `${placeName(place)} is no longer in step with our history: ${what}`, {
    hint: `take over what ${place.tool} did since with lockkeeper adopt, or end this with lockkeeper adopt --keep-in-step off`,
    fields: { tool: place.tool, table: placeName(place) },
  });
}
