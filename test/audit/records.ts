import type { Driver } from "../../src/driver/driver.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { firstLink, linkOf, type AuditEntry } from "../../src/history/audit.ts";
import type { TestDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";

/** A record with its place in the log. */
export interface FoundRecord extends AuditRecord {
  readonly seq: number;
}

/** All records of a database, oldest first. */
export async function recordsOf(driver: Driver): Promise<readonly FoundRecord[]> {
  const entries = await driver.audit.read({ after: 0, limit: 10_000 }, never);
  return entries.map(({ seq, text }) => ({ seq, ...(JSON.parse(text) as AuditRecord) }));
}

/** `event outcome code` of each record, the shape of a story. */
export function story(records: readonly AuditRecord[]): readonly string[] {
  return records.map(({ event, outcome, code }) =>
    [event, outcome, code].filter((word) => word !== null).join(" "),
  );
}

/** Writes texts into the table as somebody with rights on it would who links them anew, the last ones up to `until`. */
export async function writeAnew(
  database: TestDatabase,
  change: (entries: readonly AuditEntry[]) => readonly string[],
): Promise<void> {
  const entries = await database.query<{ seq: string; previous: string; sha256: string; text: string }>(
    "SELECT seq, previous, sha256, text FROM lockkeeper.audit ORDER BY seq",
  );
  const texts = change(entries.map((entry) => ({ ...entry, seq: Number(entry.seq) })));
  await database.query("DELETE FROM lockkeeper.audit");
  let previous = firstLink;
  for (const [index, text] of texts.entries()) {
    const sha256 = linkOf(previous, text);
    await database.query(
      "INSERT INTO lockkeeper.audit (seq, previous, sha256, text) VALUES ($1, $2, $3, $4)",
      [index + 1, previous, sha256, text],
    );
    previous = sha256;
  }
}
