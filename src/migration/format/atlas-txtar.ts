import { scanSql } from "../scan-sql.ts";
import type { ScannedStatement } from "../scan-sql.ts";
import { SqlLexer } from "../sql-lexer.ts";
import { leadingDirectives } from "./atlas-directive.ts";
import { quote } from "./folder-problem.ts";
import { formatError, lineAt, linesOf } from "./format-error.ts";

/** The bodies in an archive; each begins with as many empty lines as stand before it. */
export interface AtlasArchive {
  /** its checks, each as a statement that fails unless it is true, then its migration */
  readonly up: string;
  readonly down?: string;
}

/**
 * Takes a file with `-- atlas:txtar` apart: `checks.sql` and `checks/NAME.sql` hold queries that have to be true before
 * `migration.sql` runs, all of them or, with `-- atlas:assert oneof`, one of each file; `down.sql` is the way back.
 *
 * @throws RunnerError `FORMAT` — a part that is unknown, missing, given twice or in another order; a check that is no query
 */
export function readArchive(text: string, file: string): AtlasArchive {
  const parts = splitArchive(text, file);
  const migration = parts.find(({ name }) => name === MIGRATION);
  if (migration === undefined)
    throw formatError(
      file,
      1,
      `an archive without ${quote(MIGRATION)}`,
      `write a line "-- ${MIGRATION} --" above its SQL`,
    );
  const down = parts.find(({ name }) => name === DOWN);
  const up: string[] = [];
  let end = 0;
  for (const part of parts) {
    if (part.start > migration.start || part === down) continue;
    up.push(blank(text.slice(end, part.start)));
    up.push(part === migration ? part.text : assertChecks(part, text, file));
    end = part.end;
  }
  return { up: up.join(""), ...(down && { down: blank(text.slice(0, down.start)) + down.text }) };
}

interface ArchivePart {
  readonly name: string;
  readonly text: string;
  /** UTF-16 indexes of its text */
  readonly start: number;
  readonly end: number;
}

const MIGRATION = "migration.sql";
const DOWN = "down.sql";
const MARKER = /^-- (.*) --[ \t]*\r?(?:\n|$)/gm;

function splitArchive(text: string, file: string): readonly ArchivePart[] {
  const markers = [...text.matchAll(MARKER)].filter(([, name = ""]) => name.trim() !== "");
  const parts: ArchivePart[] = [];
  const names = new Set<string>();
  for (const [index, marker] of markers.entries()) {
    const name = marker[1]?.trim() ?? "";
    const fail = (what: string, hint: string) => formatError(file, lineAt(text, marker.index), what, hint);
    if (!/^(?:migration|down|checks|checks\/[^/]+)\.sql$/.test(name)) {
      throw fail(
        `Atlas takes this line for the beginning of the archive's part ${quote(name)}, and knows no such part`,
        "write a comment in another way than -- … --",
      );
    }
    if (names.has(name)) throw fail(`the archive has ${quote(name)} twice`, "keep one");
    if (name.startsWith("checks") && names.has(MIGRATION))
      throw fail(`${quote(name)} stands after ${quote(MIGRATION)}`, "move the checks before it");
    names.add(name);
    const start = marker.index + marker[0].length;
    const end = markers[index + 1]?.index ?? text.length;
    parts.push({ name, text: text.slice(start, end), start, end });
  }
  return parts;
}

/** Each query becomes a `DO` block around it, on its own lines. */
function assertChecks(part: ArchivePart, text: string, file: string): string {
  const scan = scanSql(part.text);
  const lines = linesOf(text);
  const lineOf = (index: number): number => lines(part.start + index);
  if (!scan.isSure)
    throw formatError(file, lineOf(scan.open?.index ?? 0), "a check that cannot be read", "close its quotes");
  const { statements } = scan;
  for (const statement of statements) {
    if (!/^(?:select|with|values|\()/i.test(part.text.slice(statement.start)))
      throw formatError(
        file,
        lineOf(statement.start),
        "a check that is no query",
        "write a SELECT of one boolean",
      );
  }
  const isOneOf = leadingDirectives(part.text.trimStart()).found.some(
    ({ name, argument }) => name === "assert" && argument.trim() === "oneof",
  );
  if (statements.length === 0) return part.text;
  if (isOneOf) return assertOne(part, statements, lineOf);
  const tag = freeTag(part.text);
  return rewrite(part.text, statements, (statement, index) => {
    const what = `check ${part.name} failed: assertion ${index + 1} (line ${lineOf(statement.start)}) is not true`;
    const { open, close } = block(tag, what);
    return { before: `${open}(`, after: `)${close};` };
  });
}

function assertOne(
  part: ArchivePart,
  statements: readonly ScannedStatement[],
  lineOf: (index: number) => number,
): string {
  const line = lineOf(statements[0]?.start ?? 0);
  const what = `check ${part.name} failed: none of its ${statements.length} assertions (from line ${line}) is true`;
  const { open, close } = block(freeTag(part.text), what);
  const last = statements.length - 1;
  return rewrite(part.text, statements, (_, index) => ({
    before: index === 0 ? `${open}((` : "(",
    after: index === last ? `) IS TRUE)${close};` : ") IS TRUE OR ",
  }));
}

/** The text with something around each statement, and without the semicolons between them. */
function rewrite(
  text: string,
  statements: readonly ScannedStatement[],
  around: (statement: ScannedStatement, index: number) => { readonly before: string; readonly after: string },
): string {
  let result = "";
  let copied = 0;
  for (const [index, statement] of statements.entries()) {
    const { before, after } = around(statement, index);
    result +=
      text.slice(copied, statement.start) + before + text.slice(statement.start, statement.end) + after;
    const lexer = new SqlLexer(text, statement.end);
    copied = statement.end;
    if (!lexer.next()) continue;
    result += text.slice(copied, lexer.start);
    copied = lexer.end;
  }
  return result + text.slice(copied);
}

/** A dollar quote that the text does not hold. */
function freeTag(text: string): string {
  const taken = new Set(text.match(/\$check\d*\$/g));
  let tag = "$check$";
  for (let i = 1; taken.has(tag); i++) tag = `$check${i}$`;
  return tag;
}

function block(tag: string, message: string): { readonly open: string; readonly close: string } {
  const literal = message.replaceAll("'", "''");
  return {
    open: `DO ${tag}BEGIN IF `,
    close: ` IS NOT TRUE THEN RAISE EXCEPTION USING ERRCODE = 'assert_failure', MESSAGE = '${literal}'; END IF; END${tag}`,
  };
}

function blank(text: string): string {
  return text.replaceAll(/[^\r\n]/g, "");
}
