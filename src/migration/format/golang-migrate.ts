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
import type { FolderLayout, Format, FormatFile, IgnoredFile, MigrationNames, ParsedFile } from "./format.ts";

/**
 * golang-migrate's layout for SQL: `N_title.up.sql` and `N_title.down.sql`.
 *
 * Its own rule is `^([0-9]+)_(.*)\.(down|up)\.(.*)$` over any extension (source/parse.go), and what does not match it
 * passes over in silence. Here the names that it would run by accident, and those that it would overlook, are errors.
 */
export const golangMigrate: Format = { name: "golang-migrate", read: readFolder, parse: parseFile };

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

function readFolder(names: readonly string[]): FolderLayout {
  const files: FileName[] = [];
  const ignored: IgnoredFile[] = [];
  const problems: FolderProblem[] = [];
  for (const name of names.toSorted()) {
    const reading = readName(name);
    if ("file" in reading) files.push(reading.file);
    else if ("problem" in reading) problems.push(reading.problem);
    else ignored.push({ name, reason: reading.ignored });
  }
  const { migrations, warnings } = pairUp(files, problems);
  if (migrations.length === 0 && problems.length === 0)
    problems.push(noMigrations(ignored, "<version>_<title>.up.sql"));
  if (problems.length > 0) throw folderError(problems);
  return { migrations, repeatable: [], companions: [], ignored, warnings };
}

/** A file is one body, all of it. */
function parseFile({ name, bytes }: FormatFile): ParsedFile {
  const body = { bytes };
  return { ...(NAME.exec(name)?.[3] === "down" ? { down: body } : { up: body }), warnings: [] };
}

function readName(name: string): Reading {
  if (name.startsWith(".")) return { ignored: "hidden file" };
  const [, version, title, direction, extension] = NAME.exec(name) ?? [];
  if (version === undefined || title === undefined || (direction !== "up" && direction !== "down"))
    return readOtherName(name);
  if (extension !== "sql") return { problem: wrongExtension(name, direction, extension ?? "") };
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

function wrongExtension(name: string, direction: string, extension: string): FolderProblem {
  if (extension === "json") {
    return unknownFile(
      name,
      "is a migration for MongoDB, among those for PostgreSQL",
      "keep them in a folder of their own",
    );
  }
  const renamed = name.slice(0, name.length - extension.length);
  return unknownFile(
    name,
    `does not end in .${direction}.sql, yet golang-migrate would run it`,
    `move it away, or rename it to ${quote(`${renamed}sql`)}`,
  );
}

/** Names that golang-migrate passes over: an error where somebody will have meant a migration. */
function readOtherName(name: string): Reading {
  const isSql = /\.(sql|psql|pgsql|ddl)\b/i.test(name);
  const hasDirection = /\.(up|down)(\.|$)/i.test(name);
  const isNumbered =
    /^v?[0-9]+[_-]/i.test(name) && !/\.(md|markdown|txt|rst|adoc|html|pdf|png|svg)$/i.test(name);
  if (!isSql && !hasDirection && !isNumbered) return { ignored: "not named like a migration" };
  return {
    problem: unknownFile(
      name,
      "looks like a migration, but golang-migrate would overlook it",
      renameHint(name),
    ),
  };
}

function renameHint(name: string): string {
  const [, version, title = "", direction = "up"] =
    /^v?([0-9]+)[-_]*(.*?)(?:\.(up|down))?(?:\.[a-z]+)?$/i.exec(name) ?? [];
  const wanted =
    version === undefined
      ? undefined
      : `${version}_${title === "" ? "title" : title}.${direction.toLowerCase()}.sql`;
  return wanted !== undefined && isLabel(wanted)
    ? `rename it to ${quote(wanted)}, or move it away`
    : "rename it to <version>_<title>.up.sql or .down.sql, or move it away";
}

/** One migration for each version, by number: `1_a.up.sql` and `001_a.down.sql` are one pair. */
function pairUp(
  files: readonly FileName[],
  problems: FolderProblem[],
): { readonly migrations: readonly MigrationNames[]; readonly warnings: readonly string[] } {
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
      if (down !== undefined) problems.push(noUp(down));
      continue;
    }
    if (down !== undefined && down.title !== up.title)
      warnings.push(`${quote(up.name)} and ${quote(down.name)} are one migration under two titles`);
    migrations.push({ version: up.version, title: up.title, up: up.name, ...(down && { down: down.name }) });
  }
  return { migrations: migrations.toSorted((a, b) => compareVersions(a.version, b.version)), warnings };
}

function noUp(down: FileName): FolderProblem {
  return {
    code: "NO_UP",
    message: `${quote(down.name)} has no up file`,
    hint: `add ${quote(`${down.version}_${down.title}.up.sql`)}, or remove the down file`,
    fields: { migration: down.name },
  };
}
