import { decodeBody } from "../decode.ts";
import { isBlank } from "../sql-body.ts";
import { compareVersions, versionKey } from "../version.ts";
import { flywayChecksum } from "./flyway-checksum.ts";
import { defaultScriptConfig, readScriptConfig } from "./flyway-script-config.ts";
import { readFlywayName } from "./flyway-name.ts";
import type { FlywayName, VersionedName } from "./flyway-name.ts";
import { replacePlaceholders } from "./flyway-placeholders.ts";
import { duplicateVersion, folderError, noMigrations, quote, unknownFile } from "./folder-problem.ts";
import type { FolderProblem } from "./folder-problem.ts";
import type {
  BodyPart,
  Companions,
  FolderLayout,
  Format,
  FormatFile,
  FormatSettings,
  IgnoredFile,
  MigrationNames,
  ParsedFile,
  RepeatableName,
} from "./format.ts";

/**
 * Flyway's layout for SQL: `V1.2__title.sql`, its undo script `U1.2__title.sql`, `R__title.sql` whenever it changes, and
 * `B1.2__title.sql`, which brings an empty database to version 1.2 in place of all before it.
 *
 * Read with Flyway's own prefixes, separator and suffix. Each script is one body, with its placeholders replaced and with
 * the settings of the `.conf` file beside it. Callbacks and migrations in Java are refused.
 */
export function flyway(settings: FormatSettings): Format {
  return {
    name: "flyway",
    isDeep: true,
    read: readFolder,
    parse: (file, companions) => parseFile(file, companions, settings.placeholders),
  };
}

/** Sent for a script without a word in it: Flyway runs one, and editing it would change its checksum there. */
const NOTHING = Buffer.from("-- an empty script\n");

function readFolder(names: readonly string[]): FolderLayout {
  const read = names.toSorted().map(readFlywayName);
  const problems = read.flatMap((name) => (name.kind === "problem" ? [name.problem] : []));
  const ignored = read.flatMap((name) =>
    name.kind === "ignored" ? [{ name: name.name, reason: name.reason }] : [],
  );
  const { migrations, superseded } = readMigrations(read, problems);
  const repeatable = readRepeatable(read, problems);
  const companions = readConfigs(read, problems);
  if (migrations.length + repeatable.length === 0 && problems.length === 0)
    problems.push(noMigrations(ignored, "V<version>__<description>.sql"));
  if (problems.length > 0) throw folderError(problems);
  return { migrations, repeatable, companions, ignored: [...ignored, ...superseded], warnings: [] };
}

/**
 * Each version's files in order. A baseline script stands for the highest V script at or below its version and all before
 * that; below every V script it is where the folder begins. Of several for the same place the highest counts, as in Flyway.
 */
function readMigrations(
  read: readonly FlywayName[],
  problems: FolderProblem[],
): { readonly migrations: readonly MigrationNames[]; readonly superseded: readonly IgnoredFile[] } {
  const ups = byVersion(read, "versioned", problems);
  const downs = new Map(byVersion(read, "undo", problems).map((down) => [versionKey(down.version), down]));
  const superseded: IgnoredFile[] = [];
  const checkpoints = new Map<VersionedName | undefined, VersionedName>();
  for (const baseline of byVersion(read, "baseline", problems)) {
    const place = ups.findLast(({ version }) => compareVersions(version, baseline.version) <= 0);
    const lower = checkpoints.get(place);
    if (lower !== undefined)
      superseded.push({ name: lower.name, reason: `${quote(baseline.name)} takes its place` });
    checkpoints.set(place, baseline);
  }
  const first = checkpoints.get(undefined);
  const migrations = [...(first === undefined ? [] : [first]), ...ups].map((up): MigrationNames => {
    const key = versionKey(up.version);
    const down = downs.get(key);
    downs.delete(key);
    const checkpoint = checkpoints.get(up);
    return {
      version: up.version,
      title: up.title,
      up: up.name,
      ...(down && { down: down.name }),
      ...(checkpoint && { checkpoint: checkpoint.name }),
    };
  });
  problems.push(...[...downs.values()].map(noUp));
  return { migrations, superseded };
}

