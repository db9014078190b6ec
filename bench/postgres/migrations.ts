import { writeFileSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import path from "node:path";

/** How a tool wants its files named and marked. */
export const layouts = ["golang-migrate", "goose", "dbmate", "atlas", "flyway"] as const;

/** One of {@link layouts}. */
export type Layout = (typeof layouts)[number];

/** Writes `count` small migrations into an empty folder: the k-th is `CREATE TABLE t_k(id int)`. No way down. */
export async function writeMigrations(
  folder: string,
  layout: Layout,
  count: number,
  bytesEach = 0,
): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (let k = 1; k <= count; k += 1) writeMigration(folder, layout, k, bytesEach);
}

/** Writes the k-th migration into a folder, with a comment that makes it `bytesEach` long where it would be shorter. */
export function writeMigration(folder: string, layout: Layout, k: number, bytesEach = 0): string {
  const statement = `CREATE TABLE t_${k}(id int);\n`;
  const { name, text } = file(layout, k, padded(statement, bytesEach));
  writeFileSync(path.join(folder, name), text);
  return name;
}

/** The names in a folder of migrations, in their order. */
export async function listMigrations(folder: string): Promise<readonly string[]> {
  return (await readdir(folder)).toSorted();
}

/** What a database holds once the first k migrations are applied: k of these. */
export const appliedTables =
  "SELECT count(*)::int AS n FROM pg_class WHERE relkind = 'r' AND relname ~ '^t_[0-9]+$'";

function padded(statement: string, bytes: number): string {
  const missing = bytes - statement.length - "-- \n".length;
  return missing <= 0 ? statement : `-- ${"x".repeat(missing)}\n${statement}`;
}

function file(layout: Layout, k: number, sql: string): { readonly name: string; readonly text: string } {
  const number = String(k).padStart(6, "0");
  switch (layout) {
    case "golang-migrate":
      return { name: `${number}_m${k}.up.sql`, text: sql };
    case "goose":
      return { name: `${number}_m${k}.sql`, text: `-- +goose Up\n${sql}` };
    case "dbmate":
      return { name: `${number}_m${k}.sql`, text: `-- migrate:up\n${sql}-- migrate:down\n` };
    case "atlas":
      return { name: `${number}_m${k}.sql`, text: sql };
    case "flyway":
      return { name: `V${number}__m${k}.sql`, text: sql };
  }
}
