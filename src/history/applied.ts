import type { HistoryEntry } from "./entry.ts";

/** The up entries that are in force after all of `entries` (oldest first), in the order of the sequence. */
export function appliedEntries(entries: readonly HistoryEntry[]): readonly HistoryEntry[] {
  const applied: HistoryEntry[] = [];
  for (const entry of entries) {
    // A repeatable one has no place in the sequence.
    if (entry.status !== "done" || entry.seq === 0) continue;
    if (entry.direction === "up") applied[entry.seq - 1] = entry;
    else applied.length = Math.min(applied.length, entry.seq - 1);
  }
  return applied;
}
