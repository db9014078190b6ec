import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import * as v from "valibot";
import { RunnerError } from "../../../src/error.ts";
import type { Companions, Format, FormatSettings, ParsedFile } from "../../../src/migration/format/format.ts";

const vectorsFolder = path.join(import.meta.dirname, "../../vectors/format");
const texts = v.record(v.string(), v.string());

/** A folder that a format takes, and what it makes of it. */
export const goodFolder = v.strictObject({
  names: v.array(v.string()),
  migrations: v.array(
    v.strictObject({
      version: v.string(),
      title: v.string(),
      up: v.string(),
      down: v.exactOptional(v.string()),
      checkpoint: v.exactOptional(v.string()),
    }),
  ),
  repeatable: v.optional(v.array(v.strictObject({ title: v.string(), path: v.string() })), []),
  companions: v.optional(v.array(v.string()), []),
  ignored: v.optional(v.array(v.string()), []),
  warnings: v.optional(v.array(v.string()), []),
});

/** A folder that it refuses. */
export const failFolder = v.strictObject({
  names: v.array(v.string()),
  code: v.string(),
  mentions: v.array(v.string()),
});

/** A file, and the bodies in it or why there are none. */
export const bodyVector = v.strictObject({
  file: v.string(),
  text: v.string(),
  placeholders: v.optional(texts, {}),
  companions: v.optional(texts, {}),
  up: v.exactOptional(v.string()),
  down: v.exactOptional(v.string()),
  tx: v.exactOptional(v.picklist(["one", "none"])),
  warnings: v.optional(v.array(v.string()), []),
  code: v.exactOptional(v.string()),
  mentions: v.optional(v.array(v.string()), []),
});

/** Names of a format's vectors that begin like this. */
export function vectorNames(format: string, prefix: string): readonly string[] {
  return readdirSync(path.join(vectorsFolder, format))
    .filter((name) => name.startsWith(prefix))
    .toSorted();
}

/** One vector, checked. */
export function readVector<Schema extends v.GenericSchema>(
  schema: Schema,
  format: string,
  name: string,
): v.InferOutput<Schema> {
  return v.parse(schema, JSON.parse(readFileSync(path.join(vectorsFolder, format, name), "utf8")));
}

/** Texts as a layout's companions. */
export function companionsOf(files: Readonly<Record<string, string>>): Companions {
  return new Map(Object.entries(files).map(([name, text]) => [name, Buffer.from(text)]));
}

/** Settings of a folder for PostgreSQL. */
export function settingsWith(placeholders: Readonly<Record<string, string>> = {}): FormatSettings {
  return { engine: "postgres", variables: {}, placeholders };
}

/** Takes a vector's file apart. */
export async function parseVector(
  format: Format,
  { file, text, companions }: v.InferOutput<typeof bodyVector>,
): Promise<ParsedFile> {
  return format.parse({ name: file, bytes: Buffer.from(text) }, companionsOf(companions));
}

/** What the call is refused with. */
export async function refusalOf(call: () => unknown): Promise<RunnerError> {
  try {
    await call();
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}
