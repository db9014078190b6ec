import type { AuditLog } from "../driver/audit-log.ts";
import type { AuditEntry } from "../history/audit.ts";
import { readRecord, type ReadRecord } from "./read.ts";

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
    const isPast = read.every(({ record }) => record !== undefined && isBefore(record, wanted.since));
    if (found.length >= wanted.last || isPast) break;
  }
  return found.slice(0, wanted.last).toReversed();
}

/** The log in pages, newest first. */
async function* pagesFromEnd(log: AuditLog, signal: AbortSignal): AsyncGenerator<readonly AuditEntry[]> {
  let page = await log.read({ after: 0, limit: pageSize, newest: true }, signal);
  for (;;) {
    const [oldest] = page;
    if (oldest === undefined) return;
    yield page.toReversed();
    if (oldest.seq === 1) return;
    const after = Math.max(0, oldest.seq - 1 - pageSize);
    const before = await log.read({ after, limit: pageSize }, signal);
    // Where entries are missing, a page reaches into the one that was read already.
    page = before.filter(({ seq }) => seq < oldest.seq);
  }
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
