import { RunnerError } from "../error.ts";
import { parseDuration } from "./duration.ts";
import type { Backfill } from "./backfill.ts";
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
 * Reads `-- lockkeeper: tx=none lock_timeout=2s statement_timeout=10m` lines.
 *
 * They stand in the leading comment lines of a file, several if need be; blank lines between are fine.
 *
 * @throws RunnerError `HEADER` — an unknown or repeated key, a bad value, or such a line further down, where it would be overlooked
 */
export function parseHeader(text: string, path: string): Header {
  if (!/lockkeeper/i.test(text)) return {};
  const values = new Map<Key, string>();
  let line = 0;
  let index = text.charCodeAt(0) === BOM ? 1 : 0;
  while (index < text.length) {
    line++;
    const end = lineEnd(text, index);
    const content = text.slice(index, end);
    if (!LEADING.test(content)) break;
    const settings = HEADER_LINE.exec(content)?.[1];
    if (settings !== undefined) readSettings(settings, values, path, line);
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
  return toHeader(values);
}

/** Keys of the header and what each value may be. */
const KEYS = {
  tx: (value: string) => value === "one" || value === "none",
  lock_timeout: (value: string) => parseDuration(value) !== undefined,
  statement_timeout: (value: string) => parseDuration(value) !== undefined,
} as const satisfies Record<string, (value: string) => boolean>;

type Key = keyof typeof KEYS;

const EXPECTED = {
  tx: "one or none",
  lock_timeout: "a duration such as 500ms, 2s or 10m, or 0",
  statement_timeout: "a duration such as 500ms, 2s or 10m, or 0",
} as const satisfies Record<Key, string>;

const MARK = "lockkeeper:";
const BOM = 0xfeff;
const LEADING = /^[ \t]*(--|$)/;
/** `-- Lockkeeper: tx=none` or `-- lockkeeper tx=none`: meant as a header, and would be overlooked. */
const NEAR_MISS = /^[ \t]*--[ \t]*lockkeeper[ \t:]+[a-z_]+=/i;
/** Comment marks and indentation before a header that is looked for anywhere in a line. */
const MAX_INDENT = 200;
const HEADER_LINE = /^[ \t]*--[ \t]*lockkeeper:(.*)$/;

function readSettings(settings: string, values: Map<Key, string>, path: string, line: number): void {
  const words = settings.split(/[ \t]+/).filter((word) => word !== "");
  if (words.length === 0)
    throw headerError(
      path,
      line,
      "a lockkeeper header without settings",
      "write key=value pairs, or remove the line",
    );
  for (const word of words) {
    const at = word.indexOf("=");
    if (at < 1) throw headerError(path, line, `"${word}" in the lockkeeper header is not key=value`, KNOWN);
    const key = word.slice(0, at);
    const value = word.slice(at + 1);
    if (!isKey(key)) throw headerError(path, line, `unknown key "${key}" in the lockkeeper header`, KNOWN);
    if (values.has(key))
      throw headerError(
        path,
        line,
        `key "${key}" is given twice in the lockkeeper header`,
        "keep one of them",
      );
    if (!KEYS[key](value)) {
      throw headerError(
        path,
        line,
        `"${value}" is no value for "${key}" in the lockkeeper header`,
        `expected ${EXPECTED[key]}`,
      );
    }
    values.set(key, value);
  }
}

const KNOWN = `known keys: ${Object.keys(KEYS).join(", ")}`;

function isKey(text: string): text is Key {
  return Object.hasOwn(KEYS, text);
}

function refuseLateHeader(text: string, from: number, path: string): void {
  for (let at = text.indexOf(MARK, from); at >= 0; at = text.indexOf(MARK, at + MARK.length)) {
    if (!/(^|[\r\n])[ \t]*--[ \t]*$/.test(text.slice(Math.max(0, at - MAX_INDENT), at))) continue;
    if (!/^[ \t]*[a-z_]+=/.test(text.slice(at + MARK.length, at + MARK.length + 80))) continue;
    const line = text.slice(0, at).split(/\r\n|\r|\n/).length;
    throw headerError(
      path,
      line,
      "a lockkeeper header after the first statement or a block comment",
      "move it to the first line of the file",
    );
  }
}

function toHeader(values: ReadonlyMap<Key, string>): Header {
  const tx = values.get("tx");
  const lockTimeout = values.get("lock_timeout");
  const statementTimeout = values.get("statement_timeout");
  return {
    ...(tx === undefined ? {} : { tx: tx === "none" ? "none" : "one" }),
    ...durationField("lockTimeoutMs", lockTimeout),
    ...durationField("statementTimeoutMs", statementTimeout),
  };
}

function durationField(name: "lockTimeoutMs" | "statementTimeoutMs", text: string | undefined): Header {
  const ms = text === undefined ? undefined : parseDuration(text);
  return ms === undefined ? {} : { [name]: ms };
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
