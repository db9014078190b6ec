import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { TestDatabase } from "../support/database.ts";
import { part } from "../support/parts.ts";
import type { Tool } from "./tool.ts";

const run = promisify(execFile);

/** Schema and rows as pg_dump tells them, less what either side keeps for itself and the random marks of newer pg_dumps. */
export async function dump(database: TestDatabase, { own }: Tool): Promise<string> {
  const flags = [
    "--inserts",
    "--exclude-schema=lockkeeper",
    ...(own.schema === undefined ? [] : [`--exclude-schema=${own.schema}`]),
    ...(own.tables === undefined ? [] : [`--exclude-table=${own.tables}`]),
  ];
  const { stdout } = await run(part("pg_dump"), [...flags, "-d", database.url], { maxBuffer: 1 << 26 });
  return stdout.replaceAll(/^\\(?:un)?restrict .*$/gm, "");
}
