import { decodeBody } from "../decode.ts";
import type { TxMode } from "../migration.ts";
import { isBlank } from "../sql-body.ts";
import { compareVersions, isVersion } from "../version.ts";
import { replaceDelimiters } from "./atlas-delimiter.ts";
import { allDirectives, atlasDirective, fileDirectives } from "./atlas-directive.ts";
import type { AtlasDirective } from "./atlas-directive.ts";
import { atlasSumFile, verifyAtlasSum } from "./atlas-sum.ts";
import { readArchive } from "./atlas-txtar.ts";
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
  Companions,
  FolderLayout,
  Format,
  FormatFile,
  IgnoredFile,
  MigrationNames,
  ParsedFile,
} from "./format.ts";
import { formatError } from "./format-error.ts";

/**
 * Atlas's layout: `VERSION_title.sql`, in byte order of the names, bound by `atlas.sum`.
 *
 * Every `.sql` file is a migration there. File directives (`atlas:txmode`, `atlas:delimiter`, `atlas:checkpoint`,
 * `atlas:txtar` with its checks) do what they do in Atlas; statements are told apart by PostgreSQL's own rules.
 */
export const atlas: Format = { name: "atlas", read: readFolder, settle, parse: parseFile };

/** Sent for a file without a word in it: Atlas runs one, and editing it would change `atlas.sum`. */
const NOTHING = Buffer.from("-- an empty file\n");

function readFolder(names: readonly string[]): FolderLayout {
  const migrations: MigrationNames[] = [];
  const companions: string[] = [];
  const ignored: IgnoredFile[] = [];
  const problems: FolderProblem[] = [];
  for (const name of names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))) {
    const reading = readName(name);
    if (name === atlasSumFile) companions.push(name);
    else if ("problem" in reading) problems.push(reading.problem);
    else if ("ignored" in reading) ignored.push({ name, reason: reading.ignored });
    else {
      problems.push(...misordered(migrations.at(-1), reading));
      migrations.push(reading);
    }
  }
  if (migrations.length === 0 && problems.length === 0)
    problems.push(noMigrations(ignored, "<version>_<title>.sql"));
  if (problems.length > 0) throw folderError(problems);
  return { migrations, repeatable: [], companions, ignored, warnings: [] };
}

/** sql/migrate/dir.go: every name that ends in `.sql`; the version is what stands before the first underscore, any text. */
function readName(
  name: string,
): MigrationNames | { readonly problem: FolderProblem } | { readonly ignored: string } {
  if (!name.endsWith(".sql")) return readOtherName(name);
  const [, version = "", title = ""] = /^([^_]*)(?:_(.*))?\.sql$/s.exec(name) ?? [];
  if (!isVersion(version)) {
    const what = `would be run by Atlas as version ${quote(version)}, which is no number`;
    return {
      problem: unknownFile(
        name,
        what,
        "name it <version>_<title>.sql with digits for the version, or move it away",
      ),
    };
  }
  return isLabel(name) ? { version, title, up: name } : { problem: notALabel(name) };
}

function readOtherName(name: string): { readonly problem: FolderProblem } | { readonly ignored: string } {
  if (name.startsWith(".")) return { ignored: "hidden file" };
  if (!/^[0-9].*\.(?:sql|psql|pgsql|ddl)$/i.test(name)) return { ignored: "Atlas overlooks it too" };
  return {
    problem: unknownFile(
      name,
      "looks like a migration, but Atlas would overlook it",
      "let its name end in .sql, or move it away",
    ),
  };
}

/** Atlas compares versions as texts; where numbers would come in another order, there is no telling what was meant. */
function misordered(before: MigrationNames | undefined, next: MigrationNames): readonly FolderProblem[] {
  if (before === undefined) return [];
  const order = compareVersions(before.version, next.version);
  if (order < 0) return [];
  if (order === 0) {
    const isPair = /\.(?:up|down)\.sql$/.test(next.up);
    const hint = "these files are laid out for golang-migrate: say so with --format golang-migrate";
    return [{ ...duplicateVersion(before.up, next.up), ...(isPair && { hint }) }];
  }
  return [
    {
      code: "NAME",
      message: `Atlas runs ${quote(before.up)} before ${quote(next.up)}, by the letters of their versions; by number it is after it`,
      hint: "write all versions with the same number of digits",
      fields: { migration: next.up, other: before.up },
    },
  ];
}

