import type { ForeignRow } from "../../history/foreign.ts";
import { emptyClaim, type Claim } from "../claim.ts";
import { hasExactly, typeNames, type RecordFormat } from "./record.ts";

/** node-pg-migrate: a row for each file, by its name without extension. */
export const nodePgMigrateRecord: RecordFormat = {
  tool: "node-pg-migrate",
  matches: (table) =>
    hasExactly(table, { id: typeNames.whole, name: typeNames.text, run_on: typeNames.time }),
  read: (rows) => readNames(rows, "name"),
};

/** umzug: a row for each file, by its name with extension; older ones beside two times. */
export const umzugRecord: RecordFormat = {
  tool: "umzug",
  matches: (table) =>
    hasExactly(table, { name: typeNames.text }) ||
    hasExactly(table, { name: typeNames.text, createdAt: typeNames.time, updatedAt: typeNames.time }) ||
    hasExactly(table, { _id: ["objectId"], migrationName: ["string"] }),
  read: (rows) => readNames(rows, rows.some((row) => "migrationName" in row) ? "migrationName" : "name"),
};

/** migrate-mongo: a document for each file. */
export const migrateMongoRecord: RecordFormat = {
  tool: "migrate-mongo",
  matches: ({ columns }) =>
    ["fileName", "appliedAt"].every((wanted) => columns.some(({ name }) => name === wanted)),
  read: (rows) => readNames(rows, "fileName"),
};

function readNames(rows: readonly ForeignRow[], column: string): Claim {
  const applied = rows.map((row) => ({ version: null, name: row[column] ?? "", checksum: null }));
  return { ...emptyClaim, applied };
}
