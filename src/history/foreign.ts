/** Tools whose own record of what they applied can be read, and kept true. */
export const foreignTools = [
  "golang-migrate",
  "goose",
  "dbmate",
  "rails",
  "atlas",
  "flyway",
  "node-pg-migrate",
  "umzug",
  "migrate-mongo",
] as const;

/** A tool whose own record of what it applied can be read, and kept true. */
export type ForeignTool = (typeof foreignTools)[number];

/** Where a tool keeps its record. */
export interface ForeignPlace {
  readonly tool: ForeignTool;
  /** schema, or MongoDB's database; as the catalogue has it, unquoted */
  readonly schema: string;
  /** table or collection */
  readonly table: string;
}

/** A table that may be a tool's record: its columns tell, its name does not. */
export interface ForeignTable extends Pick<ForeignPlace, "schema" | "table"> {
  /** name and type, in their order: `version`, `bigint`; of a collection, the fields of its documents */
  readonly columns: readonly ForeignColumn[];
  /** other tables beside it that a tool keeps: `ar_internal_metadata` */
  readonly beside: readonly string[];
  /** whether our role may write to it */
  readonly isWritable: boolean;
}

/** One column, as the database describes it. */
export interface ForeignColumn {
  readonly name: string;
  /** without length: `character varying`, `bigint`; MongoDB's as its documents have it: `int`, `bool` */
  readonly type: string;
}

/** One row, every value as text; null is null. */
export type ForeignRow = Readonly<Record<string, string | null>>;

/** As a person names the place: `public.schema_migrations`. */
export function placeName({ schema, table }: Pick<ForeignPlace, "schema" | "table">): string {
  return `${schema}.${table}`;
}
