import type { AuditEntry } from "../history/audit.ts";

/** The audit log of one database, over all of its streams: only ever added to. */
export interface AuditLog {
  /**
   * Adds an entry after the newest one; any number of processes may do so at once. Creates our tables where absent.
   * Where it throws, the entry may have been added all the same: only the answer was lost.
   *
   * @param text - one JSON document without newlines
   * @throws RunnerError `AUDIT_UNAVAILABLE` — other writers were quicker all the time; `DATABASE_…`
   */
  append(text: string, signal: AbortSignal): Promise<AuditEntry>;

  /** Entries by their numbers, lowest first, at most `limit`; empty before our tables exist. */
  read(query: AuditQuery, signal: AbortSignal): Promise<readonly AuditEntry[]>;
}

/** Which entries are wanted. */
export interface AuditQuery {
  /** only those after this number; 0: from the first on */
  readonly after: number;
  readonly limit: number;
  /** the newest `limit` of them in place of the oldest; still lowest first */
  readonly newest?: boolean;
}
