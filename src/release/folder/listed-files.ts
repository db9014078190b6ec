import { RunnerError } from "../../error.ts";
import type { Listed, Source } from "../../source/source.ts";
import { releaseLimits } from "../limits.ts";
import { assertRegistryName, registryFile } from "./registry-file.ts";

/** The files of one listing, each read in exactly the listed state. */
export class ListedFiles {
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
