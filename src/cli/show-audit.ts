import { parseJson, type ReadRecord } from "../audit/read.ts";
import type { SelectedEntry } from "../audit/select.ts";
import { formatTable, type Paint, printable } from "./output.ts";

/** An entry as programs read it: one line, which `audit verify --expect-log` takes too. */
export function describeEntry({ entry, record }: SelectedEntry): Record<string, unknown> {
  const { seq, sha256, previous, text } = entry;
  return { seq, sha256, previous, target: record?.target ?? null, record: parseJson(text) ?? null };
}

/** Entries as a table, oldest first. */
export function formatEntries(entries: readonly SelectedEntry[], paint: Paint): string {
  if (entries.length === 0) return "no entry of the audit log fits";
  const rows = entries.map(({ entry, record }) =>
    record === undefined
      ? [String(entry.seq), "", "unknown", "", "", "", "", "", "written by another version of lockkeeper"]
      : [
          String(entry.seq),
          printable(record.time.replace("T", " ").slice(0, 19)),
          printable(record.event),
          paintOutcome(record, paint),
          printable(record.target),
          printable(record.action),
          printable(subjectOf(record)),
          printable(record.run ?? ""),
          printable(detailOf(record)),
        ],
  );
  return formatTable(
    ["seq", "at (UTC)", "event", "outcome", "target", "action", "by", "run", "detail"],
    rows,
    paint,
  );
}

function subjectOf({ principal: { subject, rule } }: ReadRecord): string {
  return rule === null ? subject : `${subject} (${rule})`;
}

function paintOutcome({ outcome, code }: ReadRecord, paint: Paint): string {
  if (outcome === null) return paint.dim("begins");
  return code === null ? paint.good(printable(outcome)) : paint.bad(printable(`${outcome}: ${code}`));
}

function detailOf(record: ReadRecord): string {
  const { requested, release, from, to, migrations, allMigrations, reason, leftOut } = record;
  const count = allMigrations?.count ?? migrations.length;
  const version = release?.version ?? null;
  return [
    requested.goal,
    version === null ? null : `release ${version}`,
    from === to || record.event === "decision" ? null : `from ${from ?? "0"} to ${to ?? "0"}`,
    count === 0 ? null : `${count} ${count === 1 ? "migration" : "migrations"}`,
    reason,
    leftOut === 0 ? null : `${leftOut} more refusals before it`,
  ]
    .filter((part) => part !== null)
    .join(", ");
}
