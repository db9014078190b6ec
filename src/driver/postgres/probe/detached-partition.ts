import * as v from "valibot";

import { literal } from "../tables.ts";
import { runMark } from "../transaction.ts";
import type { Probe } from "./probe.ts";
import { StatementReader } from "./statement-reader.ts";

/**
 * `DETACH PARTITION … CONCURRENTLY`: two transactions. After the first the partition is marked, and no longer seen
 * through its parent; what is missing is then done by `FINALIZE`.
 */
export const detachedPartition: Probe = {
  leavesRests: true,

  async look({ connection }, sql) {
    const names = readDetach(sql);
    if (names === undefined) return {};
    const [result] = await connection.send(
      `SELECT p.oid::bigint::text AS parent, c.oid::bigint::text AS child, i.inhrelid IS NOT NULL AS attached
 FROM (SELECT pg_catalog.to_regclass(${literal(names.parent)})::oid AS oid) p CROSS JOIN (SELECT pg_catalog.to_regclass(${literal(names.child)})::oid AS oid) c
 LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = p.oid`,
    );
    const row = result?.rows[0];
    return {
      parent: Number(row?.["parent"] ?? 0),
      child: Number(row?.["child"] ?? 0),
      isAttached: row?.["attached"] === true,
    };
  },

  async settle({ bench, connection }, before) {
    const { success, output } = v.safeParse(beforeSchema, before);
    if (!success) return undefined;
    if (!output.isAttached) return "not-done";
    const [result] = await connection.send(`SELECT i.inhdetachpending AS pending,
 pg_catalog.format('%I.%I', pn.nspname, p.relname) AS parent, pg_catalog.format('%I.%I', cn.nspname, c.relname) AS child
 FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
 WHERE i.inhrelid = ${output.child} AND i.inhparent = ${output.parent}`);
    const row = result?.rows[0];
    if (row === undefined) return "done";
    if (row["pending"] !== true) return "not-done";
    const finalize = `ALTER TABLE ${String(row["parent"])} DETACH PARTITION ${String(row["child"])} FINALIZE`;
    await bench.sendOn(connection, runMark(bench.key()) + finalize);
    return "done";
  },
};

const oid = v.pipe(v.number(), v.integer(), v.minValue(0));

const beforeSchema = v.object({ parent: oid, child: oid, isAttached: v.boolean() });

function readDetach(sql: string): { parent: string; child: string } | undefined {
  const reader = new StatementReader(sql);
  if (!reader.skip("ALTER", "TABLE")) return undefined;
  if (reader.isAt("IF")) reader.skip("IF", "EXISTS");
  reader.skip("ONLY");
  const parent = reader.name();
  reader.skip("*");
  if (parent === undefined || !reader.skip("DETACH", "PARTITION")) return undefined;
  const child = reader.name();
  return child === undefined ? undefined : { parent, child };
}
