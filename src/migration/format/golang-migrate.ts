import type { Engine } from "../migration.ts";
import { compareVersions } from "../version.ts";
import {
  duplicateVersion,
  folderError,
  isLabel,
  noMigrations,
  notALabel,
  quote,
  unknownFile,
} from "./folder-problem.ts";
import type { FolderProblem } from "./folder-problem.ts";
import type {
  FolderLayout,
  Format,
  FormatFile,
  FormatSettings,
  IgnoredFile,
  MigrationNames,
  ParsedFile,
} from "./format.ts";

/**
 * golang-migrate's layout: `N_title.up.sql` and `N_title.down.sql`, for MongoDB `N_title.up.json` and `.down.json`.
 *
 * Its own rule is `^([0-9]+)_(.*)\.(down|up)\.(.*)$` over any extension (source/parse.go), and what does not match it
 * passes over in silence. Here the names that it would run by accident, and those that it would overlook, are errors;
 * but for programs, `N_title.up.ts`, which are ours.
 */
export function golangMigrate({ engine }: Pick<FormatSettings, "engine">): Format {
  return {
    name: "golang-migrate",
    read: (names) => readFolder(names, languages[engine]),
    parse: (file) => (engine === "mongodb" ? parseCommands(file) : parseFile(file)),
  };
}

/** How an engine's files are called. */
interface Language {
  readonly extension: string;
  readonly database: string;
  /** what golang-migrate would do with a program */
  readonly misreading: string;
  /** names that are a migration's, wherever they stand */
  readonly likeIts: RegExp;
}

const languages: Readonly<Record<Engine, Language>> = {
  postgres: {
    extension: "sql",
    database: "PostgreSQL",
    misreading: "send its text to the database",
    likeIts: /\.(sql|psql|pgsql|ddl)\b/i,
  },
  mongodb: {
    extension: "json",
    database: "MongoDB",
    misreading: "fail to read its text as commands",
    // A package.json is nothing to wonder about.
    likeIts: /^[0-9]+.*\.(json|bson)\b/i,
  },
};

/** What we take beside an engine's own files: programs. */
const codeExtensions: ReadonlySet<string> = new Set(["ts", "js", "mts", "mjs"]);

/** source/parse.go */
const NAME = /^([0-9]+)_(.*)\.(down|up)\.(.*)$/;
/** Versions are unsigned 64-bit integers there. */
const MAX_VERSION = "18446744073709551615";

/** A name that belongs to a migration. */
interface FileName {
  readonly name: string;
  readonly version: string;
  readonly title: string;
  readonly direction: "up" | "down";
}

type Reading =
  | { readonly file: FileName }
  | { readonly problem: FolderProblem }
  | { readonly ignored: string };

function readFolder(names: readonly string[], language: Language): FolderLayout {
  const files: FileName[] = [];
  const ignored: IgnoredFile[] = [];
  const problems: FolderProblem[] = [];
  for (const name of names.toSorted()) {
    const reading = readName(name, language);
    if ("file" in reading) files.push(reading.file);
    else if ("problem" in reading) problems.push(reading.problem);
    else ignored.push({ name, reason: reading.ignored });
  }
  const { migrations, warnings } = pairUp(files, problems, language);
  const programs = files.filter(({ name }) => !name.endsWith(`.${language.extension}`));
  const [program] = programs;
  if (program !== undefined) {
    const more = programs.length === 1 ? "" : ` (and ${programs.length - 1} more)`;
    warnings.push(`${quote(program.name)}${more} is a program: golang-migrate would ${language.misreading}`);
  }
  if (migrations.length === 0 && problems.length === 0)
    problems.push(noMigrations(ignored, `<version>_<title>.up.${language.extension}`));
  if (problems.length > 0) throw folderError(problems);
  return { migrations, repeatable: [], companions: [], ignored, warnings };
}

/** A file is one body, all of it. */
function parseFile({ name, bytes }: FormatFile): ParsedFile {
  const [, , , , extension = ""] = NAME.exec(name) ?? [];
  const body = { bytes, ...(codeExtensions.has(extension) ? { code: true as const } : {}) };
  return { ...(NAME.exec(name)?.[3] === "down" ? { down: body } : { up: body }), warnings: [] };
}

/** As {@link parseFile}, with a word where golang-migrate itself could not read it. What neither can read is told when it is analysed. */
async function parseCommands(file: FormatFile): Promise<ParsedFile> {
  const parsed = parseFile(file);
  if ((parsed.up ?? parsed.down)?.code === true) return parsed;
  const { commandWarnings } = await import("../mongo/warnings.ts");
  return { ...parsed, warnings: commandWarnings(file.bytes, file.name) };
}

