import { parseJson, type ReadRecord } from "../audit/read.ts";
import type { AuditEvent } from "../audit/record.ts";
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
  // most databases are one target's, and its name in every line would only make them longer
  const targets = new Set(entries.flatMap(({ record }) => record?.target ?? []));
  const namesTarget = targets.size > 1;
  const rows = entries.map(({ entry, record }) =>
    record === undefined
      ? [
          String(entry.seq),
          "",
          "unknown",
          "",
          ...(namesTarget ? [""] : []),
          "",
          "written by another version of lockkeeper",
        ]
      : [
          String(entry.seq),
          printable(record.time.replace("T", " ").slice(0, 19)),
          printable(record.event),
          paintOutcome(record, paint),
          ...(namesTarget ? [printable(record.target)] : []),
          printable(subjectOf(record)),
          printable(detailOf(record)),
          printable(record.run ?? ""),
        ],
  );
  const head = [
    "seq",
    "at (UTC)",
    "event",
    "outcome",
    ...(namesTarget ? ["target"] : []),
    "by",
    "detail",
    "run",
  ];
  return formatTable(head, rows, paint);
}

/** Events that say by their name what was done. */
const sayWhat: ReadonlySet<string> = new Set<AuditEvent>(["unlocked", "paused", "resumed", "trust.reset"]);

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
  const action = sayWhat.has(record.event) ? null : record.action;
  return [
    [action, requested.goal].filter((part) => part !== null).join(" ") || null,
    version === null ? null : `release ${version}`,
    from === to || record.event === "decision" ? null : `from ${from ?? "0"} to ${to ?? "0"}`,
    count === 0 ? null : `${count} ${count === 1 ? "migration" : "migrations"}`,
    reason,
    leftOut === 0 ? null : `${leftOut} more refusals and repetitions before it`,
  ]
    .filter((part) => part !== null)
    .join(", ");
}
