import type { RunnerError } from "../../error.ts";
import { codes, type JsonText } from "./json-text.ts";
import type { DocumentValue, Entry, Value } from "./value.ts";
import { isWrapper, unwrap } from "./wrapper.ts";

/** Documents and arrays within each other: more than this the server does not take, nor does golang-migrate of documents. */
const maxDepth = 200;
/** Values in one body: what a body of the largest size holds of real documents, and a ceiling on memory. */
const maxValues = 2_000_000;

/** What is counted while one body is read. */
export interface ReadingState {
  readonly json: JsonText;
  /** values that were written as wrappers */
  readonly wrapped: WeakSet<Value>;
  depth: number;
  values: number;
}

/**
 * The value that begins at the next character.
 *
 * @throws RunnerError `COMMAND_SYNTAX` - it is no JSON, or a wrapper such as `$date` around what it cannot hold
 * @throws RunnerError `TOO_LARGE` - too deep, or too many values
 */
export function readValue(state: ReadingState): Value {
  const { json } = state;
  const code = json.peek();
  const start = json.index;
  state.values++;
  if (state.values > maxValues)
    throw json.error(
      start,
      `more than ${maxValues} values in one file`,
      "make several migrations of it",
      "TOO_LARGE",
    );
  if (code === codes.quote) return { kind: "string", text: json.string() };
  if (code === codes.openBrace) {
    const document = readDocument(state);
    const [first] = document.entries;
    if (first === undefined || !isWrapper(first[0])) return document;
    return unwrap(document.entries, { json, start, wrapped: state.wrapped });
  }
  if (code === codes.openBracket) return { kind: "array", items: readItems(state, readValue) };
  if (code === codes.minus || (code >= codes.zero && code <= codes.nine)) return json.number();
  const literal = json.literal();
  if (literal !== undefined) return literal;
  throw strangeText(json, "a value");
}

/**
 * The document that begins here, as it is written: no wrapper, whatever its first key.
 *
 * @param readField - reads the value of a key
 */
export function readDocument(
  state: ReadingState,
  readField: (state: ReadingState, key: string) => Value = readValue,
): DocumentValue {
  const { json } = state;
  const start = json.index;
  enter(state, start);
  json.index++;
  const entries: Entry[] = [];
  if (!json.take(codes.closeBrace)) {
    do entries.push(readEntry(state, readField));
    while (json.take(codes.comma));
    if (!json.take(codes.closeBrace)) throw unclosed(json, start, "}");
  }
  state.depth--;
  return { kind: "document", entries };
}

/** A reading that has not begun; `outermost` is the depth of what is read first. */
export function startReading(json: JsonText, outermost: 0 | 1): ReadingState {
  return { json, wrapped: new WeakSet(), depth: outermost - 1, values: 0 };
}

/** The items of the array that begins here. */
export function readItems<T>(state: ReadingState, readItem: (state: ReadingState) => T): readonly T[] {
  const { json } = state;
  const start = json.index;
  enter(state, start);
  json.index++;
  const items: T[] = [];
  if (!json.take(codes.closeBracket)) {
    do {
      if (json.peek() === codes.closeBracket && items.length > 0) throw trailingComma(json);
      items.push(readItem(state));
    } while (json.take(codes.comma));
    if (!json.take(codes.closeBracket)) throw unclosed(json, start, "]");
  }
  state.depth--;
  return items;
}

function readEntry(state: ReadingState, readField: (state: ReadingState, key: string) => Value): Entry {
  const { json } = state;
  const code = json.peek();
  if (code === codes.closeBrace) throw trailingComma(json);
  if (code !== codes.quote) throw strangeText(json, "a key in double quotes");
  const start = json.index;
  const key = json.string();
  if (key.includes("\0"))
    throw json.error(start, "a key with a NUL character, which MongoDB cannot store", "rename it");
  if (!json.take(codes.colon)) throw strangeText(json, "a colon after the key");
  return [key, readField(state, key)];
}

function enter(state: ReadingState, start: number): void {
  state.depth++;
  if (state.depth > maxDepth)
    throw state.json.error(
      start,
      `documents and arrays more than ${maxDepth} deep`,
      "MongoDB takes none as deep as that",
      "TOO_LARGE",
    );
}

function trailingComma(json: JsonText): RunnerError {
  return json.error(json.index, "nothing after the comma before this bracket", "remove the comma");
}

function unclosed(json: JsonText, start: number, bracket: string): RunnerError {
  if (!Number.isNaN(json.peek())) return strangeText(json, `a comma or ${bracket}`);
  return json.error(
    start,
    `the ${bracket === "}" ? "document" : "array"} that begins here has no end`,
    `close it with ${bracket}`,
  );
}

/** What does not belong at this place, told as the mistake it most likely is. */
function strangeText(json: JsonText, expected: string): RunnerError {
  if (Number.isNaN(json.peek()))
    return json.error(json.index, `the file ends where ${expected} was expected`, "complete it");
  const rest = json.text.slice(json.index, json.index + 40);
  for (const { pattern, what, hint } of USUAL_MISTAKES)
    if (pattern.test(rest)) return json.error(json.index, what, hint);
  return json.error(json.index, `not JSON: ${expected} was expected`, "correct it");
}

const USUAL_MISTAKES: readonly {
  readonly pattern: RegExp;
  readonly what: string;
  readonly hint: string;
}[] = [
  {
    pattern: /^(?:\/\/|\/\*|#)/,
    what: "a comment, which JSON does not have",
    hint: "remove it; golang-migrate takes none either",
  },
  {
    pattern: /^(?:new\s+)?(?:ISODate|Date)\b/,
    what: "a date as the shell writes it",
    hint: 'write {"$date": {"$numberLong": "<milliseconds since 1970>"}}',
  },
  {
    pattern: /^(?:new\s+)?ObjectId\b/,
    what: "an ObjectId as the shell writes it",
    hint: 'write {"$oid": "<24 hex digits>"}',
  },
  {
    pattern: /^(?:new\s+)?Number(?:Long|Int|Decimal)\b/,
    what: "a number as the shell writes it",
    hint: 'write {"$numberLong": "1"}, $numberInt or $numberDecimal',
  },
  {
    pattern: /^'/,
    what: "a text in single quotes",
    hint: "JSON wants double quotes",
  },
  {
    pattern: /^[A-Za-z_$]/,
    what: "a word without quotes",
    hint: "put keys and texts in double quotes: this is JSON, not the shell's language",
  },
];