/** The scripts of one kind, in order; a version written twice is a problem. */
function byVersion(
  read: readonly FlywayName[],
  kind: VersionedName["kind"],
  problems: FolderProblem[],
): readonly VersionedName[] {
  const found = new Map<string, VersionedName>();
  for (const name of read) {
    if (name.kind !== kind) continue;
    const key = versionKey(name.version);
    const other = found.get(key);
    if (other === undefined) found.set(key, name);
    else problems.push(duplicateVersion(other.name, name.name));
  }
  return [...found.values()].toSorted((a, b) => compareVersions(a.version, b.version));
}

/** By description, as Flyway orders them (ResolvedMigrationComparator.java). */
function readRepeatable(read: readonly FlywayName[], problems: FolderProblem[]): readonly RepeatableName[] {
  const found = new Map<string, RepeatableName>();
  for (const name of read) {
    if (name.kind !== "repeatable") continue;
    const other = found.get(name.title);
    if (other === undefined) found.set(name.title, { title: name.title, path: name.name });
    else
      problems.push({
        code: "DUPLICATE_VERSION",
        message: `${quote(other.path)} and ${quote(name.name)} have the same description`,
        hint: "give one of them another description",
        fields: { migration: name.name, other: other.path },
      });
  }
  return [...found.values()].toSorted((a, b) => (a.title < b.title ? -1 : 1));
}

function readConfigs(read: readonly FlywayName[], problems: FolderProblem[]): readonly string[] {
  const scripts = new Set(
    read.flatMap((name) =>
      name.kind === "config" || name.kind === "problem" || name.kind === "ignored" ? [] : [name.name],
    ),
  );
  return read.flatMap((name) => {
    if (name.kind !== "config") return [];
    if (scripts.has(name.script)) return [name.name];
    problems.push(
      unknownFile(
        name.name,
        `holds the settings of ${quote(name.script)}, and there is no such migration`,
        "rename it after its script, or move it away",
      ),
    );
    return [];
  });
}

function noUp({ name, version, title }: VersionedName): FolderProblem {
  return {
    code: "NO_UP",
    message: `${quote(name)} undoes a version that is not there`,
    hint: `add ${quote(`V${version}__${title.replaceAll(" ", "_")}.sql`)}, or remove the undo script`,
    fields: { migration: name },
  };
}

function parseFile(
  { name, bytes }: FormatFile,
  companions: Companions,
  placeholders: Readonly<Record<string, string>>,
): ParsedFile {
  const settings = companions.get(`${name}.conf`);
  const config = settings === undefined ? defaultScriptConfig : readScriptConfig(settings, `${name}.conf`);
  const values = config.replacesPlaceholders ? placeholders : undefined;
  const { text, warnings } = replaceIn(name, bytes, values);
  const isEmpty = text.length < MAX_BLANK && isBlank(text.toString("utf8"));
  const { kind } = readFlywayName(name);
  const body: BodyPart = {
    bytes: isEmpty ? NOTHING : text,
    ...(config.tx && { tx: config.tx }),
    // of what runs again when it changes, Flyway notes what was sent
    crc32: flywayChecksum(kind === "repeatable" ? text : bytes) >>> 0,
  };
  return {
    ...(kind === "undo" ? { down: body } : { up: body }),
    warnings: isEmpty ? [...warnings, `${quote(name)} is empty and does nothing`] : warnings,
  };
}

/** The very bytes where there is nothing to replace. */
function replaceIn(
  name: string,
  bytes: Buffer,
  placeholders: Readonly<Record<string, string>> | undefined,
): { readonly text: Buffer; readonly warnings: readonly string[] } {
  if (placeholders === undefined || !bytes.includes("${")) return { text: bytes, warnings: [] };
  const replaced = replacePlaceholders(decodeBody(bytes, name), name, placeholders);
  return { text: Buffer.from(replaced.text), warnings: replaced.warnings };
}

/** Bytes of the largest script that is looked at for having nothing in it. */
const MAX_BLANK = 4096;
