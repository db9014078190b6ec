import type { ForeignRow } from "../../history/foreign.ts";
import { emptyClaim, type Claim, type ClaimedMigration, type Misfit } from "../claim.ts";
import { hasAll, typeNames, type RecordFormat } from "./record.ts";

/** Bits of a revision's type (revision.go). */
const baselineBit = 1;

/** Atlas: a revision for each file, written again after every statement. */
export const atlasRecord: RecordFormat = {
  tool: "atlas",
  matches: (table) =>
    hasAll(table, {
      version: typeNames.text,
      description: typeNames.text,
      applied: typeNames.whole,
      total: typeNames.whole,
      hash: typeNames.text,
      operator_version: typeNames.text,
    }),
  read: readRevisions,
};

function readRevisions(rows: readonly ForeignRow[]): Claim {
  const applied: ClaimedMigration[] = [];
  const misfits: Misfit[] = [];
  const notes: string[] = [];
  let upTo: Claim["upTo"] = null;
  for (const row of rows) {
    const version = row["version"] ?? "";
    // `.atlas_cloud_identifier`, which names the database to Atlas Cloud
    if (version.startsWith(".")) continue;
    const [done, total] = [Number(row["applied"]), Number(row["total"])];
    const isWhole = done === total && (row["error"] ?? "") === "";
    if (!isWhole) {
      misfits.push({
        reason: `Atlas stopped in the middle of version ${version}, after ${done} of ${total} statements`,
        hint: `let "atlas migrate apply" finish it, or decide with "atlas migrate set", and adopt again`,
      });
    } else if ((Number(row["type"]) & baselineBit) !== 0) {
      const why = `Atlas was given version ${version} as its baseline`;
      upTo = { version, mustExist: false, why };
      notes.push(`${why}: it ran none of the files up to there`);
    } else applied.push({ version, name: null, checksum: null });
  }
  return { ...emptyClaim, applied, upTo, misfits, notes };
}
