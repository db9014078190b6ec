import type { AuditLog } from "../driver/audit-log.ts";
import type { AuditEntry } from "../history/audit.ts";
import { readRecord, type ReadRecord } from "./read.ts";
import { entriesOf } from "./verify.ts";

/** Which records are wanted; what is undefined is not asked. */
export interface AuditSelection {
  /** the newest so many that fit */
  readonly last: number;
  readonly run: string | undefined;
  /** name of a target, or of a stream */
  readonly of: string | undefined;
  /** by the writers' clocks */
  readonly since: Date | undefined;
}

/** An entry with its record, where this version can read it. */
export interface SelectedEntry {
  readonly entry: AuditEntry;
  readonly record: ReadRecord | undefined;
}

/** Entries that are read at once. */
const pageSize = 200;

/** The newest entries that fit, oldest first; the log is read from its end, and no further than needed. */
export async function selectEntries(
  log: AuditLog,
  wanted: AuditSelection,
  signal: AbortSignal,
): Promise<readonly SelectedEntry[]> {
  const found: SelectedEntry[] = [];
  for await (const page of pagesFromEnd(log, signal)) {
    const read = page.map((entry) => ({ entry, record: readRecord(entry) }));
    found.push(...read.filter(({ record }) => isWanted(record, wanted)));
    // Writers' clocks differ: only a whole page of older ones says that there are no newer ones before it.
    const isPast =
      read.length > 0 && read.every(({ record }) => record !== undefined && isBefore(record, wanted.since));
    if (found.length >= wanted.last || isPast) break;
  }
  return found.slice(0, wanted.last).toReversed();
}

/** The log in pages, newest first; where entries are missing, pages are shorter. */
async function* pagesFromEnd(log: AuditLog, signal: AbortSignal): AsyncGenerator<readonly AuditEntry[]> {
  const [newest] = await log.read({ after: 0, limit: 1, newest: true }, signal);
  for (let to = newest?.seq ?? 0; to > 0; to -= pageSize) {
    const read = await log.read({ after: Math.max(0, to - pageSize), limit: pageSize }, signal);
    const page = read.filter(({ seq }) => seq <= to);
    if (page.length === 0) {
      yield (await entriesTo(log, to, signal)).toReversed();
      return;
    }
    yield page.toReversed();
  }
}

/** Every entry up to this number. Somebody took a page of them out, or put one in far away: then steps back could be endless. */
async function entriesTo(log: AuditLog, to: number, signal: AbortSignal): Promise<readonly AuditEntry[]> {
  const found: AuditEntry[] = [];
  for await (const entry of entriesOf(log, signal)) {
    if (entry.seq > to) break;
    found.push(entry);
  }
  return found;
}

/** A record that cannot be read fits only where nothing in particular is asked for. */
function isWanted(record: ReadRecord | undefined, { run, of, since }: AuditSelection): boolean {
  if (record === undefined) return run === undefined && of === undefined && since === undefined;
  return (
    (run === undefined || record.run === run) &&
    (of === undefined || record.target === of || record.stream === of) &&
    !isBefore(record, since)
  );
}

function isBefore({ time }: ReadRecord, since: Date | undefined): boolean {
  return since !== undefined && new Date(time) < since;
}
