import { RunnerError } from "../../../error.ts";
import {
  placeName,
  type ForeignColumn,
  type ForeignRow,
  type ForeignTable,
} from "../../../history/foreign.ts";
import type { ForeignHistories } from "../../foreign.ts";
import type { ConnectionPool, Row } from "../connection.ts";
import type { PostgresDatabase } from "../database.ts";
import { serverError } from "../failure.ts";
import { creationClash, sqlstate } from "../sqlstate.ts";
import { identifier, literal } from "../tables.ts";

/** How the tools call their tables where nobody renames them. */
const usualNames = [
  "schema_migrations",
  "goose_db_version",
  "atlas_schema_revisions",
  "flyway_schema_history",
  "pgmigrations",
  "SequelizeMeta",
];
/** Atlas makes a schema of its own where its URL names none. */
const atlasOwnSchema = "atlas_schema_revisions";
/** Tables that a tool keeps beside its record, and that tell it from another with the same columns. */
const companions = ["ar_internal_metadata"];
/** more rows than any project has migrations: the table is something else */
const mostRows = 100_000;

/**
 * What other tools left in a PostgreSQL database.
 *
 * @param lockPool - for the connection that holds their locks: past the pooler, where that is possible
 */
export function foreignHistories(database: PostgresDatabase, lockPool: ConnectionPool): ForeignHistories {
  return {
    tables: (named, signal) =>
      database.use(signal, async (connection) => {
        const [result] = await connection.send(selectTables(named), signal);
        return (result?.rows ?? []).map(readTable);
      }),
    rows: (table, signal) =>
      database.use(signal, async (connection) => {
        try {
          const [result] = await connection.send(selectRows(table), signal);
          const rows = (result?.rows ?? []) as readonly ForeignRow[];
          if (rows.length > mostRows) throw tooManyRows(table);
          return rows;
        } catch (cause) {
          throw unreadable(cause, table);
        }
      }),
    begin: (named, signal) =>
      database.use(signal, async (connection) => {
        try {
          await connection.send(createRecord(named), signal);
        } catch (cause) {
          // another one has just made it
          if (!creationClash.has(serverError(cause)?.sqlstate ?? "")) throw cause;
        }
      }),
    async withLock(place, options, work) {
      const { withForeignLock } = await import("./lock.ts");
      return withForeignLock(database, lockPool, place, options, work);
    },
  };
}

/** As golang-migrate's `ensureVersionTable` does (database/postgres/postgres.go). */
function createRecord(named: string): string {
  const name = named.split(".").map(identifier).join(".");
  return `CREATE TABLE IF NOT EXISTS ${name} (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)`;
}

function selectTables(named: string | undefined): string {
  const found = "n.nspname = ANY (pg_catalog.current_schemas(false))";
  const condition =
    named === undefined
      ? `c.relname IN (${usualNames.map(literal).join(", ")}) AND ${found}
   OR n.nspname = ${literal(atlasOwnSchema)} AND c.relname = ${literal(atlasOwnSchema)}`
      : // golang-migrate takes `a.b` for the name of one table
        `n.nspname || '.' || c.relname = ${literal(named)} OR c.relname = ${literal(named)} AND ${found}`;
  const may = ["INSERT", "UPDATE", "DELETE"]
    .map((right) => `pg_catalog.has_table_privilege(c.oid, '${right}')`)
    .join(" AND ");
  return `SELECT n.nspname AS schema, c.relname AS table, ${may} AS writable,
 (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname, 'type', pg_catalog.format_type(a.atttypid, NULL)) ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
 (SELECT pg_catalog.jsonb_agg(b.relname) FROM pg_catalog.pg_class b WHERE b.relnamespace = c.relnamespace AND b.relname IN (${companions.map(literal).join(", ")})) AS beside
 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND (${condition})
 ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname), c.relname`;
}

function readTable(row: Row): ForeignTable {
  return {
    schema: String(row["schema"]),
    table: String(row["table"]),
    columns: (row["columns"] ?? []) as readonly ForeignColumn[],
    beside: (row["beside"] ?? []) as readonly string[],
    isWritable: row["writable"] === true,
  };
}

function selectRows({ schema, table, columns }: Parameters<ForeignHistories["rows"]>[0]): string {
  const values = columns.map(({ name }) => `${identifier(name)}::text AS ${identifier(name)}`).join(", ");
  return `SELECT ${values} FROM ${identifier(schema)}.${identifier(table)} LIMIT ${mostRows + 1}`;
}

function unreadable(cause: unknown, table: Parameters<ForeignHistories["rows"]>[0]): unknown {
  switch (serverError(cause)?.sqlstate) {
    case sqlstate.insufficientPrivilege:
      return new RunnerError("DATABASE_DENIED", `our role may not read ${placeName(table)}`, {
        hint: "grant it SELECT on that table, and USAGE on its schema; to keep it in step INSERT, UPDATE and DELETE too",
        fields: { table: placeName(table) },
        cause,
      });
    case sqlstate.undefinedTable:
    case sqlstate.undefinedColumn:
      return new RunnerError("ADOPTION", `${placeName(table)} is gone, or is another table than before`, {
        hint: "look at the database; if the old tool is no longer used, say lockkeeper adopt --keep-in-step off",
        fields: { table: placeName(table) },
        cause,
      });
    default:
      return cause;
  }
}

function tooManyRows(table: Parameters<ForeignHistories["rows"]>[0]): RunnerError {
  return new RunnerError(
    "ADOPTION",
    `${placeName(table)} has more than ${mostRows} rows: no tool's record of migrations is that long`,
    { hint: "name the right table with --table", fields: { table: placeName(table) } },
  );
}
