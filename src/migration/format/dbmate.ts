import { decodeBody } from "../decode.ts";
import { unwrapTransaction } from "../unwrap-sql.ts";
import { compareVersions, versionKey } from "../version.ts";
import { duplicateVersion, folderError, isLabel, noMigrations, notALabel, quote } from "./folder-problem.ts";
import type { FolderProblem } from "./folder-problem.ts";
import { formatError } from "./format-error.ts";
import type {
  BodyPart,
  FolderLayout,
  Format,
  FormatFile,
  IgnoredFile,
  MigrationNames,
  ParsedFile,
} from "./format.ts";
import { readOverlooked } from "./overlooked-name.ts";

/**
 * dbmate's layout: `N_title.sql` with an up and a down block in one file.
 *
 * dbmate runs files in the order of their names as text, and takes `1` and `01` for two versions; a folder where that
 * differs from the order of the numbers is refused.
 */
export const dbmate: Format = { name: "dbmate", read: readFolder, parse: parseFile };

/** pkg/dbmate/db.go */
const NAME = /^([0-9]+)(.*)\.sql$/;
const WANTED = "<version>_<title>.sql";

function readFolder(names: readonly string[]): FolderLayout {
  const byVersion = new Map<string, MigrationNames>();
  const ignored: IgnoredFile[] = [];
  const problems: FolderProblem[] = [];
  for (const name of names.toSorted()) {
    const [, version, rest] = NAME.exec(name) ?? [];
    if (version === undefined || rest === undefined) {
      const reading = readOverlooked(name, { tool: "dbmate", wanted: WANTED });
      if ("problem" in reading) problems.push(reading.problem);
      else ignored.push({ name, reason: reading.ignored });
      continue;
    }
    if (!isLabel(name)) problems.push(notALabel(name));
    const key = versionKey(version);
    const other = byVersion.get(key);
    if (other !== undefined) problems.push(duplicateVersion(other.up, name));
    else byVersion.set(key, { version, title: rest.replace(/^[_-]+/, ""), up: name });
  }
  const migrations = [...byVersion.values()].toSorted((a, b) => compareVersions(a.version, b.version));
  problems.push(...findOtherOrder(migrations));
  if (migrations.length === 0 && problems.length === 0) problems.push(noMigrations(ignored, WANTED));
  if (problems.length > 0) throw folderError(problems);
  return { migrations, repeatable: [], companions: [], ignored, warnings: [] };
}

/** Neighbours by number whose names stand the other way round. */
function findOtherOrder(migrations: readonly MigrationNames[]): readonly FolderProblem[] {
  return migrations.flatMap(({ up }, i): readonly FolderProblem[] => {
    const next = migrations[i + 1];
    if (next === undefined || up < next.up) return [];
    return [
      {
        code: "FORMAT",
        message: `dbmate runs ${quote(next.up)} before ${quote(up)}, by their names, and the numbers say the reverse`,
        hint: "give all versions as many digits as the longest has, in the names and in dbmate's schema_migrations",
        fields: { migration: next.up, other: up },
      },
    ];
  });
}

/** A comment line that begins a block, and the rest of the line (pkg/dbmate/migration.go, with Go's `\s` and `$`). */
const DIRECTIVE =
  /(?<![^\n])--[\t\n\f\r ]*migrate:(up|down)(?:[\t\n\f\r ]*(?![^\n])|[\t\n\f\r ]+[^\t\n\f\r ]+)/g;
const SPLIT_FILE = "put each up block into a migration of its own";

interface Directive {
  readonly direction: "up" | "down";
  /** UTF-16 index */
  readonly index: number;
  readonly line: number;
}

function parseFile({ name, bytes }: FormatFile): ParsedFile {
  const text = decodeBody(bytes, name);
  if (text.startsWith("\ufeff"))
    throw formatError(name, 1, "a byte order mark, which dbmate does not take", "save the file without it");
  const [up, down] = findBlocks(text, name);
  refuseBeforeUp(text.slice(0, up.index), name);
  const warnings: string[] = [];
  const toPart = ({ index, line }: Directive, end: number): BodyPart => {
    const block = text.slice(index, end);
    const options = readOptions(block);
    warnings.push(...options.unknown.map((option) => warnOfOption(name, line, option)));
    // a block that is not in a transaction of dbmate's may bring a BEGIN and COMMIT of its own
    const isOne = options.isInTransaction || unwrapTransaction(block) !== undefined;
    return { bytes: Buffer.from("\n".repeat(line - 1) + block), ...(!isOne && { tx: "none" }) };
  };
  return { up: toPart(up, down.index), down: toPart(down, text.length), warnings };
}

/** One up and one down: with more of them dbmate fails at the second, after it has recorded the first. */
function findBlocks(text: string, path: string): readonly [up: Directive, down: Directive] {
  let line = 1;
  let counted = 0;
  const found = [...text.matchAll(DIRECTIVE)].map(({ index, 1: direction }): Directive => {
    line += text.slice(counted, index).split("\n").length - 1;
    counted = index;
    return { direction: direction === "down" ? "down" : "up", index, line };
  });
  const [up, down, third] = found;
  if (up?.direction !== "up") {
    const what =
      up === undefined
        ? 'no "-- migrate:up" at the beginning of a line'
        : '"-- migrate:down" before "-- migrate:up"';
    throw formatError(path, up?.line ?? 1, what, "begin with a line of -- migrate:up");
  }
  if (down === undefined)
    throw formatError(
      path,
      up.line,
      'no "-- migrate:down"',
      "add the line; dbmate asks for it, even if nothing follows",
    );
  if (down.direction === "up") throw formatError(path, down.line, 'a second "-- migrate:up"', SPLIT_FILE);
  if (third !== undefined)
    throw formatError(path, third.line, `a second "-- migrate:${third.direction}"`, SPLIT_FILE);
  return [up, down];
}

function refuseBeforeUp(before: string, path: string): void {
  for (const [index, line] of before.split("\n").entries()) {
    const refuse = (what: string, hint: string) => formatError(path, index + 1, what, hint);
    if (!/^[\t\n\f\r ]*(--|$)/.test(line)) throw refuse('text before "-- migrate:up"', "move it below");
    if (/^[ \t]*--[ \t]*lockkeeper\b/i.test(line))
      throw refuse('a lockkeeper header before "-- migrate:up"', "move it below");
  }
}

/** What follows a directive on its line: `key:value`, of which dbmate knows `transaction:false` only. */
function readOptions(block: string): {
  readonly isInTransaction: boolean;
  readonly unknown: readonly string[];
} {
  const [first = ""] = block.split("\n", 1);
  const options = first
    .slice(first.indexOf("migrate:"))
    .split(/[\t\f\r ]+/)
    .slice(1)
    .filter((word) => word !== "");
  return {
    isInTransaction: options.findLast((option) => /^transaction:[^:]*$/.test(option)) !== "transaction:false",
    unknown: options.filter((option) => !/^transaction:(true|false)$/.test(option)),
  };
}

function warnOfOption(path: string, line: number, option: string): string {
  return `${path}:${line}: dbmate overlooks the option ${quote(option)}`;
}
