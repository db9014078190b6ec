import { RunnerError } from "../../error.ts";
import type { Backfill } from "../../migration/backfill.ts";
import type { StatementStep } from "../session.ts";
import type { Row } from "./connection.ts";
import { literal } from "./tables.ts";

/** The key that a backfill follows, as the database knows it. */
export interface FollowedKey {
  /** quoted, with its schema */
  readonly table: string;
  readonly columns: readonly KeyColumn[];
  /** rows by the statistics; undefined where there are none */
  readonly estimatedRows: number | undefined;
}

/** One column of the key. */
export interface KeyColumn {
  /** quoted */
  readonly name: string;
  /** as a cast writes it */
  readonly type: string;
  /** how its values can be measured: as numbers, as points in time, or not at all */
  readonly scale: "number" | "time" | undefined;
}

/**
 * One row that describes the table and the key's columns in their order.
 *
 * The index must give the rows in the order of a comparison of whole keys: all of them ascending, or all descending
 * (it is then read backwards), by the columns' own operators and collations.
 */
export function selectKey({ table, key }: Backfill): string {
  return `WITH written AS (SELECT n::int, (pg_catalog.parse_ident(column_name))[1]::name AS attname
  FROM pg_catalog.unnest(ARRAY[${key.map(literal).join(", ")}]::text[]) WITH ORDINALITY AS w (column_name, n)),
 key AS (SELECT w.n, w.attname, a.attnum, a.attcollation, t.typname, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
  a.attnotnull AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint x
   WHERE x.conrelid = a.attrelid AND x.contype = 'n' AND NOT x.convalidated AND a.attnum = ANY (x.conkey)) AS is_filled
  FROM written w LEFT JOIN pg_catalog.pg_attribute a
   ON a.attrelid = pg_catalog.to_regclass(${literal(table)}) AND a.attname = w.attname AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid)
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.relkind AS kind, c.reltuples AS estimated_rows,
 (SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', pg_catalog.quote_ident(k.attname), 'type', k.type, 'typname', k.typname,
   'isThere', k.attnum IS NOT NULL, 'isFilled', k.is_filled) ORDER BY k.n) FROM key k) AS columns,
 EXISTS (SELECT FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_am m ON m.oid = i.relam
  WHERE x.indrelid = c.oid AND m.amname = 'btree' AND x.indisvalid AND x.indisready AND x.indpred IS NULL
   AND x.indnkeyatts >= (SELECT pg_catalog.count(*) FROM key) AND x.indoption[0] IN (0, 3)
   AND NOT EXISTS (SELECT FROM key k JOIN pg_catalog.pg_opclass o ON o.oid = x.indclass[k.n - 1]
    WHERE x.indkey[k.n - 1] IS DISTINCT FROM k.attnum OR x.indoption[k.n - 1] <> x.indoption[0]
     OR x.indcollation[k.n - 1] <> k.attcollation OR NOT o.opcdefault)) AS is_indexed
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(${literal(table)})`;
}

/**
 * Reads the row of {@link selectKey}.
 *
 * @throws RunnerError `BACKFILL` - the key cannot be followed without missing rows, or without reading the whole table for each range
 */
export function readKey(
  row: Row | undefined,
  { table, key }: Backfill,
  step: Pick<StatementStep, "path" | "migration">,
): FollowedKey {
  const refuse = (what: string, hint: string): RunnerError =>
    new RunnerError("BACKFILL", `${step.path}: ${what}; nothing of it was changed`, {
      hint,
      fields: { migration: step.path, version: step.migration.version, table },
    });
  if (row === undefined)
    throw refuse(
      `the backfill's table ${table} is not there`,
      "correct table= in the file's header; a name without its schema is looked for along search_path",
    );
  if (!hasRows.has(String(row["kind"])))
    throw refuse(
      `the backfill's table ${table} is a view or a foreign table`,
      "name the table whose rows are to be followed, and join the other in the statement",
    );
  const columns = row["columns"] as readonly DescribedColumn[];
  for (const [index, { isThere, isFilled }] of columns.entries()) {
    const written = key[index] ?? "";
    if (!isThere)
      throw refuse(
        `the backfill's table ${table} has no column ${written}`,
        "correct key= in the file's header",
      );
    if (isFilled !== true)
      throw refuse(
        `the backfill's key ${written} may be NULL, and rows without a key would be skipped`,
        "follow another key, such as the primary key, or make the column NOT NULL first",
      );
  }
  const name = String(row["name"]);
  const names = columns.map((column) => column.name);
  if (row["is_indexed"] !== true)
    throw refuse(
      `no index leads through the backfill's key (${names.join(", ")})`,
      `create one in an earlier migration, CREATE INDEX CONCURRENTLY … ON ${name} (${names.join(", ")}), or follow the primary key`,
    );
  const estimated = Number(row["estimated_rows"]);
  return {
    table: name,
    columns: columns.map((column) => ({
      name: column.name,
      type: column.type ?? "",
      scale: scales.get(column.typname ?? ""),
    })),
    estimatedRows: estimated > 0 ? estimated : undefined,
  };
}

interface DescribedColumn {
  readonly name: string;
  readonly type: string | null;
  readonly typname: string | null;
  readonly isThere: boolean;
  readonly isFilled: boolean | null;
}

/** `pg_class.relkind`: tables, partitioned tables, materialized views */
const hasRows: ReadonlySet<string> = new Set(["r", "p", "m"]);

const scales: ReadonlyMap<string, "number" | "time"> = new Map([
  ...["int2", "int4", "int8", "numeric", "float4", "float8"].map((name) => [name, "number"] as const),
  ...["date", "timestamp", "timestamptz"].map((name) => [name, "time"] as const),
]);
