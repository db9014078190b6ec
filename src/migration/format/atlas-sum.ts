import { createHash } from "node:crypto";
import { RunnerError } from "../../error.ts";
import { atlasDirective } from "./atlas-directive.ts";
import { quote } from "./folder-problem.ts";
import type { FormatFile } from "./format.ts";

/** Atlas keeps the sums of a folder in this file of it. */
export const atlasSumFile = "atlas.sum";

/**
 * The text of the `atlas.sum` of a folder (sql/migrate/dir.go): one running SHA-256 over names and bytes in byte order of
 * the names, so that a change in one file changes its line and all after it; the first line sums up the others.
 */
export function atlasSum(files: readonly FormatFile[]): string {
  const entries = sumOf(files);
  return `${MARK}${total(entries)}\n${entries.map(({ name, hash }) => `${name} ${MARK}${hash}\n`).join("")}`;
}

/**
 * Compares a folder with its `atlas.sum`, and says of the first difference what it is and in which line of the file.
 *
 * @param text - the file; undefined where there is none
 * @throws RunnerError `FOLDER_SUM`
 */
export function verifyAtlasSum(files: readonly FormatFile[], text: string | undefined): void {
  if (text === undefined) {
    throw new RunnerError("FOLDER_SUM", `the folder has no ${quote(atlasSumFile)}`, {
      hint: "make it with: atlas migrate hash",
      fields: { migration: atlasSumFile, reason: "not found" },
    });
  }
  const noted = readSum(text);
  const actual = sumOf(files);
  if (total(noted) === total(actual)) return;
  const { name, index, reason } = firstDifference(noted, actual);
  throw sumError(index + FIRST_ENTRY_LINE, `${quote(name)} was ${reason} after the sums were made`, {
    file: name,
    reason,
    lines: noted.length,
  });
}

interface SumEntry {
  readonly name: string;
  readonly hash: string;
}

const MARK = "h1:";
/** Line 1 is the sum of the others. */
const FIRST_ENTRY_LINE = 2;

function sumOf(files: readonly FormatFile[]): readonly SumEntry[] {
  const running = createHash("sha256");
  const sorted = files.toSorted((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
  return sorted.flatMap(({ name, bytes }) => {
    running.update(name);
    const sum = atlasDirective(firstLine(bytes));
    if (sum?.name === "sum" && sum.argument === "ignore") return [];
    running.update(bytes);
    return [{ name, hash: running.copy().digest("base64") }];
  });
}

/** As Latin-1: a directive is ASCII. */
function firstLine(bytes: Buffer): string {
  const end = bytes.indexOf(0x0a);
  return bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
}

function total(entries: readonly SumEntry[]): string {
  const hash = createHash("sha256");
  for (const entry of entries) hash.update(entry.name).update(entry.hash);
  return hash.digest("base64");
}

function readSum(text: string): readonly SumEntry[] {
  const [first = "", ...lines] = text.replace(/\r?\n$/, "").split(/\r?\n/);
  const entries = lines.map((line, index): SumEntry => {
    const at = line.indexOf(MARK);
    if (at < 0) throw sumError(index + FIRST_ENTRY_LINE, "is not a file's name and its sum", {});
    return { name: line.slice(0, at).trim(), hash: line.slice(at + MARK.length) };
  });
  if (first.replace(/^h1:/, "") !== total(entries))
    throw sumError(1, "the first line is not the sum of the others: the file itself was edited", {});
  return entries;
}

function firstDifference(
  noted: readonly SumEntry[],
  actual: readonly SumEntry[],
): { readonly name: string; readonly index: number; readonly reason: "added" | "edited" | "removed" } {
  const index = noted.findIndex(({ name, hash }, i) => actual[i]?.name !== name || actual[i].hash !== hash);
  const expected = noted[index];
  // all that is noted is there unchanged, so something follows it
  if (expected === undefined)
    return { name: actual[noted.length]?.name ?? "", index: noted.length, reason: "added" };
  const found = actual.findIndex(({ name }) => name === expected.name);
  if (found < 0) return { name: expected.name, index, reason: "removed" };
  if (found === index) return { name: expected.name, index, reason: "edited" };
  return { name: actual[index]?.name ?? expected.name, index, reason: "added" };
}

function sumError(
  line: number,
  what: string,
  fields: Readonly<Record<string, string | number>>,
): RunnerError {
  return new RunnerError("FOLDER_SUM", `${atlasSumFile}:${line}: ${what}`, {
    hint: "bring the files back to what was reviewed; if the change is meant: atlas migrate hash",
    fields: { migration: atlasSumFile, line, ...fields },
  });
}
