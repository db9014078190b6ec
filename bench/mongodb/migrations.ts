import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";

/** How a tool wants its migrations written. */
export type Layout = "commands" | "programs";

/** A collection takes 64 indexes, one of them its own. */
const indexesEach = 50;

/** Writes `count` small migrations into an empty folder: the k-th builds one index. Up only. */
export async function writeMigrations(folder: string, layout: Layout, count: number): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (let k = 1; k <= count; k += 1) await addMigration(folder, layout, k);
}

/** Adds the k-th to a folder of those before it. */
export async function addMigration(folder: string, layout: Layout, k: number): Promise<void> {
  const command = JSON.stringify({
    createIndexes: `bench_${Math.ceil(k / indexesEach)}`,
    indexes: [{ key: { [`f${k}`]: 1 }, name: `f${k}_1` }],
  });
  const number = String(k).padStart(6, "0");
  switch (layout) {
    case "commands":
      return writeFile(path.join(folder, `${number}_m${k}.up.json`), `[${command}]\n`);
    case "programs":
      return writeFile(
        path.join(folder, `${number}-m${k}.cjs`),
        `module.exports = { async up(db) { await db.command(${command}); }, async down() {} };\n`,
      );
  }
}
