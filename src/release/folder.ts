import { RunnerError } from "../error.ts";
import { sha256Hex } from "../migration/checksum.ts";
import type { Format } from "../migration/format/format.ts";
import type { Direction } from "../migration/migration.ts";
import { sourceLimits } from "../source/source.ts";
import type { Listed, Source } from "../source/source.ts";
import { mapConcurrently } from "./concurrent.ts";
import { releaseLimits } from "./limits.ts";

/** One migration as a folder holds it, its files read and checked against the listing. */
export interface FolderMigration<T> {
  readonly version: string;
  /** label and checksum of the up file */
  readonly path: string;
  readonly sha256: string;
  readonly up: FolderFile<T>;
  readonly down?: FolderFile<T>;
}

/** One file, pinned to the state that was listed. */
export interface FolderFile<T> {
  readonly path: string;
  readonly sha256: string;
  /** bytes */
  readonly size: number;
  /** state of the object, to read these very bytes again */
  readonly pin: string;
  /** absent where the reader did not ask to keep them, or they do not fit beside the others; `readAgain` brings them */
  readonly bytes: Buffer | undefined;
  /** what the reader learned from the bytes while they were there */
  readonly learned: T;
}

/** A file at the one moment when its bytes are there for sure. */
export interface FileRead {
  readonly version: string;
  readonly direction: Direction;
  readonly path: string;
  readonly sha256: string;
  readonly bytes: Buffer;
}

/** How a folder is read. */
export interface FolderOptions<T> {
  readonly format: Format;
  /** false leaves the down files unread, as if there were none */
  readonly withDown: boolean;
  /** asked once a file, many at a time; says whether the bytes are needed later on */
  learn(file: FileRead): Promise<{ readonly keep: boolean; readonly learned: T }>;
}

/**
 * Every migration of a plain folder, as its format orders them, with what a person should hear of the rest.
 *
 * Lists all pages, then reads each file in exactly the listed state, many at a time.
 *
 * @throws RunnerError `TRUNCATED` — a body of another length than listed; `SOURCE_CHANGED` — a file that went away meanwhile
 * @throws RunnerError `TOO_LARGE` — a file above the ceiling of one body
 * @throws RunnerError what the format says of names: `UNKNOWN_FILE`, `DUPLICATE_VERSION`, `NO_UP`, `NAME`…
 */
export async function readFolder<T>(
  source: Source,
  options: FolderOptions<T>,
  signal: AbortSignal,
): Promise<{ readonly migrations: readonly FolderMigration<T>[]; readonly warnings: readonly string[] }> {
  const listed = new Map((await source.list("", signal)).map((object) => [object.key, object]));
  const { migrations, ignored, warnings } = options.format.read([...listed.keys()]);
  let keptBytes = 0;
  const readFile = async (
    path: string,
    version: string,
    direction: Direction,
    stop: AbortSignal,
  ): Promise<FolderFile<T>> => {
    const row = listed.get(path);
    if (row === undefined) throw new RunnerError("INTERNAL", `"${path}" was not listed`);
    const bytes = await readListed(source, row, stop);
    const sha256 = sha256Hex(bytes);
    const { keep, learned } = await options.learn({ version, direction, path, sha256, bytes });
    const isKept = keep && keptBytes + bytes.length <= releaseLimits.runBytes;
    if (isKept) keptBytes += bytes.length;
    return { path, sha256, size: bytes.length, pin: row.version, bytes: isKept ? bytes : undefined, learned };
  };
  const read = await mapConcurrently(migrations, sourceLimits.concurrency, signal, async (names, stop) => {
    const up = await readFile(names.up, names.version, "up", stop);
    const down =
      names.down !== undefined && options.withDown
        ? await readFile(names.down, names.version, "down", stop)
        : undefined;
    return { version: names.version, path: up.path, sha256: up.sha256, up, ...(down && { down }) };
  });
  const left =
    ignored.length === 0
      ? []
      : [`not migrations, so left alone: ${ignored.map(({ name }) => `"${name}"`).join(", ")}`];
  return { migrations: read, warnings: [...warnings, ...left] };
}

/**
 * The bytes of a file once more, if the folder still holds them in the state that was listed.
 *
 * @throws RunnerError `SOURCE_CHANGED` — it does not
 */
export async function readAgain(
  source: Source,
  file: FolderFile<unknown>,
  signal: AbortSignal,
): Promise<Buffer> {
  const bytes =
    file.bytes ?? (await readListed(source, { key: file.path, size: file.size, version: file.pin }, signal));
  if (sha256Hex(bytes) !== file.sha256) {
    throw new RunnerError("SOURCE_CHANGED", `"${file.path}" changed while the folder was read`, {
      fields: { migration: file.path },
    });
  }
  return bytes;
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