function readName(name: string, language: Language): Reading {
  if (name.startsWith(".")) return { ignored: "hidden file" };
  const [, version, title, direction, extension] = NAME.exec(name) ?? [];
  if (version === undefined || title === undefined || (direction !== "up" && direction !== "down"))
    return readOtherName(name, language);
  const isCode = codeExtensions.has(extension ?? "");
  if (extension !== language.extension && !isCode)
    return { problem: wrongExtension(name, direction, extension ?? "", language) };
  if (compareVersions(version, MAX_VERSION) > 0) {
    return {
      problem: unknownFile(
        name,
        `version ${version} is above ${MAX_VERSION}, so golang-migrate overlooks it`,
        "choose a lower version",
      ),
    };
  }
  if (!isLabel(name)) return { problem: notALabel(name) };
  return { file: { name, version, title, direction } };
}

function wrongExtension(
  name: string,
  direction: string,
  extension: string,
  language: Language,
): FolderProblem {
  const other = Object.values(languages).find((candidate) => candidate.extension === extension);
  if (other !== undefined) {
    return unknownFile(
      name,
      `is a migration for ${other.database}, among those for ${language.database}`,
      "keep them in a folder of their own",
    );
  }
  const renamed = name.slice(0, name.length - extension.length);
  return unknownFile(
    name,
    `does not end in .${direction}.${language.extension}, yet golang-migrate would run it`,
    `move it away, or rename it to ${quote(`${renamed}${language.extension}`)}`,
  );
}

/** Names that golang-migrate passes over: an error where somebody will have meant a migration. */
function readOtherName(name: string, language: Language): Reading {
  const isLikeIts = language.likeIts.test(name);
  const hasDirection = /\.(up|down)(\.|$)/i.test(name);
  const isNumbered =
    /^v?[0-9]+[_-]/i.test(name) && !/\.(md|markdown|txt|rst|adoc|html|pdf|png|svg)$/i.test(name);
  if (!isLikeIts && !hasDirection && !isNumbered) return { ignored: "not named like a migration" };
  return {
    problem: unknownFile(
      name,
      "looks like a migration, but golang-migrate would overlook it",
      renameHint(name, language),
    ),
  };
}

function renameHint(name: string, { extension }: Language): string {
  const [, version, title = "", direction = "up"] =
    /^v?([0-9]+)[-_]*(.*?)(?:\.(up|down))?(?:\.[a-z]+)?$/i.exec(name) ?? [];
  const wanted =
    version === undefined
      ? undefined
      : `${version}_${title === "" ? "title" : title}.${direction.toLowerCase()}.${extension}`;
  return wanted !== undefined && isLabel(wanted)
    ? `rename it to ${quote(wanted)}, or move it away`
    : `rename it to <version>_<title>.up.${extension} or .down.${extension}, or move it away`;
}

/** One migration for each version, by number: `1_a.up.sql` and `001_a.down.sql` are one pair. */
function pairUp(
  files: readonly FileName[],
  problems: FolderProblem[],
  language: Language,
): { readonly migrations: readonly MigrationNames[]; readonly warnings: string[] } {
  const byVersion = new Map<string, { up?: FileName; down?: FileName }>();
  const warnings: string[] = [];
  for (const file of files) {
    const key = file.version.replace(/^0+(?=.)/, "");
    const pair = byVersion.get(key) ?? {};
    byVersion.set(key, pair);
    const other = pair[file.direction];
    if (other === undefined) pair[file.direction] = file;
    else problems.push(duplicateVersion(other.name, file.name));
    if (/\.(up|down)$/.test(file.title)) {
      warnings.push(
        `${quote(file.name)} is read as the ${file.direction} file of ${quote(file.title)}, as golang-migrate does`,
      );
    }
  }
  const migrations: MigrationNames[] = [];
  for (const { up, down } of byVersion.values()) {
    if (up === undefined) {
      if (down !== undefined) problems.push(noUp(down, language));
      continue;
    }
    if (down !== undefined && down.title !== up.title)
      warnings.push(`${quote(up.name)} and ${quote(down.name)} are one migration under two titles`);
    migrations.push({ version: up.version, title: up.title, up: up.name, ...(down && { down: down.name }) });
  }
  return { migrations: migrations.toSorted((a, b) => compareVersions(a.version, b.version)), warnings };
}

function noUp(down: FileName, { extension }: Language): FolderProblem {
  return {
    code: "NO_UP",
    message: `${quote(down.name)} has no up file`,
    hint: `add ${quote(`${down.version}_${down.title}.up.${extension}`)}, or remove the down file`,
    fields: { migration: down.name },
  };
}
