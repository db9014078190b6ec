import { RunnerError } from "../../error.ts";
import type { Engine } from "../../migration/migration.ts";
import type { Source } from "../../source/source.ts";

/**
 * Which engine's migrations a folder holds, by the names of its files: those of MongoDB are `.json`. Where it holds
 * both, its format refuses one of them.
 *
 * @throws RunnerError `USAGE` - it holds programs alone, which may be for either; as {@link Source.list}
 */
export async function engineOfFolder(source: Source, signal: AbortSignal): Promise<Engine> {
  const names = (await source.list("", signal)).map(({ key }) => key);
  const isFor = (extension: string): boolean =>
    names.some((name) => /^[0-9]+_/.test(name) && name.endsWith(extension));
  if (isFor(".sql")) return "postgres";
  if (isFor(".json")) return "mongodb";
  if (!names.some((name) => program.test(name)) || names.some((name) => name.endsWith(".sql")))
    return "postgres";
  throw new RunnerError("USAGE", "the folder holds programs alone, which may be for any kind of database", {
    hint: "say --engine postgres or --engine mongodb to publish it, or name the --database that they are for",
  });
}

const program = /^[0-9]+_.*\.(?:up|down)\.m?[jt]s$/;
