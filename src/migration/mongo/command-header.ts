import { defaultBatch, isBatchSize, maxBatch, type Backfill } from "../backfill.ts";
import { parseDuration } from "../duration.ts";
import type { Header } from "../header.ts";
import { quote } from "../format/folder-problem.ts";
import { codes, type JsonText } from "./json-text.ts";
import { readDocument, readValue, type ReadingState } from "./read-value.ts";
import type { Value } from "./value.ts";

/** Whether the next element is a header: its first key is `$lockkeeper`, as no command is called. */
export function beginsHeader(json: JsonText): boolean {
  json.peek();
  HEADER_START.lastIndex = json.index;
  return HEADER_START.test(json.text);
}

/**
 * Reads `{"$lockkeeper": {"tx": "none", "lock_timeout": "2s"}}`: what SQL says in its leading comments, with the same
 * keys. A backfill is `"backfill": true` with `table`, the collection, and perhaps `key` (only `_id`), `batch`,
 * `pause` and `throttle`, a command.
 *
 * @throws RunnerError `HEADER` - an unknown or repeated key, a value that it cannot have, or keys that do not go together
 */
export function readCommandHeader(state: ReadingState): Header {
  const { json } = state;
  const start = json.index;
  json.remark("beyond", start, "a lockkeeper header, which it would send as a command");
  const found: Found = new Map();
  let isRead = false;
  readDocument(state, (inner) => {
    if (isRead)
      throw headerError(json, start, 'a key beside "$lockkeeper"', "give the command an element of its own");
    isRead = true;
    if (json.peek() !== codes.openBrace)
      throw headerError(json, start, '"$lockkeeper" is no document', 'write {"$lockkeeper": {"tx": "none"}}');
    return readDocument(inner, (field, key) => readSetting(field, key, found));
  });
  assertTogether(json, found, start);
  return toHeader(found);
}

const HEADER_START = /\{[ \t\r\n]*"\$lockkeeper"/y;

interface Setting {
  readonly value: Value;
  /** as the file has it */
  readonly text: string;
  readonly index: number;
}

type Found = Map<Key, Setting>;

/** Keys of the header, and what each value may be. */
const KEYS = {
  tx: { isValue: (value) => isText(value, /^(one|none)$/), expected: '"one" or "none"' },
  lock_timeout: { isValue: isDuration, expected: 'a duration such as "500ms", "2s" or "10m", or 0' },
  statement_timeout: { isValue: isDuration, expected: 'a duration such as "500ms", "2s" or "10m", or 0' },
  backfill: { isValue: (value) => value.kind === "boolean" && value.value, expected: "true" },
  table: {
    isValue: (value) => isText(value, /^(?!system\.)[^$\0.][^$\0]{0,234}$/),
    expected: 'a collection\'s name, such as "orders"',
  },
  key: { isValue: (value) => isText(value, /^_id$/), expected: '"_id"' },
  batch: {
    isValue: (value) => value.kind === "int32" && isBatchSize(String(value.value)),
    expected: `a number of documents from 1 to ${maxBatch}`,
  },
  pause: { isValue: isDuration, expected: 'a duration such as "50ms" or "1s", or 0' },
  throttle: {
    isValue: (value) => value.kind === "document" && value.entries.length > 0,
    expected: "a command whose first document says {busy: true} or {busy: false}",
  },
} as const satisfies Record<string, { isValue(value: Value): boolean; expected: string }>;

type Key = keyof typeof KEYS;

/** Keys that say something of a backfill only. */
const OF_BACKFILL = ["table", "key", "batch", "pause", "throttle"] as const satisfies readonly Key[];

function readSetting(state: ReadingState, key: string, found: Found): Value {
  const { json } = state;
  json.peek();
  const index = json.index;
  const value = readValue(state);
  if (!isKey(key))
    throw headerError(
      json,
      index,
      `unknown key ${quote(key)} in the lockkeeper header`,
      `known are ${Object.keys(KEYS).join(", ")}`,
    );
  if (found.has(key))
    throw headerError(json, index, `"${key}" is given twice in the lockkeeper header`, "keep one of them");
  if (!KEYS[key].isValue(value))
    throw headerError(
      json,
      index,
      `this is no value for "${key}" in the lockkeeper header`,
      `expected ${KEYS[key].expected}`,
    );
  found.set(key, { value, text: json.text.slice(index, json.index), index });
  return value;
}

function assertTogether(json: JsonText, found: Found, start: number): void {
  if (!found.has("backfill")) {
    for (const key of OF_BACKFILL) {
      const alone = found.get(key);
      if (alone !== undefined)
        throw headerError(
          json,
          alone.index,
          `"${key}" in the lockkeeper header without "backfill"`,
          'write "backfill": true beside it, or remove it',
        );
    }
    return;
  }
  if (!found.has("table"))
    throw headerError(
      json,
      start,
      '"backfill" in the lockkeeper header without "table"',
      'write "table": "<collection>" beside it',
    );
  const tx = found.get("tx");
  if (tx !== undefined && textOf(tx.value) === "one")
    throw headerError(
      json,
      tx.index,
      'a backfill with "tx": "one"',
      'remove "tx": each range of a backfill stands for itself',
    );
}

function toHeader(found: Found): Header {
  const tx = textOf(found.get("tx")?.value);
  const lockTimeoutMs = durationOf(found.get("lock_timeout")?.value);
  const statementTimeoutMs = durationOf(found.get("statement_timeout")?.value);
  return {
    ...(tx === undefined ? {} : { tx: tx === "none" ? "none" : "one" }),
    ...(lockTimeoutMs === undefined ? {} : { lockTimeoutMs }),
    ...(statementTimeoutMs === undefined ? {} : { statementTimeoutMs }),
    ...(found.has("backfill") ? { backfill: toBackfill(found) } : {}),
  };
}

function toBackfill(found: Found): Backfill {
  const batch = found.get("batch")?.value;
  return {
    table: textOf(found.get("table")?.value) ?? "",
    key: ["_id"],
    batch: batch?.kind === "int32" ? batch.value : defaultBatch,
    pauseMs: durationOf(found.get("pause")?.value) ?? 0,
    throttle: found.get("throttle")?.text,
  };
}

function isKey(text: string): text is Key {
  return Object.hasOwn(KEYS, text);
}

function isText(value: Value, pattern: RegExp): boolean {
  return value.kind === "string" && pattern.test(value.text);
}

function isDuration(value: Value): boolean {
  return durationOf(value) !== undefined;
}

/** 0 may be written as a number. */
function durationOf(value: Value | undefined): number | undefined {
  if (value?.kind === "int32" && value.value === 0) return 0;
  return value?.kind === "string" ? parseDuration(value.text) : undefined;
}

function textOf(value: Value | undefined): string | undefined {
  return value?.kind === "string" ? value.text : undefined;
}

function headerError(json: JsonText, index: number, what: string, hint: string): Error {
  return json.error(index, what, hint, "HEADER");
}
