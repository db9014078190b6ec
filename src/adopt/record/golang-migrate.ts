import { placeName } from "../../history/foreign.ts";
import { emptyClaim } from "../claim.ts";
import { hasExactly, typeNames, type RecordFormat } from "./record.ts";

/** golang-migrate: one row with one number, and whether it stopped in the middle (database/postgres/postgres.go). */
export const golangMigrateRecord: RecordFormat = {
  tool: "golang-migrate",
  matches: (table) =>
    hasExactly(table, { version: ["bigint", "integer"], dirty: typeNames.flag }) ||
    hasExactly(table, { _id: ["objectId"], version: ["int", "long"], dirty: ["bool"] }),
  read(rows, table) {
    const [row, ...others] = rows;
    if (row === undefined) return emptyClaim;
    if (others.length > 0) {
      const reason = `${placeName(table)} has ${rows.length} rows, where golang-migrate keeps one`;
      return {
        ...emptyClaim,
        misfits: [{ reason, hint: "find out which of them is true, and delete the others" }],
      };
    }
    const version = row["version"] ?? "";
    if (row["dirty"] === "true") {
      return {
        ...emptyClaim,
        misfits: [
          {
            reason: `golang-migrate stopped in the middle of version ${version} (dirty)`,
            hint: `look how much of it is there, and finish it or take it back by hand; then say "migrate force ${version}" if it is whole, or force the version before it if nothing is left (or set version and dirty = false in ${placeName(table)} yourself), and start again`,
          },
        ],
      };
    }
    // what it writes where nothing is applied
    if (version === "-1") return emptyClaim;
    const why = "golang-migrate notes only the number of the last one";
    return { ...emptyClaim, upTo: { version, mustExist: true, why } };
  },
};
