import type { AuditLog } from "../driver/audit-log.ts";
import { RunnerError } from "../error.ts";
import { type AuditEntry, type AuditLink, firstLink, linkOf } from "../history/audit.ts";

/** What a whole audit log is. */
export interface VerifiedAudit {
  readonly entries: number;
  /** the newest entry; null of an empty log */
  readonly head: AuditLink | null;
  /** how many of the expected links were found in it */
  readonly expected: number;
}

/** Why a log is not whole. */
export type AuditFault =
  /** entries are missing between two others, or before the first */
  | "gap"
  /** its text, or its own digest, is not what it was written with */
  | "altered"
  /** it names another entry before it than there is */
  | "relinked"
  /** known from elsewhere, and above the newest one: the end was cut off */
  | "missing"
  /** known from elsewhere with another digest: it, or one before it, was written anew */
  | "rewritten";

/** Entries that are read at once: with the longest records some megabytes. */
const pageSize = 200;

/**
 * Computes every link of an audit log anew, from the first entry to the newest, a page at a time.
 *
 * @param expected - links by their numbers that were written down elsewhere
 * @throws RunnerError `AUDIT_BROKEN` - with the number of the first entry that is wrong, and the {@link AuditFault}
 */
export async function verifyAudit(
  log: AuditLog,
  expected: ReadonlyMap<number, string>,
  signal: AbortSignal,
): Promise<VerifiedAudit> {
  let head: AuditLink | null = null;
  let found = 0;
  for await (const entry of entriesOf(log, signal)) {
    assertLinked(entry, head);
    const wanted = expected.get(entry.seq);
    if (wanted !== undefined && wanted !== entry.sha256) throw rewritten(entry, wanted);
    if (wanted !== undefined) found += 1;
    head = { seq: entry.seq, sha256: entry.sha256 };
  }
  if (found < expected.size) throw missing(expected, head);
  return { entries: head?.seq ?? 0, head, expected: found };
}

/** Every entry, oldest first. */
export async function* entriesOf(log: AuditLog, signal: AbortSignal): AsyncGenerator<AuditEntry> {
  for (let after = 0; ;) {
    const page = await log.read({ after, limit: pageSize }, signal);
    yield* page;
    const last = page.at(-1);
    if (last === undefined || page.length < pageSize) return;
    // A page that does not lead on would be read for ever.
    if (last.seq <= after) throw broken("gap", last.seq, "the database gives the same entries again");
    after = last.seq;
  }
}

function assertLinked(entry: AuditEntry, before: AuditLink | null): void {
  const { seq, previous, sha256, text } = entry;
  const next = (before?.seq ?? 0) + 1;
  if (seq !== next) {
    const missed = seq - next === 1 ? `entry ${next} is` : `entries ${next} to ${seq - 1} are`;
    throw broken("gap", next, `${missed} not there`);
  }
  const link = linkOf(previous, text);
  if (link !== sha256) {
    throw broken("altered", seq, `entry ${seq} is not what it was written as`, {
      expected: sha256,
      actual: link,
    });
  }
  const wanted = before?.sha256 ?? firstLink;
  if (previous !== wanted) {
    const to = seq === 1 ? "the beginning" : `entry ${seq - 1} as it is now`;
    throw broken("relinked", seq, `entry ${seq} is not linked to ${to}`, {
      expected: wanted,
      actual: previous,
    });
  }
}

function rewritten({ seq, sha256 }: AuditEntry, wanted: string): RunnerError {
  return broken(
    "rewritten",
    seq,
    `entry ${seq} is not the one that was written down elsewhere: it, or one before it, was written anew`,
    { expected: wanted, actual: sha256 },
  );
}

function missing(expected: ReadonlyMap<number, string>, head: AuditLink | null): RunnerError {
  const newest = head?.seq ?? 0;
  const seq = [...expected.keys()].reduce(
    (least, one) => (one > newest && one < least ? one : least),
    Infinity,
  );
  const at = newest === 0 ? "the log is empty" : `the log ends with entry ${newest}`;
  return broken("missing", seq, `entry ${seq} was written down elsewhere and is not there: ${at}`, {
    expected: expected.get(seq) ?? "",
  });
}

/** The error of a log that is not whole. */
export function broken(
  fault: AuditFault,
  seq: number,
  message: string,
  digests: { readonly expected?: string; readonly actual?: string } = {},
): RunnerError {
  return new RunnerError("AUDIT_BROKEN", `the audit log is broken: ${message}`, {
    hint: "somebody with rights on its table has changed it; compare it with the server's log and a backup",
    fields: { seq, fault, ...digests },
  });
}
