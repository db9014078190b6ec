import * as v from "valibot";

import { literal } from "../tables.ts";
import type { Probe } from "./probe.ts";
import { StatementReader } from "./statement-reader.ts";

/** `DROP INDEX CONCURRENTLY`, which takes one name only: the index of that name is gone, or it is dropped again, valid or not. */
export const droppedIndex: Probe = {
  leavesRests: false,

  async look({ connection }, sql) {
    const reader = new StatementReader(sql);
    reader.skip("DROP", "INDEX", "CONCURRENTLY");
    const first = reader.name();
    const name = first?.toUpperCase() === "IF" && reader.skip("EXISTS") ? reader.name() : first;
    if (name === undefined) return {};
    const [result] = await connection.send(
      `SELECT pg_catalog.to_regclass(${literal(name)})::oid::bigint::text AS oid`,
    );
    const oid = result?.rows[0]?.["oid"];
    return { index: typeof oid === "string" ? Number(oid) : null };
  },

  async settle({ connection }, before) {
    const { success, output } = v.safeParse(beforeSchema, before);
    if (!success) return undefined;
    if (output.index === null) return "not-done";
    const [result] = await connection.send(`SELECT 1 FROM pg_catalog.pg_class WHERE oid = ${output.index}`);
    return result?.rows.length === 0 ? "done" : "not-done";
  },
};

const beforeSchema = v.object({
  /** null: there was none */
  index: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0))),
});
