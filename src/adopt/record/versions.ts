import type { ForeignRow } from "../../history/foreign.ts";
import { emptyClaim, type Claim } from "../claim.ts";
import { hasExactly, typeNames, type RecordFormat } from "./record.ts";

const columns = { version: typeNames.text };

/** Rails (ActiveRecord): the same column as dbmate's, beside a table of its own. */
export const railsRecord: RecordFormat = {
  tool: "rails",
  matches: (table) => hasExactly(table, columns) && table.beside.includes("ar_internal_metadata"),
  read: readVersions,
};

/** dbmate: a row for each version, as the file name writes it. */
export const dbmateRecord: RecordFormat = {
  tool: "dbmate",
  matches: (table) => hasExactly(table, columns) && !table.beside.includes("ar_internal_metadata"),
  read: readVersions,
};

function readVersions(rows: readonly ForeignRow[]): Claim {
  return {
    ...emptyClaim,
    applied: rows.map(({ version = null }) => ({ version, name: null, checksum: null })),
  };
}
