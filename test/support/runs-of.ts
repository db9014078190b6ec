import type { TestDatabase } from "./database.ts";

/** How many runs a database has recorded; 0 also where there is nothing of ours in it. */
export async function runsOf(database: TestDatabase): Promise<number> {
  const [row] = await database.query("SELECT to_regclass('lockkeeper.runs') AS runs");
  return row?.["runs"] === null ? 0 : (await database.query("SELECT FROM lockkeeper.runs")).length;
}
