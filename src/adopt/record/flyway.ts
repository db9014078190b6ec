import type { ForeignRow } from "../../history/foreign.ts";
import type { Claim, ClaimedChecksum, ClaimedMigration, Misfit } from "../claim.ts";
import { hasAll, sortByNumber, typeNames, type RecordFormat } from "./record.ts";

/** Flyway: a row for each script that it ran, undid or declared, in the order of their ranks. */
export const flywayRecord: RecordFormat = {
  tool: "flyway",
  matches: (table) =>
    hasAll(table, {
      installed_rank: typeNames.whole,
      version: typeNames.text,
      type: typeNames.text,
      script: typeNames.text,
      checksum: typeNames.whole,
      success: typeNames.flag,
    }),
  read: readRows,
};

function readRows(rows: readonly ForeignRow[]): Claim {
  const applied = new Map<string, ClaimedMigration>();
  const misfits: Misfit[] = [];
  const notes: string[] = [];
  const repeatable = new Map<string, ClaimedChecksum>();
  let upTo: Claim["upTo"] = null;
  for (const row of sortByNumber(rows, "installed_rank")) {
    const { version = null, type = "", script = "", checksum = null } = row;
    if (row["success"] !== "true") {
      misfits.push({
        reason: `Flyway noted that "${script}" failed`,
        hint: `look at what it left behind, say "flyway repair", and adopt again`,
      });
    } else if (version === null) {
      // A row of its own making, with the schema, has no checksum.
      if (checksum !== null && script !== null)
        repeatable.set(script, { kind: "flyway", value: Number(checksum) });
    } else if (type === "BASELINE" || type === "SQL_BASELINE") {
      const why =
        type === "BASELINE"
          ? `Flyway was given version ${version} as its baseline`
          : `Flyway began with the baseline script "${script}"`;
      upTo = { version, mustExist: false, why };
      notes.push(`${why}: it ran none of the files up to there`);
    } else if (type?.startsWith("UNDO") === true || type === "DELETE") {
      applied.delete(version);
    } else {
      const isScript = type === "SQL" && checksum !== null;
      applied.set(version, {
        version,
        name: script,
        checksum: isScript ? { kind: "flyway", value: Number(checksum) } : null,
      });
    }
  }
  return { applied: [...applied.values()], upTo, repeatable, misfits, notes };
}
