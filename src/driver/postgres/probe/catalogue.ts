import * as v from "valibot";

import { literal } from "../tables.ts";
import type { Before, Probe, ProbeSite } from "./probe.ts";
import { StatementReader } from "./statement-reader.ts";

/** What `CREATE` and `DROP` make and take away outside transactions: by their row in the catalogue, whose oid is new when they are. */
export type Catalogued = "database" | "tablespace" | "subscription";

/** `CREATE DATABASE | TABLESPACE | SUBSCRIPTION`: there is one of that name that was not there before. */
export function created(what: Catalogued): Probe {
  return {
    leavesRests: false,
    look: (site, sql) => lookAt(site, what, readName(sql)),
    async settle(site, before) {
      const { success, output } = v.safeParse(objectSchema, before);
      if (!success) return undefined;
      const oid = await oidOf(site, what, literal(output.name));
      return oid === null || oid === output.oid ? "not-done" : "done";
    },
  };
}

/** `DROP DATABASE | TABLESPACE | SUBSCRIPTION`: gone; a database that is half dropped is dropped again. */
export function dropped(what: Catalogued): Probe {
  return {
    leavesRests: false,
    look: (site, sql) => lookAt(site, what, readName(sql)),
    async settle(site, before) {
      const { success, output } = v.safeParse(objectSchema, before);
      if (!success) return undefined;
      if (output.oid === null) return "not-done";
      const oid = await oidOf(site, what, literal(output.name));
      return oid === output.oid ? "not-done" : "done";
    },
  };
}

/** `ALTER DATABASE … SET TABLESPACE`: it is there. */
export const changedDatabase: Probe = {
  leavesRests: false,

  async look(_site, sql) {
    const reader = new StatementReader(sql);
    reader.skip("ALTER", "DATABASE");
    const database = reader.name();
    if (!reader.skip("SET", "TABLESPACE")) return {};
    const tablespace = reader.name();
    return database === undefined || tablespace === undefined ? {} : { database, tablespace };
  },

  async settle({ connection }, before) {
    const { success, output } = v.safeParse(moveSchema, before);
    if (!success) return undefined;
    const [result] = await connection.send(
      `SELECT 1 FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace s ON s.oid = d.dattablespace
 WHERE d.datname = ${nameOf(output.database)} AND s.spcname = ${nameOf(output.tablespace)}`,
    );
    return result?.rows.length === 1 ? "done" : "not-done";
  },
};

const objectSchema = v.object({
  name: v.string(),
  /** null: there was none */
  oid: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0))),
});

/** names as written */
const moveSchema = v.object({ database: v.string(), tablespace: v.string() });

const catalogues = {
  database: "SELECT d.oid, d.datname AS name FROM pg_catalog.pg_database d",
  tablespace: "SELECT s.oid, s.spcname AS name FROM pg_catalog.pg_tablespace s",
  subscription:
    "SELECT s.oid, s.subname AS name FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = pg_catalog.current_database()",
} as const satisfies Record<Catalogued, string>;

async function lookAt(site: ProbeSite, what: Catalogued, written: string | undefined): Promise<Before> {
  if (written === undefined) return {};
  const [result] = await site.connection.send(`SELECT ${nameOf(written)} AS name`);
  const name = String(result?.rows[0]?.["name"]);
  return { name, oid: await oidOf(site, what, literal(name)) };
}

/** @param name - SQL */
async function oidOf({ connection }: ProbeSite, what: Catalogued, name: string): Promise<number | null> {
  const [result] = await connection.send(
    `SELECT c.oid::bigint::text AS oid FROM (${catalogues[what]}) c WHERE c.name = ${name}`,
  );
  const row = result?.rows[0];
  return row === undefined ? null : Number(row["oid"]);
}

function readName(sql: string): string | undefined {
  const reader = new StatementReader(sql);
  reader.advance();
  reader.advance();
  const first = reader.name();
  return first?.toUpperCase() === "IF" && reader.skip("EXISTS") ? reader.name() : first;
}

function nameOf(written: string): string {
  return `(pg_catalog.parse_ident(${literal(written)}))[1]::name`;
}