/** A checkpoint stands for the migration before it; where none is, it is the first migration itself. */
function settle(layout: FolderLayout, files: readonly FormatFile[], companions: Companions): FolderLayout {
  verifyAtlasSum(files, companions.get(atlasSumFile)?.toString("utf8"));
  const isCheckpoint = new Set(
    files.filter(({ bytes }) => hasDirective(bytes, "checkpoint")).map(({ name }) => name),
  );
  if (isCheckpoint.size === 0) return layout;
  const migrations: MigrationNames[] = [];
  const superseded: IgnoredFile[] = [];
  for (const migration of layout.migrations) {
    const before = migrations.at(-1);
    if (before === undefined || !isCheckpoint.has(migration.up)) {
      migrations.push(migration);
      continue;
    }
    if (before.checkpoint !== undefined)
      superseded.push({ name: before.checkpoint, reason: `${quote(migration.up)} takes its place` });
    migrations[migrations.length - 1] = { ...before, checkpoint: migration.up };
  }
  return { ...layout, migrations, ignored: [...layout.ignored, ...superseded] };
}

function hasDirective(bytes: Buffer, name: string): boolean {
  return (
    bytes.includes(`atlas:${name}`) &&
    fileDirectives(bytes.toString("utf8")).some((directive) => directive.name === name)
  );
}

function parseFile({ name, bytes }: FormatFile): ParsedFile {
  const seen = bytes.toString("utf8");
  if (isBlank(seen))
    return { up: { bytes: NOTHING }, warnings: [`${quote(name)} is empty and does nothing`] };
  if (!/atlas:|delimiter /i.test(seen)) return { up: { bytes }, warnings: [] };
  const text = decodeBody(bytes, name);
  const directives = fileDirectives(text);
  const asked = txModeOf(directives, name);
  const tx = asked && { tx: asked };
  const warnings = [...warnOfUnknown(directives, name), ...warnOfOverlooked(text, directives, name)];
  if (directives.some((directive) => directive.name === "txtar")) {
    const { up, down } = readArchive(text, name);
    return {
      up: { bytes: Buffer.from(up), ...tx },
      ...(down !== undefined && { down: { bytes: Buffer.from(down), ...tx } }),
      warnings,
    };
  }
  const replaced = replaceDelimiters(text, name);
  const body = replaced.text === text ? bytes : Buffer.from(replaced.text);
  return { up: { bytes: body, ...tx }, warnings: [...warnings, ...replaced.warnings] };
}

function txModeOf(directives: readonly AtlasDirective[], file: string): TxMode | undefined {
  const [mode, second] = directives.filter(({ name }) => name === "txmode");
  if (second !== undefined)
    throw formatError(file, second.line, "atlas:txmode is given twice", "keep one of them");
  if (mode === undefined) return undefined;
  switch (mode.argument) {
    case "none":
      return "none";
    case "file":
      return "one";
    default:
      throw formatError(
        file,
        mode.line,
        `${quote(mode.argument)} is no atlas:txmode of a file`,
        "write none or file; for all migrations in one transaction there is tx=all of the run",
      );
  }
}

/** Directives of a file that are understood; `nolint` changes nothing about how it runs. */
const KNOWN: ReadonlySet<string> = new Set([
  "txmode",
  "delimiter",
  "checkpoint",
  "txtar",
  "sum",
  "nolint",
  "assert",
]);
/** What would run something else than what was meant, were it passed over as Atlas does. */
const SERIOUS: ReadonlySet<string> = new Set(["delimiter", "checkpoint", "txtar", "import"]);

function warnOfUnknown(directives: readonly AtlasDirective[], file: string): readonly string[] {
  return directives.flatMap(({ name, line }) => {
    if (name === "import")
      throw formatError(
        file,
        line,
        "atlas:import brings in another file, which is not done here",
        "write its SQL here",
      );
    return KNOWN.has(name)
      ? []
      : [`${quote(file)}:${line}: unknown directive atlas:${name}, which Atlas passes over`];
  });
}

/** Directives that stand where Atlas does not look for them. */
function warnOfOverlooked(
  text: string,
  directives: readonly AtlasDirective[],
  file: string,
): readonly string[] {
  const lines = new Set(directives.map(({ line }) => line));
  const first = atlasDirective(text);
  return allDirectives(text).flatMap(({ name, line, prefix }) => {
    const isSeen =
      name === "delimiter" || name === "sum" ? line === 1 && first !== undefined : lines.has(line);
    const isDirective =
      /^(?:--|#)[ \t]*$/.test(prefix) && (SERIOUS.has(name) || name === "txmode" || name === "sum");
    if (isSeen || !isDirective) return [];
    const place =
      name === "delimiter" || name === "sum"
        ? "it has to be the first line of the file"
        : "it has to stand in the comment lines at the very beginning, with an empty line after them and lines that end in LF";
    if (SERIOUS.has(name)) throw formatError(file, line, `Atlas would overlook this atlas:${name}`, place);
    return [`${quote(file)}:${line}: Atlas overlooks this atlas:${name}, and so is it here: ${place}`];
  });
}
