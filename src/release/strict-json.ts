import { RunnerError } from "../error.ts";
import { releaseLimits } from "./limits.ts";

/**
 * Bytes → JSON value, refusing whatever two readers could read differently.
 *
 * Beyond RFC 8259: UTF-8 without a byte order mark and without lone surrogates, no name twice in an object
 * (also not in two spellings, `"a"` and `"\u0061"`), numbers only as non-negative safe integers in their one
 * spelling, a ceiling on bytes and depth. Accepts a subset of `JSON.parse` and gives equal values.
 *
 * @param what - names the text in messages, e.g. `the manifest`
 * @throws RunnerError `TOO_LARGE` (bytes or depth), `JSON_SYNTAX`, `JSON_DUPLICATE`, `JSON_NUMBER`
 */
export function parseStrictJson(bytes: Uint8Array, what: string, maxBytes: number): unknown {
  if (bytes.length > maxBytes) {
    throw new RunnerError("TOO_LARGE", `${what} has ${bytes.length} bytes, more than ${maxBytes}`);
  }
  const text = decodeUtf8(bytes, what);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    // V8 quotes the text in its message, and this text is not ours to show
    throw new RunnerError("JSON_SYNTAX", `${what} is not valid JSON`, { cause: error });
  }
  assertUnambiguous(text, what);
  return value;
}

function decodeUtf8(bytes: Uint8Array, what: string): string {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
    throw new RunnerError("JSON_SYNTAX", `${what} begins with a byte order mark`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new RunnerError("JSON_SYNTAX", `${what} is not valid UTF-8`, { cause: error });
  }
}

const quote = 0x22;
const comma = 0x2c;
const minus = 0x2d;
const point = 0x2e;
const zero = 0x30;
const nine = 0x39;
const upperE = 0x45;
const openBracket = 0x5b;
const backslash = 0x5c;
const closeBracket = 0x5d;
const lowerE = 0x65;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const colon = 0x3a;

/** digits that every safe integer may have */
const safeDigits = 15;

/**
 * What `JSON.parse` lets pass. It has accepted `text`, so every token is well formed and only its place is asked.
 * (Parsers with a hook for duplicates were tried: the one at hand stays silent when both values are equal.)
 */
function assertUnambiguous(text: string, what: string): void {
  /** one entry an open object or array: the names seen so far, or null for an array */
  const open: (Set<string> | null)[] = [];
  let isName = false;
  /** the next backslash; few texts have one, and without it a string is what stands there */
  let escapeAt = indexOfEscape(text, 0);
  let at = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === quote) {
      const end = endOfString(text, at);
      if (escapeAt < at) escapeAt = indexOfEscape(text, at);
      const isEscapedIn = escapeAt < end;
      const names = open.at(-1);
      if (isName && names) {
        const name = isEscapedIn ? readEscaped(text.slice(at, end), what) : text.slice(at + 1, end - 1);
        if (names.has(name))
          throw new RunnerError("JSON_DUPLICATE", `${what} has a name twice in one object`);
        names.add(name);
      } else if (isEscapedIn) {
        readEscaped(text.slice(at, end), what);
      }
      isName = false;
      at = end;
      continue;
    }
    if (code === minus || (code >= zero && code <= nine)) {
      const end = endOfDigits(text, at + 1);
      const next = text.charCodeAt(end);
      const isPlain = code !== minus && next !== point && next !== lowerE && next !== upperE;
      if (!isPlain || (end - at > safeDigits && !Number.isSafeInteger(Number(text.slice(at, end))))) {
        throw new RunnerError("JSON_NUMBER", `${what} has a number that is not a plain safe integer`);
      }
      at = end;
      continue;
    }
    if (code === openBrace || code === openBracket) {
      if (open.length === releaseLimits.jsonDepth) {
        throw new RunnerError("TOO_LARGE", `${what} is nested deeper than ${releaseLimits.jsonDepth}`);
      }
      open.push(code === openBrace ? new Set() : null);
      isName = code === openBrace;
    } else if (code === closeBrace || code === closeBracket) {
      open.pop();
      isName = false;
    } else if (code === comma) {
      isName = open.at(-1) !== null;
    } else if (code === colon) {
      isName = false;
    }
    at++;
  }
}

/** Index after the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let end = text.indexOf('"', start + 1);
  while (isEscaped(text, end)) end = text.indexOf('"', end + 1);
  return end + 1;
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(at - 1 - backslashes) === backslash) backslashes++;
  return backslashes % 2 === 1;
}

/** The text's length where there is none. */
function indexOfEscape(text: string, from: number): number {
  const at = text.indexOf("\\", from);
  return at === -1 ? text.length : at;
}

function readEscaped(raw: string, what: string): string {
  const value = String(JSON.parse(raw));
  if (!value.isWellFormed()) throw new RunnerError("JSON_SYNTAX", `${what} has a lone surrogate`);
  return value;
}

function endOfDigits(text: string, from: number): number {
  let end = from;
  for (let code = text.charCodeAt(end); code >= zero && code <= nine; code = text.charCodeAt(end)) end += 1;
  return end;
}
