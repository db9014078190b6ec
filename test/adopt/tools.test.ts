import { describe } from "vitest";
import { atlas, dbmate, flyway, goose } from "../support/peer.ts";
import { both, takesOver, type Case } from "./takes-over.ts";

const cases: readonly Case[] = [
  {
    tool: "goose",
    part: "goose",
    format: "goose",
    table: "goose_db_version",
    files: (n) => ({ [`000${n}_t${n}.sql`]: both(n, "-- +goose Up", "-- +goose Down") }),
    up: (site) => goose(site, "up"),
    down: (site) => goose(site, "down"),
  },
  {
    tool: "dbmate",
    part: "dbmate",
    format: "dbmate",
    table: "schema_migrations",
    files: (n) => ({ [`000${n}_t${n}.sql`]: both(n, "-- migrate:up", "-- migrate:down") }),
    up: (site) => dbmate(site, "migrate"),
    down: (site) => dbmate(site, "rollback"),
  },
  {
    tool: "flyway",
    part: "flyway",
    format: "flyway",
    table: "flyway_schema_history",
    files: (n) => ({ [`V1_${n}__make_t${n}.sql`]: `CREATE TABLE t${n} (id int);\r\n` }),
    up: (site) => flyway(site, "migrate"),
  },
  {
    tool: "atlas",
    part: "atlas",
    format: "atlas",
    table: "atlas_schema_revisions.atlas_schema_revisions",
    files: (n) => ({ [`2024010${n}000000_t${n}.sql`]: `CREATE TABLE t${n} (id int);\n` }),
    up: (site) => atlas(site, "apply"),
    prepare: (site) => atlas(site, "hash"),
  },
];

describe.each(cases)("$tool", (own) => {
  takesOver(own);
});
