import { RunnerError } from "../../error.ts";
import { formatNames, type Format, type FormatName, type FormatSettings } from "./format.ts";

/** Says by which format a folder is read. */
export type ChooseFormat = (folder: FolderPeek) => Promise<Format>;

/** A folder before it is known whose it is. */
export interface FolderPeek {
  readonly names: readonly string[];
  read(name: string): Promise<Buffer>;
}

/** The named format, whatever the folder looks like. */
export function namedFormat(name: FormatName, settings: FormatSettings): ChooseFormat {
  return () => openFormat(name, settings);
}

/** What a folder's own text may refer to, where nothing is given. */
type Given = Pick<FormatSettings, "engine"> & Partial<FormatSettings>;

/** The format whose tool the folder's files look like they were written for. */
export function detectedFormat({ engine, variables, placeholders = {} }: Given): ChooseFormat {
  return async (folder) => openFormat(await detectFormat(folder), { engine, variables, placeholders });
}

/** Whether a text names a format. */
export function isFormatName(text: string): text is FormatName {
  return formatNames.some((name) => name === text);
}

/**
 * Decides by names, and only between goose and dbmate, which name their files alike, by what is in one of them.
 *
 * @throws RunnerError `FORMAT` - the files look like those of two tools
 */
export async function detectFormat({ names, read }: FolderPeek): Promise<FormatName> {
  const found = namedLike.filter(({ isLike }) => names.some(isLike)).map(({ format }) => format);
  if (found.length > 1) throw ambiguous(found);
  const [only] = found;
  if (only !== undefined) return only;
  const annotated = names.find((name) => /^[0-9]+[^.]*\.sql$/.test(name));
  // A folder of nothing that is known is read by the format whose errors say the most.
  if (annotated === undefined) return "golang-migrate";
  const text = (await read(annotated)).toString("utf8");
  const said = annotatedLike.filter(({ mark }) => mark.test(text)).map(({ format }) => format);
  if (said.length > 1) throw ambiguous(said);
  return said[0] ?? "golang-migrate";
}

const namedLike: readonly { readonly format: FormatName; isLike(name: string): boolean }[] = [
  { format: "atlas", isLike: (name) => name === "atlas.sum" },
  { format: "flyway", isLike: (name) => /^([VUB][0-9][^.]*|V[0-9][0-9._]*|R)__.*\.sql$/i.test(name) },
  { format: "golang-migrate", isLike: (name) => /^[0-9]+_.*\.(up|down)\.(sql|json|m?[tj]s)$/.test(name) },
];

const annotatedLike: readonly { readonly format: FormatName; readonly mark: RegExp }[] = [
  { format: "goose", mark: /^\ufeff?--[ \t]*\+goose\b/m },
  { format: "dbmate", mark: /^\ufeff?--[ \t]*migrate:(up|down)\b/m },
];

function ambiguous(found: readonly FormatName[]): RunnerError {
  return new RunnerError("FORMAT", `the folder looks like one of ${found.join(" and one of ")}`, {
    hint: "name the one that it is with --format, and move the other's files away",
    fields: { formats: found.join(",") },
  });
}

async function openFormat(name: FormatName, settings: FormatSettings): Promise<Format> {
  if (settings.engine === "mongodb" && name !== "golang-migrate") {
    throw new RunnerError("WRONG_ENGINE", `the format "${name}" is for SQL, and the database is MongoDB`, {
      hint: "lay migrations for MongoDB out as golang-migrate does",
      fields: { engine: settings.engine, format: name },
    });
  }
  switch (name) {
    case "golang-migrate":
      return (await import("./golang-migrate.ts")).golangMigrate(settings);
    case "flyway":
      return (await import("./flyway.ts")).flyway(settings);
    case "goose":
      return (await import("./goose.ts")).goose(settings);
    case "dbmate":
      return (await import("./dbmate.ts")).dbmate;
    case "atlas":
      return (await import("./atlas.ts")).atlas;
  }
}
