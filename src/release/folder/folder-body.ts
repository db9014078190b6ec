import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type {
  BodyPart,
  Companions,
  Format,
  MigrationNames,
  ParsedFile,
} from "../../migration/format/format.ts";
import type { Direction, TxMode } from "../../migration/migration.ts";
import { releaseLimits } from "../limits.ts";
import type { ListedFiles } from "./listed-files.ts";

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

/** What is done with each body. */
export interface ReaderOptions<T> {
  readonly format: Format;
  readonly companions: Companions;
  /** false leaves the ways down unread, as if there were none */
  readonly withDown: boolean;
  /** asked once a body, many at a time; says whether the bytes are needed later on */
  learn(body: BodyRead): Promise<{ readonly keep: boolean; readonly learned: T }>;
}

/** Takes files apart, and keeps what is wanted of them. */
export class BodyReader<T> {
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
