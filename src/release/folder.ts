import { RunnerError } from "../error.ts";
import { sha256Hex } from "../migration/checksum.ts";
import type { ChooseFormat } from "../migration/format/choose-format.ts";
import type {
  BodyPart,
  Companions,
  FolderLayout,
  Format,
  FormatFile,
  MigrationNames,
  ParsedFile,
} from "../migration/format/format.ts";
import type { Direction, TxMode } from "../migration/migration.ts";
import { sourceLimits } from "../source/source.ts";
import type { Listed, Source } from "../source/source.ts";
import { mapConcurrently } from "./concurrent.ts";
import { releaseLimits } from "./limits.ts";
import { assertRegistryName, readRegistry, registryFile } from "./registry-file.ts";
import type { Registry } from "./registry.ts";

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

/** One migration as a folder holds it, its files read and checked against the listing. */
export interface FolderMigration<T> {
  readonly version: string;
  /** label and checksum of the up body */
  readonly path: string;
  readonly sha256: string;
  readonly up: FolderBody<T>;
  readonly down?: FolderBody<T>;
  readonly checkpoint?: FolderBody<T>;
}

/** One body: a file, or the part of it that is sent. */
export interface FolderBody<T> {
  /** label of its file */
  readonly path: string;
  readonly sha256: string;
  /** bytes */
  readonly size: number;
  /** as in `Body` */
  readonly crc32?: number;
  /** what the reader learned from the bytes while they were there */
  readonly learned: T;
  /**
   * The bytes, once more from the folder where they were not kept.
   *
   * @throws RunnerError `SOURCE_CHANGED` — the folder does not hold them any more in the state that was listed
   */
  read(signal: AbortSignal): Promise<Buffer>;
}

/** A body at the one moment when its bytes are there for sure. */
export interface BodyRead {
  /** undefined: it is repeatable, and has none */
  readonly version: string | undefined;
  readonly direction: Direction;
  readonly path: string;
  readonly sha256: string;
  readonly bytes: Buffer;
  readonly tx?: TxMode;
  readonly code?: true;
}

/** How a folder is read. */
export interface FolderOptions<T> {
  readonly format: ChooseFormat;
  /** false leaves the ways down unread, as if there were none */
  readonly withDown: boolean;
  /** asked once a body, many at a time; says whether the bytes are needed later on */
  learn(body: BodyRead): Promise<{ readonly keep: boolean; readonly learned: T }>;
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

/** The files of one listing, each read in exactly the listed state. */
class ListedFiles {
  /** of their source */
  readonly url: string;
  /** without the registry's, which no format knows */
  readonly names: readonly string[];
  readonly hasRegistry: boolean;
  readonly #source: Source;
  readonly #listed: ReadonlyMap<string, Listed>;
  readonly #kept = new Map<string, Buffer>();

