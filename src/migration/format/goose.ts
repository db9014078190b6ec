import type { RunnerError } from "../../error.ts";
import { decodeBody } from "../decode.ts";
import { locateUnit } from "../position.ts";
import { scanSql } from "../scan-sql.ts";
import type { ScannedStatement } from "../scan-sql.ts";
import { SqlLexer } from "../sql-lexer.ts";
import { unwrapTransaction } from "../unwrap-sql.ts";
import { compareVersions, versionKey } from "../version.ts";
import {
  duplicateVersion,
  folderError,
  isLabel,
  noMigrations,
  notALabel,
  unknownFile,
} from "./folder-problem.ts";
import type { FolderProblem } from "./folder-problem.ts";
import { formatError } from "./format-error.ts";
import type {
  BodyPart,
  FolderLayout,
  Format,
  FormatFile,
  FormatSettings,
  IgnoredFile,
  MigrationNames,
  ParsedFile,
} from "./format.ts";
import { readGooseFile } from "./goose-file.ts";
import type { GooseSection } from "./goose-section.ts";
import { readOverlooked } from "./overlooked-name.ts";

/**
 * goose's layout: `N_title.sql` with both ways in one file, between annotations.
 *
 * Names are read as its command line does (`NumericComponent`), which refuses every other `*.sql`. What goose sends
 * statement by statement, cut at semicolons that end a line, is taken here as one text that PostgreSQL cuts itself.
 */
export function goose(settings: FormatSettings): Format {
  return { name: "goose", read: readFolder, parse: (file) => parseFile(file, settings) };
}

/** Versions are signed 64-bit integers above 0 there. */
const MAX_VERSION = "9223372036854775807";
const WANTED = "<version>_<title>.sql";

type Reading =
  | { readonly migration: MigrationNames }
  | { readonly problem: FolderProblem }
  | { readonly ignored: string };

function readFolder(names: readonly string[]): FolderLayout {
  const byVersion = new Map<string, MigrationNames>();
  const ignored: IgnoredFile[] = [];
  const problems: FolderProblem[] = [];
  for (const name of names.toSorted()) {
    const reading = readName(name);
    if ("problem" in reading) problems.push(reading.problem);
    else if ("ignored" in reading) ignored.push({ name, reason: reading.ignored });
    else {
      const key = versionKey(reading.migration.version);
      const other = byVersion.get(key);
      if (other === undefined) byVersion.set(key, reading.migration);
      else problems.push(duplicateVersion(other.up, name));
    }
  }
  if (byVersion.size === 0 && problems.length === 0) problems.push(noMigrations(ignored, WANTED));
  if (problems.length > 0) throw folderError(problems);
  const migrations = [...byVersion.values()].toSorted((a, b) => compareVersions(a.version, b.version));
  return { migrations, repeatable: [], companions: [], ignored, warnings: [] };
}

function readName(name: string): Reading {
  const isGo = name.endsWith(".go");
  if (name.startsWith(".") || !(isGo || name.endsWith(".sql")))
    return readOverlooked(name, { tool: "goose", wanted: WANTED });
  const { version, flaw } = readVersion(name);
  if (isGo) {
    if (name.endsWith("_test.go")) return { ignored: "a test in Go" };
    if (version === undefined) return { ignored: "Go without a version, so goose overlooks it" };
    return {
      problem: unknownFile(name, "is a migration in Go, which lockkeeper does not run", "write it as SQL"),
    };
  }
  if (version === undefined)
    return { problem: unknownFile(name, `${flaw}, so goose refuses the folder`, `rename it to ${WANTED}`) };
  if (!isLabel(name)) return { problem: notALabel(name) };
  const title = name.slice(name.indexOf("_") + 1, -".sql".length);
  return { migration: { version, title, up: name } };
}

/** What stands before the first `_`, as Go's ParseInt takes it. */
function readVersion(
  name: string,
): { readonly version: string; readonly flaw?: never } | { readonly version?: never; readonly flaw: string } {
  const [before, after] = name.split("_", 2);
  if (before === undefined || after === undefined) return { flaw: "has no _ after its version" };
  const [, sign, digits] = /^([+-]?)([0-9]+)$/.exec(before) ?? [];
  if (digits === undefined) return { flaw: "does not begin with a version" };
  if (sign === "-" || compareVersions(digits, "0") === 0) return { flaw: "has a version below 1" };
  if (compareVersions(digits, MAX_VERSION) > 0) return { flaw: `has a version above ${MAX_VERSION}` };
  return { version: digits };
}

function parseFile({ name, bytes }: FormatFile, { variables }: FormatSettings): ParsedFile {
  const file = readGooseFile(decodeBody(bytes, name), name, variables);
  const toPart = ({ text }: GooseSection): BodyPart => {
    // with NO TRANSACTION a file may bring a BEGIN and COMMIT of its own
    const isOne = file.isInTransaction || unwrapTransaction(text) !== undefined;
    return { bytes: Buffer.from(text), ...(!isOne && { tx: "none" }) };
  };
  const sections = [file.up, ...(file.down ? [file.down] : [])];
  return {
    up: toPart(file.up),
    ...(file.down && { down: toPart(file.down) }),
    warnings: [...file.warnings, ...sections.flatMap((section) => warnOfCuts(section, name))],
  };
}

/**
 * Where goose would first cut a statement of PostgreSQL in two, in a quote, a comment or parentheses, and so fail.
 *
 * @throws RunnerError `FORMAT` - it cuts at a semicolon that a comment hides from PostgreSQL, `1--;`, where it need not fail
 */
function warnOfCuts({ text, statements }: GooseSection, path: string): readonly string[] {
  const scan = scanSql(text);
  if (!scan.isClosed) return [];
  const lineBefore = (end: number): number => locateUnit(text, end - 1).line;
  let first: number | undefined;
  let cut: ScannedStatement | undefined;
  let index = 0;
  for (const { start, end } of statements) {
    while ((scan.statements[index]?.end ?? Number.POSITIVE_INFINITY) <= end) index++;
    const around = scan.statements[index];
    const isCut = around !== undefined && around.start < end;
    if (isCut && around !== cut && readPiece(text, around.start, end) === "no semicolon")
      throw hiddenSemicolon(path, lineBefore(end));
    if (isCut) cut = around;
    if (isCut || readPiece(text, start, end) === "open") first ??= end;
  }
  if (first === undefined) return [];
  return [`${path}:${lineBefore(first)}: goose would end a statement here, so it cannot run this file`];
}

/** How a piece of SQL ends. */
function readPiece(text: string, start: number, end: number): "open" | "semicolon" | "no semicolon" {
  const lexer = new SqlLexer(text, start, end);
  let last = "";
  while (lexer.next()) last = lexer.text;
  if (lexer.open !== undefined) return "open";
  return last === ";" ? "semicolon" : "no semicolon";
}

function hiddenSemicolon(path: string, line: number): RunnerError {
  return formatError(
    path,
    line,
    "goose ends a statement at this semicolon, which for PostgreSQL is part of a comment",
    "write the semicolon before the comment",
  );
}
