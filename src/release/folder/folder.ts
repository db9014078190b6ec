import { RunnerError } from "../../error.ts";
import type { ChooseFormat } from "../../migration/format/choose-format.ts";
import type { Companions, FolderLayout, Format, FormatFile } from "../../migration/format/format.ts";
import { sourceLimits } from "../../source/source.ts";
import type { Source } from "../../source/source.ts";
import { mapConcurrently } from "../concurrent.ts";
import { BodyReader } from "./folder-body.ts";
import type { BodyRead, FolderBody, FolderMigration, ReaderOptions } from "./folder-body.ts";
import { ListedFiles } from "./listed-files.ts";
import { readRegistry, registryFile } from "./registry-file.ts";
import type { Registry } from "../registry.ts";

/** A plain folder, read by its tool's format. */
export interface Folder<T> {
  readonly format: Format["name"];
  readonly migrations: readonly FolderMigration<T>[];
  /** run again whenever their bytes change, in this order */
  readonly repeatable: readonly FolderBody<T>[];
  /** of `.migration-registry.yaml` */
  readonly registry: Registry | undefined;
  /** what a person should hear of */
  readonly warnings: readonly string[];
}

/** How a folder is read. */
export interface FolderOptions<T> extends Pick<ReaderOptions<T>, "withDown" | "learn"> {
  readonly format: ChooseFormat;
}

/**
 * Every migration of a plain folder, as its format orders them, with what a person should hear of the rest.
 *
 * Lists all pages, then reads each file in exactly the listed state, many at a time.
 *
 * @throws RunnerError `TRUNCATED` — a body of another length than listed; `SOURCE_CHANGED` — a file that went away meanwhile
 * @throws RunnerError `TOO_LARGE` — a file above the ceiling of one body
 * @throws RunnerError what the format says of names and contents: `UNKNOWN_FILE`, `DUPLICATE_VERSION`, `NO_UP`, `NAME`, `FORMAT`, `FOLDER_SUM`…
 */
export async function readFolder<T>(
  source: Source,
  options: FolderOptions<T>,
  signal: AbortSignal,
): Promise<Folder<T>> {
  const folders: string[] = [];
  const files = new ListedFiles(source, await source.list("", signal, (name) => folders.push(name)));
  const format = await options.format({ names: files.names, read: (name) => files.read(name, signal) });
  if (format.isDeep === true) assertFlat(format, folders);
  const named = format.read(files.names);
  const companions = await readCompanions(named, files, signal);
  const layout = await settle(format, named, files, companions, signal);
  const { withDown } = options;
  const learn = (body: BodyRead) => options.learn(body);
  const reader = new BodyReader<T>(files, { format, companions, withDown, learn });
  const migrations = await mapConcurrently(
    layout.migrations,
    sourceLimits.concurrency,
    signal,
    (names, stop) => reader.migration(names, stop),
  );
  const repeatable = await mapConcurrently(
    layout.repeatable,
    sourceLimits.concurrency,
    signal,
    ({ path }, stop) => reader.up(path, undefined, stop),
  );
  const registry = files.hasRegistry
    ? await readRegistry(
        await files.read(registryFile, signal),
        layout.migrations.map(({ version }) => version),
      )
    : undefined;
  const { ignored } = layout;
  const left =
    ignored.length === 0
      ? []
      : [`not migrations, so left alone: ${ignored.map(({ name }) => `"${name}"`).join(", ")}`];
  return {
    format: format.name,
    migrations,
    repeatable,
    registry,
    warnings: [...layout.warnings, ...reader.warnings(), ...left],
  };
}

/** What the tool would run and we would not must not be passed over in silence. */
function assertFlat({ name }: Format, [first, ...others]: readonly string[]): void {
  if (first === undefined) return;
  const more = others.length === 0 ? "" : ` and ${others.length} more`;
  throw new RunnerError("FORMAT", `"${first}"${more} is a folder, and ${name} would read what is in it`, {
    hint: "put all migrations into one folder, or move the folder away",
    fields: { folder: first },
  });
}

async function readCompanions(
  { companions }: FolderLayout,
  files: ListedFiles,
  signal: AbortSignal,
): Promise<Companions> {
  const read = await mapConcurrently(
    companions,
    sourceLimits.concurrency,
    signal,
    async (name, stop) => [name, await files.read(name, stop)] as const,
  );
  return new Map(read);
}

/** Reads every file at once only for a format that asks for them. */
async function settle(
  format: Format,
  layout: FolderLayout,
  files: ListedFiles,
  companions: Companions,
  signal: AbortSignal,
): Promise<FolderLayout> {
  if (format.settle === undefined) return layout;
  const { migrations, repeatable } = layout;
  const names = [
    ...migrations.flatMap(({ up, down, checkpoint }) => [up, down, checkpoint]),
    ...repeatable.map(({ path }) => path),
  ].filter((name) => name !== undefined);
  const read = await mapConcurrently(
    [...new Set(names)],
    sourceLimits.concurrency,
    signal,
    async (name, stop): Promise<FormatFile> => ({ name, bytes: await files.readToKeep(name, stop) }),
  );
  return format.settle(layout, read, companions);
}
