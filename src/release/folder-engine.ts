import type { Engine } from "../migration/migration.ts";
import type { Source } from "../source/source.ts";

/**
 * Which engine's migrations a folder holds, by the names of its files: those of MongoDB are `.json`. Where it holds
 * both, its format refuses one of them.
 *
 * @throws RunnerError as {@link Source.list}
 */
export async function engineOfFolder(source: Source, signal: AbortSignal): Promise<Engine> {
  const names = (await source.list("", signal)).map(({ key }) => key);
  const isFor = (extension: string): boolean =>
    names.some((name) => /^[0-9]+_/.test(name) && name.endsWith(extension));
  return isFor(".json") && !isFor(".sql") ? "mongodb" : "postgres";
}
