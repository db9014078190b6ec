import type { AuditLog } from "../driver/audit-log.ts";
import { RunnerError, toRunnerError } from "../error.ts";
import { type AuditEntry, type AuditLink, linkOf } from "../history/audit.ts";
import { type AuditFacts, makeRecord, writeRecord } from "./record.ts";
import { broken } from "./verify.ts";

/** What a writer is given besides the facts. */
export interface AuditWriting {
  readonly signal: AbortSignal;
  now(): Date;
  /** told of each entry that was added */
  onEntry(entry: AuditEntry): void;
}

/** A record that somebody else adds to the log, together with what it is about. */
export interface PendingRecord {
  readonly text: string;
  /**
   * Tells of it, once it was added. Told is what was to be written, also where the database wrote something else: a trigger
   * could change a text and link it anew, and a copy of that would hide it.
   *
   * @throws RunnerError `AUDIT_BROKEN` - it was changed on its way into the table
   */
  added(stored: AuditEntry): AuditEntry;
}

/** A record with these facts, as of now; see {@link writeAudit}. */
export function pendingRecord(
  facts: AuditFacts,
  { now, onEntry }: Omit<AuditWriting, "signal">,
): PendingRecord {
  const text = writeRecord(makeRecord(facts, now()));
  return {
    text,
    added(stored) {
      const entry = { ...stored, text, sha256: linkOf(stored.previous, text) };
      onEntry(entry);
      if (stored.text === text && stored.sha256 === entry.sha256) return entry;
      throw broken("altered", entry.seq, `entry ${entry.seq} was changed on its way into the table`, {
        expected: entry.sha256,
        actual: stored.sha256,
      });
    },
  };
}

/**
 * Adds a record to the audit log, and tells of it as {@link PendingRecord} does.
 *
 * @throws RunnerError `AUDIT_UNAVAILABLE` - it could not be added, whatever the reason; `AUDIT_BROKEN` - it was changed on its way into the table
 * @throws what the database's client makes of a signal that was aborted by something else than a time-out
 */
export async function writeAudit(
  log: AuditLog,
  facts: AuditFacts,
  { signal, ...writing }: AuditWriting,
): Promise<AuditEntry> {
  const record = pendingRecord(facts, writing);
  const stored = await log.append(record.text, signal).catch((cause: unknown) => {
    if (!signal.aborted) throw unavailable(toRunnerError(cause));
    if (signal.reason instanceof DOMException && signal.reason.name === "TimeoutError")
      throw unavailable(new RunnerError("DATABASE_UNAVAILABLE", "it did not answer in time", { cause }));
    throw cause;
  });
  return record.added(stored);
}

/**
 * Does something by hand between two records: that it is about to be done, and how it ended.
 *
 * @param learned - what is known when it was done
 * @throws RunnerError `AUDIT_UNAVAILABLE` - nothing was done, or it was done and its end could not be recorded; the message says which
 */
export async function recorded<T>(
  log: AuditLog,
  facts: AuditFacts,
  writing: AuditWriting,
  act: () => Promise<T>,
  learned: (result: T) => Partial<AuditFacts> = () => ({}),
): Promise<{ readonly result: T; readonly link: AuditLink }> {
  await writeAudit(log, facts, writing);
  // The end is recorded whatever the act's own signal says by then.
  const atEnd = { ...writing, signal: AbortSignal.timeout(endMs) };
  let result: T;
  try {
    result = await act();
  } catch (cause) {
    const { code, exit } = toRunnerError(cause);
    const outcome = exit === 20 || exit === 30 || exit === 2 ? "refused" : "failed";
    await writeAudit(log, { ...facts, outcome, code }, atEnd).catch(() => undefined);
    throw cause;
  }
  const end = { ...facts, outcome: "done", ...learned(result) } as const;
  const { seq, sha256 } = await writeAudit(log, end, atEnd).catch((cause: unknown) => {
    throw new RunnerError("AUDIT_UNAVAILABLE", "it was done, but that it was could not be recorded", {
      hint: "the audit log says that it was about to be done; look why it cannot be written",
      cause,
    });
  });
  return { result, link: { seq, sha256 } };
}

/** milliseconds to record how something ended */
const endMs = 15_000;

function unavailable(cause: RunnerError): RunnerError {
  if (cause.code === "AUDIT_UNAVAILABLE") return cause;
  return new RunnerError("AUDIT_UNAVAILABLE", `the audit log cannot be written: ${cause.message}`, {
    hint: cause.hint ?? "nothing is changed that could not be recorded; mend the database or its rights",
    fields: { ...cause.fields, reason: cause.code },
    cause,
  });
}
