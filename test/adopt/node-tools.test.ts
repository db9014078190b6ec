import { describe } from "vitest";
import { nodePgMigrate, umzug } from "../support/peer.ts";
import { both, takesOver, type Case } from "./takes-over.ts";

const pair = (n: number) => ({
  [`000${n}_t${n}.up.sql`]: `CREATE TABLE t${n} (id int);\n`,
  [`000${n}_t${n}.down.sql`]: `DROP TABLE t${n};\n`,
});

const cases: readonly Case[] = [
  {
    tool: "node-pg-migrate",
    part: "node-pg-migrate",
    format: "golang-migrate",
    table: "pgmigrations",
    files: pair,
    theirFiles: (n) => ({ [`000${n}_t${n}.sql`]: both(n, "-- Up Migration", "-- Down Migration") }),
    up: (site) => nodePgMigrate(site, "up"),
    down: (site) => nodePgMigrate(site, "down"),
  },
  {
    tool: "umzug",
    part: "umzug",
    format: "golang-migrate",
    table: '"SequelizeMeta"',
    files: pair,
    up: (site) => umzug(site, "up"),
    down: (site) => umzug(site, "down"),
  },
];

describe.each(cases)("$tool", (own) => {
  takesOver(own);
});
