import { RunnerError } from "../error.ts";
import { parseDuration } from "./duration.ts";
import {
  defaultBatch,
  isBatchSize,
  isColumnList,
  isTableName,
  maxBatch,
  splitNames,
  type Backfill,
} from "./backfill.ts";
import type { TxMode } from "./migration.ts";

/** What a migration asks for in the leading comment lines of its file; absent means the run's own settings. */
export interface Header {
  readonly tx?: TxMode;
  /** 0 = none */
  readonly lockTimeoutMs?: number;
  /** 0 = none */
  readonly statementTimeoutMs?: number;
  readonly backfill?: Backfill;
}

/**
 * Reads `-- lockkeeper: tx=none lock_timeout=2s` lines, and those of a backfill (see {@link Backfill}).
 *
 * They stand in the leading comment lines of a file, several if need be; blank lines between are fine. A value may hold
 * blanks within double quotes.
 *
 * @throws RunnerError `HEADER` — an unknown or repeated word, a bad value, words that do not go together, or such a line further down, where it would be overlooked
 */
export function parseHeader(text: string, path: string): Header {
  if (!/lockkeeper/i.test(text)) return {};
  const found: Found = new Map();
  let line = 0;
  let index = text.charCodeAt(0) === BOM ? 1 : 0;
  while (index < text.length) {
    line++;
    const end = lineEnd(text, index);
    const content = text.slice(index, end);
    if (!LEADING.test(content)) break;
    const settings = HEADER_LINE.exec(content)?.[1];
    if (settings !== undefined) readSettings(settings, found, path, line);
    else if (NEAR_MISS.test(content))
      throw headerError(
        path,
        line,
        "this comment is not quite a lockkeeper header",
        "write it as -- lockkeeper: key=value",
      );
    index = text.startsWith("\r\n", end) ? end + 2 : end + 1;
  }
  refuseLateHeader(text, index, path);
  assertTogether(found, path);
  return toHeader(found);
}

/** What was read: words with their values (`backfill` has none), and the lines they stand in. */
type Found = Map<Word, { readonly value: string; readonly line: number }>;

type Word = Key | "backfill" | "throttle";

/** Keys of the header and what each value may be. */
const KEYS = {
  tx: { isValue: (value: string) => value === "one" || value === "none", expected: "one or none" },
  lock_timeout: { isValue: isDuration, expected: "a duration such as 500ms, 2s or 10m, or 0" },
  statement_timeout: { isValue: isDuration, expected: "a duration such as 500ms, 2s or 10m, or 0" },
  table: {
    isValue: isTableName,
    expected: 'a table as SQL names it, such as orders, app.orders or "My table"',
  },
  key: { isValue: isColumnList, expected: "a column, or several between commas, each once" },
  batch: { isValue: isBatchSize, expected: `a number of rows from 1 to ${maxBatch}` },
  pause: { isValue: isDuration, expected: "a duration such as 50ms or 1s, or 0" },
} as const satisfies Record<string, { isValue(value: string): boolean; expected: string }>;

type Key = keyof typeof KEYS;

/** Words that say something of a backfill only. */
const OF_BACKFILL = ["table", "key", "batch", "pause", "throttle"] as const satisfies readonly Word[];

const MARK = "lockkeeper:";
const BOM = 0xfeff;
const LEADING = /^[ \t]*(--|$)/;
/** `-- Lockkeeper: tx=none` or `-- lockkeeper tx=none`: meant as a header, and would be overlooked. */
const NEAR_MISS =
  /^[ \t]*--[ \t]*lockkeeper[ \t:]+((backfill[ \t]+)?[a-z_]+=|throttle[ \t]+(select|with|values)\b)/i;
/** What follows the mark of a header that stands too late. */
const LATE = /^[ \t]*((backfill[ \t]+)?[a-z_]+=|throttle[ \t]+(select|with|values)\b)/i;
/** Comment marks and indentation before a header that is looked for anywhere in a line. */
const MAX_INDENT = 200;
const HEADER_LINE = /^[ \t]*--[ \t]*lockkeeper:(.*)$/;
/** Up to the next blank outside double quotes; a quote without its end is a word of its own, and no good one. */
const WORDS = /(?:"[^"]*"|[^ \t"])+|"/g;
const THROTTLE = /^[ \t]*throttle(?![^ \t])[ \t]*(.*)$/;

