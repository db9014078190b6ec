import { emptyClaim } from "../claim.ts";
import { hasExactly, sortByNumber, typeNames, type RecordFormat } from "./record.ts";

/** goose: a row for each up, and before 2018 for each down too, so the newest one of a version counts (internal/dialects). */
export const gooseRecord: RecordFormat = {
  tool: "goose",
  matches: (table) =>
    hasExactly(table, {
      id: typeNames.whole,
      version_id: typeNames.whole,
      is_applied: typeNames.flag,
      tstamp: typeNames.time,
    }),
  read(rows) {
    const newest = new Map<string, boolean>();
    for (const row of sortByNumber(rows, "id")) {
      const version = row["version_id"] ?? "";
      // the row that goose makes with its table
      if (version !== "0") newest.set(version, row["is_applied"] === "true");
    }
    const applied = [...newest]
      .filter(([, isApplied]) => isApplied)
      .map(([version]) => ({ version, name: null, checksum: null }));
    return { ...emptyClaim, applied };
  },
};
