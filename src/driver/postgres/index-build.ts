import { RunnerError } from "../../error.ts";
import { SqlLexer } from "../../migration/sql-lexer.ts";
import type { StatementStep } from "../driver.ts";
import type { Connection } from "./connection.ts";
import { literal } from "./tables.ts";
import { runMark } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** The index that a `CREATE INDEX CONCURRENTLY` names, and its table as written. */
export interface BuiltIndex {
  readonly name: string;
  readonly table: string;
}

/** Reads the names; undefined where the statement leaves the index's name to the server. */
export function builtIndex(sql: string): BuiltIndex | undefined {
  const lexer = new SqlLexer(sql);
  const isWord = (word: string): boolean => lexer.kind === "word" && lexer.text.toUpperCase() === word;
  while (lexer.next() && !isWord("CONCURRENTLY"));
  if (!lexer.next()) return undefined;
  if (isWord("IF")) for (let skipped = 0; skipped < 3; skipped += 1) lexer.next();
  if (isWord("ON") || (lexer.kind !== "word" && lexer.kind !== "quoted")) return undefined;
  const name =
    lexer.kind === "quoted" ? lexer.text.slice(1, -1).replaceAll('""', '"') : lexer.text.toLowerCase();
  if (!lexer.next() || !isWord("ON") || !lexer.next()) return undefined;
  if (isWord("ONLY") && !lexer.next()) return undefined;
  let table = lexer.text;
  while (lexer.next() && lexer.text === "." && lexer.next()) table += `.${lexer.text}`;
  return { name, table };
}

/**
 * A build that failed, or whose runner died, leaves an invalid index behind, and `IF NOT EXISTS` would take it for
 * the index that is wanted. It is dropped first, unless somebody is building it right now.
 */
export async function dropInvalidIndex(
  bench: Workbench,
  connection: Connection,
  index: BuiltIndex,
): Promise<void> {
  const found = await invalidIndex(connection, index);
  if (found === undefined || found.isBeingBuilt) return;
  await bench.sendOn(connection, `${runMark(bench.key())}DROP INDEX CONCURRENTLY IF EXISTS ${found.quoted}`);
}

/** @throws RunnerError `MIGRATION_FAILED` - the statement succeeded because an index was there, and that one is invalid */
export async function assertIndexIsValid(
  connection: Connection,
  step: StatementStep,
  index: BuiltIndex,
): Promise<void> {
  const found = await invalidIndex(connection, index);
  if (found === undefined) return;
  throw new RunnerError(
    "MIGRATION_FAILED",
    `${step.path}: index ${found.quoted} is there but invalid: another session is building it`,
    {
      hint: "wait until it has done, then run again",
      fields: { migration: step.path, version: step.migration.version, index: index.name },
    },
  );
}

async function invalidIndex(
  connection: Connection,
  { name, table }: BuiltIndex,
): Promise<{ quoted: string; isBeingBuilt: boolean } | undefined> {
  const [result] = await connection.send(`SELECT pg_catalog.format('%I.%I', n.nspname, i.relname) AS quoted,
 EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = x.indexrelid) AS building
 FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = i.relnamespace
 WHERE x.indrelid = pg_catalog.to_regclass(${literal(table)}) AND i.relname = ${literal(name)} AND NOT x.indisvalid`);
  const row = result?.rows[0];
  return row === undefined
    ? undefined
    : { quoted: String(row["quoted"]), isBeingBuilt: row["building"] === true };
}
