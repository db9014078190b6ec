import * as v from "valibot";

import type { ProbeVerdict } from "../../session.ts";
import { literal } from "../tables.ts";
import { dropInvalid, invalidIndexes, pauseAtBuild } from "./invalid-index.ts";
import type { Probe } from "./probe.ts";
import { StatementReader } from "./statement-reader.ts";

/**
 * `REINDEX … CONCURRENTLY`: repeated, because nothing tells an index that was made anew from one that was not. The copy
 * that a dead attempt left (`…_ccnew` before the exchange, `…_ccold` after it) is dropped first.
 */
export const reindexed: Probe = {
  leavesRests: true,

  async look(site, sql) {
    const { what, name } = readReindex(sql);
    const [result] = await site.connection.send(
      `SELECT ${name === undefined || (what !== "relation" && what !== "schema") ? "NULL" : what === "relation" ? `pg_catalog.to_regclass(${literal(name)})::oid::bigint::text` : `pg_catalog.to_regnamespace(${literal(name)})::oid::bigint::text`} AS oid`,
    );
    const found = result?.rows[0]?.["oid"];
    const scope = typeof found === "string" ? { [what]: Number(found) } : {};
    const copies = await invalidIndexes(site, inScope(scope));
    return { ...scope, copies: copies.map(({ oid }) => oid) };
  },

  async settle(site, before) {
    const read = v.safeParse(beforeSchema, before);
    if (!read.success) return undefined;
    const { copies, ...scope } = read.output;
    const isNew = `${inScope(scope)} AND NOT x.indexrelid = ANY (${literal(`{${copies.join(",")}}`)}::oid[])`;
    let verdict: ProbeVerdict = "not-done";
    for (;;) {
      const rests = await invalidIndexes(site, isNew);
      const dead = rests.find((index) => !index.mayBeBuilding);
      if (rests.length === 0) return verdict;
      if (dead !== undefined && (await dropInvalid(site, dead))) verdict = "cleared";
      else await pauseAtBuild(site);
    }
  },
};

const oid = v.pipe(v.number(), v.integer(), v.minValue(0));

/** Neither relation nor schema: the whole database, or what is not there. */
const beforeSchema = v.object({
  relation: v.optional(oid),
  schema: v.optional(oid),
  /** of dead attempts before ours: not ours to drop */
  copies: v.array(oid),
});

/** SQL condition about `x` and `i`: a copy on a table of the scope, or on its TOAST table. */
function inScope({
  relation,
  schema,
}: {
  relation?: number | undefined;
  schema?: number | undefined;
}): string {
  const isCopy = "i.relname ~ '_cc(new|old)\\d*$'";
  const tables =
    relation === undefined
      ? schema === undefined
        ? undefined
        : `SELECT oid FROM pg_catalog.pg_class WHERE relnamespace = ${schema}`
      : `SELECT coalesce(px.indrelid, p.oid) FROM (SELECT ${relation}::oid AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree(${relation})) p
   LEFT JOIN pg_catalog.pg_index px ON px.indexrelid = p.oid`;
  if (tables === undefined) return isCopy;
  return `${isCopy} AND (x.indrelid IN (${tables}) OR x.indrelid IN (SELECT reltoastrelid FROM pg_catalog.pg_class WHERE oid IN (${tables})))`;
}

function readReindex(sql: string): { what: "relation" | "schema" | "database"; name: string | undefined } {
  const reader = new StatementReader(sql);
  reader.skip("REINDEX");
  reader.skipParentheses();
  const what = reader.isAt("SCHEMA")
    ? "schema"
    : reader.isAt("INDEX") || reader.isAt("TABLE")
      ? "relation"
      : "database";
  reader.advance();
  reader.skip("CONCURRENTLY");
  return { what, name: reader.name() };
}
