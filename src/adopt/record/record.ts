import type { ForeignRow, ForeignTable, ForeignTool } from "../../history/foreign.ts";
import type { Claim } from "../claim.ts";

/** How one tool keeps its record: told by its columns, whatever the table is called. */
export interface RecordFormat {
  readonly tool: ForeignTool;
  matches(table: ForeignTable): boolean;
  /** What the rows say; they come in no order. */
  read(rows: readonly ForeignRow[], table: Pick<ForeignTable, "schema" | "table">): Claim;
}

/** Whether a table has exactly these columns, in whatever order; a type is one of those named. */
export function hasExactly(
  { columns }: ForeignTable,
  wanted: Readonly<Record<string, readonly string[]>>,
): boolean {
  return columns.length === Object.keys(wanted).length && hasAll({ columns }, wanted);
}

/** Whether a table has at least these columns. */
export function hasAll(
  { columns }: Pick<ForeignTable, "columns">,
  wanted: Readonly<Record<string, readonly string[]>>,
): boolean {
  return Object.entries(wanted).every(([name, types]) =>
    columns.some((column) => column.name === name && types.includes(column.type)),
  );
}

/** Types by what they hold. */
export const typeNames = {
  whole: ["bigint", "integer", "smallint", "numeric"],
  text: ["character varying", "text", "character"],
  flag: ["boolean"],
  time: ["timestamp without time zone", "timestamp with time zone", "date"],
} as const;

/** Rows by a column of whole numbers, lowest first. */
export function sortByNumber(rows: readonly ForeignRow[], column: string): readonly ForeignRow[] {
  return rows.toSorted((a, b) => {
    const [left, right] = [BigInt(a[column] ?? "0"), BigInt(b[column] ?? "0")];
    return left < right ? -1 : left > right ? 1 : 0;
  });
}