function readSettings(settings: string, found: Found, path: string, line: number): void {
  const query = THROTTLE.exec(settings)?.[1];
  if (query !== undefined) return readThrottle(query, found, path, line);
  const words = settings.match(WORDS) ?? [];
  if (words.length === 0)
    throw headerError(
      path,
      line,
      "a lockkeeper header without settings",
      "write key=value pairs, or remove the line",
    );
  for (const word of words) {
    if (word === "backfill") {
      add(found, word, "", path, line);
      continue;
    }
    const at = word.indexOf("=");
    if (at < 1) throw headerError(path, line, `"${word}" in the lockkeeper header is not key=value`, KNOWN);
    const key = word.slice(0, at);
    const value = word.slice(at + 1);
    if (!isKey(key)) throw headerError(path, line, `unknown key "${key}" in the lockkeeper header`, KNOWN);
    if (!KEYS[key].isValue(value)) {
      throw headerError(
        path,
        line,
        `"${value}" is no value for "${key}" in the lockkeeper header`,
        `expected ${KEYS[key].expected}`,
      );
    }
    add(found, key, value, path, line);
  }
}

/** All that follows the word on its line; a closing semicolon is no part of it. */
function readThrottle(text: string, found: Found, path: string, line: number): void {
  const query = text.replace(/[ \t;]+$/, "");
  if (query === "")
    throw headerError(path, line, "throttle without a query", "write the query of one boolean after it");
  add(found, "throttle", query, path, line);
}

function add(found: Found, word: Word, value: string, path: string, line: number): void {
  if (found.has(word))
    throw headerError(path, line, `"${word}" is given twice in the lockkeeper header`, "keep one of them");
  found.set(word, { value, line });
}

const KNOWN = `known are backfill, throttle and the keys ${Object.keys(KEYS).join(", ")}`;

function isKey(text: string): text is Key {
  return Object.hasOwn(KEYS, text);
}

function isDuration(value: string): boolean {
  return parseDuration(value) !== undefined;
}

function refuseLateHeader(text: string, from: number, path: string): void {
  for (let at = text.indexOf(MARK, from); at >= 0; at = text.indexOf(MARK, at + MARK.length)) {
    if (!/(^|[\r\n])[ \t]*--[ \t]*$/.test(text.slice(Math.max(0, at - MAX_INDENT), at))) continue;
    if (!LATE.test(text.slice(at + MARK.length, at + MARK.length + 80))) continue;
    const line = text.slice(0, at).split(/\r\n|\r|\n/).length;
    throw headerError(
      path,
      line,
      "a lockkeeper header after the first statement or a block comment",
      "move it to the first line of the file",
    );
  }
}

function assertTogether(found: Found, path: string): void {
  const backfill = found.get("backfill");
  if (backfill === undefined) {
    for (const word of OF_BACKFILL) {
      const alone = found.get(word);
      if (alone !== undefined)
        throw headerError(
          path,
          alone.line,
          `"${word}" in the lockkeeper header without "backfill"`,
          "write -- lockkeeper: backfill table=… key=… above it, or remove it",
        );
    }
    return;
  }
  for (const word of ["table", "key"] as const) {
    if (!found.has(word))
      throw headerError(
        path,
        backfill.line,
        `"backfill" in the lockkeeper header without "${word}"`,
        "write -- lockkeeper: backfill table=… key=…",
      );
  }
  const tx = found.get("tx");
  if (tx?.value === "one")
    throw headerError(
      path,
      tx.line,
      'a backfill with "tx=one"',
      "remove tx=one: each range of a backfill has a transaction of its own",
    );
}

function toHeader(found: Found): Header {
  const tx = found.get("tx")?.value;
  const lockTimeoutMs = durationOf(found, "lock_timeout");
  const statementTimeoutMs = durationOf(found, "statement_timeout");
  return {
    ...(tx === undefined ? {} : { tx: tx === "none" ? "none" : "one" }),
    ...(lockTimeoutMs === undefined ? {} : { lockTimeoutMs }),
    ...(statementTimeoutMs === undefined ? {} : { statementTimeoutMs }),
    ...(found.has("backfill") ? { backfill: toBackfill(found) } : {}),
  };
}

function toBackfill(found: Found): Backfill {
  return {
    table: found.get("table")?.value ?? "",
    key: splitNames(found.get("key")?.value ?? ""),
    batch: Number(found.get("batch")?.value ?? defaultBatch),
    pauseMs: durationOf(found, "pause") ?? 0,
    throttle: found.get("throttle")?.value,
  };
}

function durationOf(found: Found, key: Key): number | undefined {
  const text = found.get(key)?.value;
  return text === undefined ? undefined : parseDuration(text);
}

function lineEnd(text: string, from: number): number {
  for (let i = from; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === 0x0a || unit === 0x0d) return i;
  }
  return text.length;
}

function headerError(path: string, line: number, what: string, hint: string): RunnerError {
  return new RunnerError("HEADER", `${path}:${line}: ${what}`, { hint, fields: { migration: path, line } });
}
