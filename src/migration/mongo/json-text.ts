import { RunnerError } from "../../error.ts";
import type { RunnerErrorCode } from "../../error.ts";
import { locateUnit } from "../position.ts";
import type { Value } from "./value.ts";

/** Something that a person should hear of a body that could be read. */
export interface Remark {
  /** `beyond`: golang-migrate would not take it; `odd`: it does what we do, which may not be what was meant */
  readonly kind: "beyond" | "odd";
  /** into the text, UTF-16 code units */
  readonly index: number;
  readonly what: string;
}

/**
 * JSON's tokens, read as golang-migrate's decoder reads them (mongo-driver 1.7.5, `bson/bsonrw/json_scanner.go`):
 * strings may hold raw line breaks, halves of a surrogate pair become U+FFFD, an integer that fits is an int32 or int64
 * and any other number a double.
 *
 * Its one reading that is not followed: `\u` without four hex digits, of which it makes U+FFFD, is an error here.
 */
export class JsonText {
  readonly text: string;
  readonly path: string;
  readonly remarks: Remark[] = [];
  /** UTF-16 code units */
  index = 0;

  constructor(text: string, path: string) {
    this.text = text;
    this.path = path;
  }

  /** Code of the next character that is no white space; NaN at the end. */
  peek(): number {
    while (isBlank(this.text.charCodeAt(this.index))) this.index++;
    return this.text.charCodeAt(this.index);
  }

  /** Whether that character comes next; it is taken then. */
  take(code: number): boolean {
    if (this.peek() !== code) return false;
    this.index++;
    return true;
  }

  /** The string that begins here. */
  string(): string {
    const start = this.index;
    let result = "";
    let from = start + 1;
    for (let at = from; at < this.text.length;) {
      const code = this.text.charCodeAt(at);
      if (code === codes.quote) {
        this.index = at + 1;
        return result + this.text.slice(from, at);
      }
      if (code !== codes.backslash) {
        at++;
        continue;
      }
      const escape = this.#escape(at);
      result += this.text.slice(from, at) + escape.text;
      at = escape.end;
      from = at;
    }
    throw this.error(start, "a string without its closing quote", "close it");
  }

  /** The number that begins here. */
  number(): Value {
    const start = this.index;
    NUMBER.lastIndex = start;
    const [written] = NUMBER.exec(this.text) ?? [];
    if (written === undefined || !isEndOfWord(this.text.charCodeAt(NUMBER.lastIndex)))
      throw this.error(
        start,
        "not a number as JSON writes it",
        "write it as 1, -1, 1.5 or 1e3: without a plus sign, leading zeros or a bare point",
      );
    this.index = NUMBER.lastIndex;
    if (!/[.eE]/.test(written)) {
      const integer = BigInt(written);
      if (BigInt.asIntN(32, integer) === integer) return { kind: "int32", value: Number(integer) };
      if (BigInt.asIntN(64, integer) === integer) return { kind: "int64", value: integer };
    }
    const value = Number(written);
    if (Number.isFinite(value)) return { kind: "double", value };
    throw this.error(start, "a number above all that a double can hold", "write a smaller one");
  }

  /** `true`, `false` or `null`; undefined where another word stands. */
  literal(): Value | undefined {
    WORD.lastIndex = this.index;
    const [word] = WORD.exec(this.text) ?? [];
    const value = word === undefined ? undefined : LITERALS[word];
    if (value === undefined || word === undefined) return undefined;
    if (!isEndOfWord(this.text.charCodeAt(this.index + word.length))) return undefined;
    this.index += word.length;
    return value;
  }

  remark(kind: Remark["kind"], index: number, what: string): void {
    this.remarks.push({ kind, index, what });
  }

  /** `path:line:column: what`. */
  error(
    index: number,
    what: string,
    hint: string,
    code: Extract<RunnerErrorCode, "COMMAND_SYNTAX" | "TOO_LARGE" | "HEADER"> = "COMMAND_SYNTAX",
  ): RunnerError {
    const { line, column } = locateUnit(this.text, index);
    return new RunnerError(code, `${this.path}:${line}:${column}: ${what}`, {
      hint,
      fields: { migration: this.path, line, column },
    });
  }

  #escape(at: number): { readonly text: string; readonly end: number } {
    const letter = this.text.charAt(at + 1);
    const plain = ESCAPES[letter];
    if (plain !== undefined) return { text: plain, end: at + 2 };
    if (letter !== "u")
      throw this.error(at, "an escape that JSON does not know", 'write a backslash itself as "\\\\"');
    const first = this.#codeUnit(at);
    if (!isSurrogate(first)) return { text: String.fromCharCode(first), end: at + 6 };
    if (!this.text.startsWith("\\u", at + 6)) return { text: this.#halfPair(at), end: at + 6 };
    const second = this.#codeUnit(at + 6);
    const pair = String.fromCharCode(first, second);
    if (pair.isWellFormed()) return { text: pair, end: at + 12 };
    return { text: this.#halfPair(at) + String.fromCharCode(second).toWellFormed(), end: at + 12 };
  }

  #codeUnit(at: number): number {
    const digits = this.text.slice(at + 2, at + 6);
    if (/^[0-9A-Fa-f]{4}$/.test(digits)) return Number.parseInt(digits, 16);
    throw this.error(at, "\\u without four hex digits", "write the character itself, or as \\u00e9");
  }

  #halfPair(at: number): string {
    this.remark("odd", at, "half of a surrogate pair, which is read as U+FFFD");
    return "\u{fffd}";
  }
}

/** Characters that JSON is made of. */
export const codes = {
  quote: 0x22,
  comma: 0x2c,
  minus: 0x2d,
  slash: 0x2f,
  zero: 0x30,
  nine: 0x39,
  colon: 0x3a,
  openBracket: 0x5b,
  backslash: 0x5c,
  closeBracket: 0x5d,
  openBrace: 0x7b,
  closeBrace: 0x7d,
} as const;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const WORD = /true|false|null/y;
const LITERALS: Readonly<Record<string, Value>> = {
  true: { kind: "boolean", value: true },
  false: { kind: "boolean", value: false },
  null: { kind: "null" },
};
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}

function isEndOfWord(code: number): boolean {
  return (
    Number.isNaN(code) ||
    isBlank(code) ||
    code === codes.comma ||
    code === codes.closeBrace ||
    code === codes.closeBracket
  );
}

function isSurrogate(code: number): boolean {
  return code >= 0xd800 && code <= 0xdfff;
}
