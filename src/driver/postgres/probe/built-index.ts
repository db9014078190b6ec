import * as v from "valibot";

import type { ProbeVerdict } from "../../session.ts";
import { literal } from "../tables.ts";
import { doomedPrefix, dropInvalid, invalidIndexes, pauseAtBuild } from "./invalid-index.ts";
import type { Before, Probe, ProbeSite } from "./probe.ts";
import { StatementReader } from "./statement-reader.ts";

/**
 * `CREATE INDEX CONCURRENTLY`: an index of that name and shape that was not there before. One that is invalid, and
 * that nobody is building, is dropped.
 */
export const builtIndex: Probe = {
  leavesRests: true,

  async look(site, sql) {
    const read = readBuild(sql);
    if (read === undefined) return {};
    const table = literal(read.table);
    // An attempt of another release, or of another tool, under the very name that is wanted.
    if (read.name !== undefined) {
      const inTheWay = `x.indrelid = pg_catalog.to_regclass(${table}) AND (i.relname = ${nameOf(read.name)} OR ${isDoomed})`;
      for (const index of await invalidIndexes(site, inTheWay))
        if (!index.mayBeBuilding) await dropInvalid(site, index);
    }
    const columns = `(SELECT coalesce(pg_catalog.string_agg(coalesce((SELECT a.attnum FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = pg_catalog.to_regclass(${table}) AND a.attname = k.name), 0)::text, ' ' ORDER BY k.place), '')
  FROM (VALUES ${read.keys.map((key, place) => `(${place}, ${key === undefined ? "NULL::name" : nameOf(key)})`).join(", ")}) k (place, name))`;
    const [result] = await site.connection.send(`SELECT pg_catalog.jsonb_build_object(
 'table', pg_catalog.to_regclass(${table})::oid::bigint, 'name', ${read.name === undefined ? "NULL::name" : nameOf(read.name)},
 'keys', ${columns}, 'isUnique', ${read.isUnique}, 'isPartial', ${read.isPartial},
 'indexes', (SELECT coalesce(pg_catalog.jsonb_agg(x.indexrelid::bigint), '[]') FROM pg_catalog.pg_index x WHERE x.indrelid = pg_catalog.to_regclass(${table}))) AS before`);
    return beforeSchema(result?.rows[0]?.["before"]);
  },

  async settle(site, before) {
    const build = v.safeParse(buildSchema, before);
    if (!build.success) return undefined;
    if (build.output.table === null) return "not-done";
    return settleBuild(site, build.output);
  },

  async hasResult(site, before) {
    const build = v.safeParse(buildSchema, before);
    if (!build.success || build.output.name === null || build.output.table === null) return true;
    // `IF NOT EXISTS` takes an invalid index for the one that is wanted.
    const { name, table } = build.output;
    for (;;) {
      const [found] = await invalidIndexes(site, `x.indrelid = ${table} AND i.relname = ${literal(name)}`);
      if (found === undefined) return true;
      if (found.mayBeBuilding) await pauseAtBuild(site);
      else if (await dropInvalid(site, found)) return false;
    }
  },
};

const oid = v.pipe(v.number(), v.integer(), v.minValue(0));

const buildSchema = v.object({
  table: v.nullable(oid),
  /** null: left to the server */
  name: v.nullable(v.string()),
  /** numbers of its key columns, 0 for an expression */
  keys: v.pipe(v.string(), v.regex(/^[\d ]*$/)),
  isUnique: v.boolean(),
  isPartial: v.boolean(),
  /** those that the table had before */
  indexes: v.array(oid),
});

type Build = v.InferOutput<typeof buildSchema>;

async function settleBuild(site: ProbeSite, build: Build): Promise<ProbeVerdict> {
  const isNew = `x.indrelid = ${build.table} AND NOT x.indexrelid = ANY (${literal(`{${build.indexes.join(",")}}`)}::oid[])`;
  const isBuilt = `${build.name === null ? "i.relname ~ '_idx\\d*$'" : `i.relname = ${literal(build.name)}`} AND x.indisunique = ${build.isUnique}
   AND (x.indpred IS NOT NULL) = ${build.isPartial}
   AND pg_catalog.array_to_string((pg_catalog.string_to_array(x.indkey::text, ' '))[1:x.indnkeyatts], ' ') = ${literal(build.keys)}`;
  let hasCleared = false;
  for (;;) {
    const [valid] = await site.connection.send(
      `SELECT 1 FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid WHERE x.indisvalid AND ${isNew} AND ${isBuilt}`,
    );
    const isThere = (valid?.rows.length ?? 0) > 0;
    const rests = await invalidIndexes(site, `${isNew} AND (${isDoomed} OR ${isBuilt})`);
    const dead = rests.find((index) => !index.mayBeBuilding);
    if (dead !== undefined) {
      if (await dropInvalid(site, dead)) hasCleared = true;
      else await pauseAtBuild(site);
    } else if (isThere) return "done";
    else if (rests.length === 0) return hasCleared ? "cleared" : "not-done";
    else await pauseAtBuild(site);
  }
}

const isDoomed = `pg_catalog.starts_with(i.relname, '${doomedPrefix}')`;

/** SQL: a name as written, as the catalogue has it: folded, unquoted, and cut to its length. */
function nameOf(written: string): string {
  return `(pg_catalog.parse_ident(${literal(written)}))[1]::name`;
}

function beforeSchema(value: unknown): Before {
  return v.parse(v.record(v.string(), v.unknown()), value);
}

/** What a statement builds, its names as written. */
interface WrittenBuild {
  readonly name: string | undefined;
  readonly table: string;
  /** undefined for an expression */
  readonly keys: readonly (string | undefined)[];
  readonly isUnique: boolean;
  readonly isPartial: boolean;
}

function readBuild(sql: string): WrittenBuild | undefined {
  const reader = new StatementReader(sql);
  if (!reader.skip("CREATE")) return undefined;
  const isUnique = reader.skip("UNIQUE");
  if (!reader.skip("INDEX", "CONCURRENTLY")) return undefined;
  let name: string | undefined;
  if (!reader.isAt("ON")) {
    name = reader.name();
    // `IF` alone is a name as any other
    if (name?.toUpperCase() === "IF" && reader.skip("NOT", "EXISTS")) name = reader.name();
    if (name === undefined) return undefined;
  }
  if (!reader.skip("ON")) return undefined;
  reader.skip("ONLY");
  const table = reader.name();
  if (table === undefined) return undefined;
  if (reader.skip("USING")) reader.name();
  const keys = readKeys(reader);
  if (keys === undefined) return undefined;
  let isPartial = false;
  while (reader.isOpen) {
    isPartial ||= reader.isAt("WHERE");
    if (reader.isAt("(")) reader.skipParentheses();
    else reader.advance();
  }
  return { name, table, keys, isUnique, isPartial };
}

/** A column alone is a name that no parenthesis or dot follows. */
function readKeys(reader: StatementReader): readonly (string | undefined)[] | undefined {
  if (!reader.skip("(")) return undefined;
  const keys: (string | undefined)[] = [];
  while (reader.isOpen && !reader.isAt(")")) {
    const name = reader.name();
    keys.push(name === undefined || name.includes(".") || reader.isAt("(") ? undefined : name);
    while (reader.isOpen && !reader.isAt(",") && !reader.isAt(")")) {
      if (reader.isAt("(")) reader.skipParentheses();
      else reader.advance();
    }
    reader.skip(",");
  }
  return reader.skip(")") && keys.length > 0 ? keys : undefined;
}