  constructor(source: Source, listed: readonly Listed[]) {
    this.#source = source;
    this.url = source.url;
    this.#listed = new Map(listed.map((object) => [object.key, object]));
    this.names = [...this.#listed.keys()].filter((name) => name !== registryFile);
    this.hasRegistry = this.#listed.has(registryFile);
    assertRegistryName(this.names);
  }

  async read(name: string, signal: AbortSignal): Promise<Buffer> {
    const kept = this.#kept.get(name);
    if (kept !== undefined) return kept;
    const row = this.#listed.get(name);
    if (row === undefined) throw new RunnerError("INTERNAL", `"${name}" was not listed`);
    return readListed(this.#source, row, signal);
  }

  /** As `read`, and at once from then on: for what all the files are needed together. */
  async readToKeep(name: string, signal: AbortSignal): Promise<Buffer> {
    const bytes = await this.read(name, signal);
    this.#kept.set(name, bytes);
    return bytes;
  }
}

interface ReaderOptions<T> extends Pick<FolderOptions<T>, "withDown" | "learn"> {
  readonly format: Format;
  readonly companions: Companions;
}

/** Takes files apart, and keeps what is wanted of them. */
class BodyReader<T> {
  readonly #files: ListedFiles;
  readonly #options: ReaderOptions<T>;
  readonly #warnings = new Map<string, readonly string[]>();
  #keptBytes = 0;

  constructor(files: ListedFiles, options: ReaderOptions<T>) {
    this.#files = files;
    this.#options = options;
  }

  async migration(names: MigrationNames, signal: AbortSignal): Promise<FolderMigration<T>> {
    const { version } = names;
    const file = await this.#parse(names.up, signal);
    const up = await this.#body(names.up, version, "up", file, signal);
    const down = this.#options.withDown ? await this.#down(names, file, signal) : undefined;
    const checkpoint =
      names.checkpoint === undefined ? undefined : await this.up(names.checkpoint, version, signal);
    return {
      version,
      path: up.path,
      sha256: up.sha256,
      up,
      ...(down && { down }),
      ...(checkpoint && { checkpoint }),
    };
  }

  async up(path: string, version: string | undefined, signal: AbortSignal): Promise<FolderBody<T>> {
    return this.#body(path, version, "up", await this.#parse(path, signal), signal);
  }

  /** What the format had to say of the files, in their order. */
  warnings(): readonly string[] {
    return [...this.#warnings].toSorted(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, said]) => said);
  }

  async #down(
    { down, up, version }: MigrationNames,
    upFile: ParsedFile,
    signal: AbortSignal,
  ): Promise<FolderBody<T> | undefined> {
    if (down !== undefined) return this.#body(down, version, "down", await this.#parse(down, signal), signal);
    return upFile.down === undefined ? undefined : this.#body(up, version, "down", upFile, signal);
  }

  async #parse(name: string, signal: AbortSignal): Promise<ParsedFile> {
    const { format, companions } = this.#options;
    const parsed = await format.parse({ name, bytes: await this.#files.read(name, signal) }, companions);
    if (parsed.warnings.length > 0) this.#warnings.set(name, parsed.warnings);
    return parsed;
  }

  async #body(
    path: string,
    version: string | undefined,
    direction: Direction,
    file: ParsedFile,
    signal: AbortSignal,
  ): Promise<FolderBody<T>> {
    signal.throwIfAborted();
    const { bytes, crc32, ...asked } = await this.#part(file, path, direction);
    const sha256 = sha256Hex(bytes);
    const { keep, learned } = await this.#options.learn({
      version,
      direction,
      path,
      sha256,
      bytes,
      ...asked,
    });
    const kept = keep && this.#keptBytes + bytes.length <= releaseLimits.runBytes ? bytes : undefined;
    this.#keptBytes += kept?.length ?? 0;
    return {
      path,
      sha256,
      size: bytes.length,
      ...(crc32 !== undefined && { crc32 }),
      learned,
      read: async (stop) => kept ?? this.#again(path, direction, sha256, stop),
    };
  }

  /** What is sent, or called: a program is its bundle. */
  async #part(file: ParsedFile, path: string, direction: Direction): Promise<BodyPart> {
    const part = partOf(file, path, direction);
    if (part.code === undefined) return part;
    const { bundleCode } = await import("./bundle-code.ts");
    return { ...part, bytes: await bundleCode({ path, bytes: part.bytes, sourceUrl: this.#files.url }) };
  }

  async #again(path: string, direction: Direction, sha256: string, signal: AbortSignal): Promise<Buffer> {
    const { bytes } = await this.#part(await this.#parse(path, signal), path, direction);
    if (sha256Hex(bytes) === sha256) return bytes;
    throw new RunnerError("SOURCE_CHANGED", `"${path}" changed while the folder was read`, {
      fields: { migration: path },
    });
  }
}

function partOf(file: ParsedFile, path: string, direction: Direction): BodyPart {
  const part = file[direction];
  if (part !== undefined) return part;
  throw new RunnerError("INTERNAL", `"${path}" has no ${direction} body`);
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

async function readListed(source: Source, row: Listed, signal: AbortSignal): Promise<Buffer> {
  if (row.size > releaseLimits.blobBytes) {
    throw new RunnerError(
      "TOO_LARGE",
      `"${row.key}" has ${row.size} bytes, more than ${releaseLimits.blobBytes}`,
      {
        hint: "split it, or load data by another way than migrations",
        fields: { migration: row.key, size: row.size, limit: releaseLimits.blobBytes },
      },
    );
  }
  const object = await source.read(
    row.key,
    { maxBytes: releaseLimits.blobBytes, version: row.version },
    signal,
  );
  if (object === undefined) {
    throw new RunnerError("SOURCE_CHANGED", `"${row.key}" went away while the folder was read`, {
      fields: { migration: row.key },
    });
  }
  if (object.bytes.length !== row.size) {
    throw new RunnerError("TRUNCATED", `"${row.key}" came with ${object.bytes.length} of ${row.size} bytes`, {
      hint: "run again",
      fields: { migration: row.key, expected: row.size, actual: object.bytes.length },
    });
  }
  return object.bytes;
}
