import { SqlLexer } from "../sql-lexer.ts";
import { atlasDirective } from "./atlas-directive.ts";
import { scanAtlas, unescapeDelimiter } from "./atlas-scanner.ts";
import type { DelimiterRange } from "./atlas-scanner.ts";
import { quote } from "./folder-problem.ts";
import { formatError, lineAt } from "./format-error.ts";

/**
 * A text with semicolons in place of the delimiters that it chose by `-- atlas:delimiter` in its first line or by
 * `DELIMITER` commands; all that remains keeps its line.
 *
 * @throws RunnerError `FORMAT` — Atlas does not take it, or ends a statement within what PostgreSQL takes for a quote or comment
 */
export function replaceDelimiters(
  text: string,
  file: string,
): { readonly text: string; readonly warnings: readonly string[] } {
  const chosen = chosenDelimiter(text, file);
  if (chosen === undefined && !/delimiter /i.test(text)) return { text, warnings: [] };
  const { start, delimiter } = chosen ?? { start: 0, delimiter: ";" };
  const scan = scanAtlas(text, start, delimiter);
  // without a delimiter of its own it is PostgreSQL that takes the text apart
  if (chosen === undefined && ("what" in scan || scan.commands.length === 0)) return { text, warnings: [] };
  if ("what" in scan) throw formatError(file, lineAt(text, scan.index), scan.what, scan.hint ?? "close it");
  if (chosen !== undefined && scan.delimiters.length === 0 && scan.commands.length === 0) {
    const what = `${quote(file)}: its delimiter ${quote(delimiter)} is nowhere in it, so Atlas takes all of it for one statement`;
    return { text, warnings: [what] };
  }
  return { text: replaceAll(text, scan, file), warnings: [] };
}

/** The delimiter of the first line, and where the text after it begins. */
function chosenDelimiter(
  text: string,
  file: string,
): { readonly delimiter: string; readonly start: number } | undefined {
  const directive = atlasDirective(text);
  if (directive?.name !== "delimiter" || directive.prefix !== "-- ") return undefined;
  const end = text.indexOf("\n");
  if (directive.argument === "" || end < 0)
    throw formatError(
      file,
      1,
      "an atlas:delimiter without a delimiter, or without SQL",
      "write both, or remove it",
    );
  return { delimiter: unescapeDelimiter(directive.argument), start: end + 1 };
}

function replaceAll(
  text: string,
  scan: { readonly delimiters: readonly DelimiterRange[]; readonly commands: readonly DelimiterRange[] },
  file: string,
): string {
  const pieces: string[] = [];
  const semicolons = new Map<number, DelimiterRange>();
  const commands = new Set(scan.commands);
  let copied = 0;
  let length = 0;
  const add = (piece: string): void => {
    pieces.push(piece);
    length += piece.length;
  };
  for (const range of [...scan.delimiters, ...scan.commands].toSorted((a, b) => a.start - b.start)) {
    add(text.slice(copied, range.start));
    copied = range.end;
    if (commands.has(range)) continue;
    // a line break in it comes first, in case that a comment stands before it
    const breaks = text.slice(range.start, range.end).replaceAll(/[^\r\n]/g, "");
    const first = /^(?:\r?\n|\r)/.exec(breaks)?.[0] ?? "";
    add(first);
    semicolons.set(length, range);
    add(`;${breaks.slice(first.length)}`);
  }
  add(text.slice(copied));
  const replaced = pieces.join("");
  assertEndsStatements(replaced, semicolons, text, file);
  return replaced;
}

/** PostgreSQL must see each new semicolon as one, or what is sent would be another text than Atlas sends. */
function assertEndsStatements(
  replaced: string,
  semicolons: ReadonlyMap<number, DelimiterRange>,
  text: string,
  file: string,
): void {
  const missing = new Map(semicolons);
  const lexer = new SqlLexer(replaced);
  while (lexer.next()) if (lexer.kind === "symbol") missing.delete(lexer.start);
  const [hidden] = missing.values();
  if (hidden === undefined) return;
  throw formatError(
    file,
    lineAt(text, hidden.start),
    "Atlas ends a statement here, within what PostgreSQL takes for a quote or comment",
    "choose another delimiter, or close the quote or comment before it",
  );
}
