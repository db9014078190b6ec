import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";

/** How a tool wants its files named and marked. */
export type Layout = "golang-migrate" | "goose";

/** Writes `count` small migrations into an empty folder: the k-th is `CREATE TABLE t_k(id int)`. Up only. */
export async function writeMigrations(folder: string, layout: Layout, count: number): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (let k = 1; k <= count; k += 1) {
    const { name, text } = file(layout, k);
    await writeFile(path.join(folder, name), text);
  }
}

/** The names in a folder of migrations, in their order. */
export async function listMigrations(folder: string): Promise<readonly string[]> {
  return (await readdir(folder)).toSorted();
}

/** What a database holds once the first k migrations are applied: k of these. */
export const appliedTables =
  "SELECT count(*)::int AS n FROM pg_class WHERE relkind = 'r' AND relname ~ '^t_[0-9]+$'";

function file(layout: Layout, k: number): { readonly name: string; readonly text: string } {
  const statement = `CREATE TABLE t_${k}(id int);\n`;
  const number = String(k).padStart(6, "0");
  switch (layout) {
    case "golang-migrate":
      return { name: `${number}_m${k}.up.sql`, text: statement };
    case "goose":
      return { name: `${number}_m${k}.sql`, text: `-- +goose Up\n${statement}` };
  }
}
