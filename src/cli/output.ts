import { stripVTControlCharacters } from "node:util";

import type { RunnerError } from "../error.ts";
import { harmlessJson } from "../report/harmless-json.ts";
import { redactText } from "../report/redact.ts";
import type { Sink } from "../report/sink.ts";

/** Where a verb puts what it has to say: the result on stdout, everything else on stderr. */
export interface Output {
  readonly isJson: boolean;
  readonly isVerbose: boolean;
  /** the sink of progress and messages */
  readonly stderr: Sink;
  /** colours for stdout and stderr, plain where they are no terminals */
  readonly paint: { readonly out: Paint; readonly err: Paint };
  /** The result: `document` with `--output json`, else the text made by `text`. Once a call. */
  result(document: unknown, text: () => string): void;
  /** Results without an end of their own: with `--output json` one document a line, else the text made by `text`. Once a call. */
  results(documents: readonly unknown[], text: () => string): void;
  /** whether a result was written: then an error must not become a second document */
  readonly hasResult: boolean;
  /** A line for people on stderr; nothing with `--output json`. */
  note(line: string): void;
  /** What is waited for, on stderr: a line, or one JSON document a line. */
  waiting(why: RunnerError): void;
}

/** Colours by what they mean. */
export interface Paint {
  good(text: string): string;
  bad(text: string): string;
  warn(text: string): string;
  dim(text: string): string;
  strong(text: string): string;
}

/** An output for one call. */
export function makeOutput(
  stdout: Sink,
  stderr: Sink,
  options: { readonly isJson: boolean; readonly isVerbose: boolean; readonly hasColor: boolean },
): Output {
  let hasResult = false;
  const write = (written: string): void => {
    hasResult = true;
    if (written !== "") stdout.write(written.endsWith("\n") ? written : `${written}\n`);
  };
  return {
    isJson: options.isJson,
    isVerbose: options.isVerbose,
    stderr,
    paint: {
      out: makePaint(options.hasColor && stdout.isTerminal && !options.isJson),
      err: makePaint(options.hasColor && stderr.isTerminal && !options.isJson),
    },
    get hasResult() {
      return hasResult;
    },
    result: (document, text) =>
      write(options.isJson ? harmlessJson(JSON.stringify(document, null, 2)) : text()),
    results: (documents, text) =>
      write(options.isJson ? documents.map((one) => harmlessJson(JSON.stringify(one))).join("\n") : text()),
    note(line) {
      if (!options.isJson) stderr.write(`${line}\n`);
    },
    waiting({ code, message, hint }) {
      const [what, next] = [redactText(message), hint === undefined ? null : redactText(hint)];
      const told = { at: new Date().toISOString(), kind: "waiting", code, message: what, hint: next };
      stderr.write(
        options.isJson
          ? `${harmlessJson(JSON.stringify(told))}\n`
          : `waiting: ${what}${next === null ? "" : `; ${next}`}\n`,
      );
    },
  };
}

/** Text that somebody else wrote, as one line that cannot act on a terminal: whatever is not printable ASCII is spelled out. */
export function printable(text: string): string {
  return text.replace(/[^ -~]/gu, spelled);
}

/** Text that somebody else wrote, as one line that neither a terminal nor GitHub (`##[`) takes for a command. */
export function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]|#(?=#\[)/gu, spelled);
}

function spelled(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16) ?? ""}}`;
}

/** Columns as wide as their widest cell, two spaces between; numbers go to the right. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  paint: Paint,
): string {
  const widths = head.map((title, column) =>
    rows.reduce((width, row) => Math.max(width, widthOf(row[column] ?? "")), widthOf(title)),
  );
  // numbers of one width are names, such as 000042
  const isNumber = head.map((_, column) => {
    const cells = rows.map((row) => row[column] ?? "");
    return cells.every((cell) => /^\d*$/.test(cell)) && new Set(cells.map((cell) => cell.length)).size > 1;
  });
  const lineOf = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => {
        const gap = " ".repeat(Math.max(0, (widths[column] ?? 0) - widthOf(cell)));
        return isNumber[column] === true ? gap + cell : cell + gap;
      })
      .join("  ")
      .trimEnd();
  return [paint.dim(lineOf(head)), ...rows.map(lineOf)].join("\n");
}

/** Names on the left, values on the right, also those of several lines; rows without a value are left out. */
export function formatPairs(pairs: readonly (readonly [string, string | undefined])[]): string {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== "");
  const width = Math.max(0, ...shown.map(([name]) => name.length));
  const indent = `\n${" ".repeat(width + 2)}`;
  return shown
    .map(([name, value = ""]) => `${name.padEnd(width)}  ${value.replaceAll("\n", indent)}`)
    .join("\n");
}

/** Characters on the screen: colours take none. */
function widthOf(text: string): number {
  if (/^[ -~]*$/.test(text)) return text.length;
  return [...stripVTControlCharacters(text)].length;
}

function makePaint(hasColor: boolean): Paint {
  const paintWith = (code: number) => (text: string) =>
    hasColor && text !== "" ? `\u001b[${code}m${text}\u001b[0m` : text;
  return {
    good: paintWith(32),
    bad: paintWith(31),
    warn: paintWith(33),
    dim: paintWith(2),
    strong: paintWith(1),
  };
}
