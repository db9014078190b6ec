import type { HistoryEntry } from "../history/entry.ts";
import { formatDuration } from "../report/duration.ts";
import { formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** History entries as programs read them. */
export function describeHistory(stream: string, entries: readonly HistoryEntry[]): Record<string, unknown> {
  return {
    stream,
    entries: entries.map((entry) => ({ ...entry, startedAt: entry.startedAt.toISOString() })),
  };
}

/** History entries as a table, oldest first. */
export function formatHistory(entries: readonly HistoryEntry[], paint: Paint): string {
  if (entries.length === 0) return "nothing was done yet";
  const rows = entries.map((entry) => [
    String(entry.id),
    entry.startedAt.toISOString().replace("T", " ").slice(0, 19),
    entry.version,
    entry.direction,
    entry.path,
    paintStatus(entry, paint),
    formatDuration(entry.durationMs),
    entry.appliedBy,
    entry.error === null ? (entry.note ?? "") : `${entry.error.code}: ${entry.error.message}`,
  ]);
  return formatTable(
    ["id", "at (UTC)", "version", "direction", "migration", "status", "took", "by", "note"],
    rows,
    paint,
  );
}

function paintStatus(entry: HistoryEntry, paint: Paint): string {
  const shown = entry.origin === "run" ? entry.status : `${entry.status} (${entry.origin})`;
  const { checkpoint } = entry;
  const rows = checkpoint?.kind === "backfill" ? `${checkpoint.rows} rows` : undefined;
  switch (entry.status) {
    case "done":
      return paint.good(shown);
    case "started":
      return paint.warn(`${shown} ${rows ?? `${entry.statementsDone}/${entry.statements}`}`);
    case "failed":
      if (rows !== undefined) return paint.bad(`${shown} after ${rows}`);
      return paint.bad(
        entry.statementsDone > 0 ? `${shown} at ${entry.statementsDone + 1}/${entry.statements}` : shown,
      );
    case "needs_attention":
      return paint.bad("needs attention");
  }
}
