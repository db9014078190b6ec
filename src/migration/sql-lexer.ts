/** What a token is; comments and white space are no tokens. */
export type TokenKind = "word" | "quoted" | "string" | "number" | "parameter" | "symbol" | "end";

/** A quote or comment that the text leaves open, and where it begins (UTF-16 index). */
export interface OpenToken {
  readonly what: string;
  readonly index: number;
}

/**
 * Reads PostgreSQL's text token by token, as `scan.l` does with `standard_conforming_strings` on.
 *
 * `kind`, `start` and `end` (UTF-16 indexes) are those of the token last read. One pass over the text, whatever is in it.
 */
export class SqlLexer {
  kind: TokenKind = "end";
  start: number;
  end: number;
  /** set once a quote or comment has no end; the last token then reaches to the end of the text */
  open: OpenToken | undefined;
  /** false once something was met that PostgreSQL's versions read differently, or not at all */
  isSure = true;

  readonly #text: string;
  readonly #limit: number;

  constructor(text: string, start = 0, limit = text.length) {
    this.#text = text;
    this.#limit = limit;
    this.start = start;
    this.end = start;
  }

  /** Reads the next token; false at the end of the text. */
  next(): boolean {
    this.start = this.#skipBlank(this.end);
    if (this.start >= this.#limit) {
      this.kind = "end";
      this.end = this.start;
      return false;
    }
    this.#readToken();
    return true;
  }

  /** The token as written. */
  get text(): string {
    return this.#text.slice(this.start, this.end);
  }

  /** First UTF-16 unit of the token. */
  get unit(): number {
    return this.#text.charCodeAt(this.start);
  }

  #readToken(): void {
    const at = this.start;
    const unit = this.#text.charCodeAt(at);
    if (isWordStart(unit)) return this.#readWordOrPrefix(unit);
    if (unit === QUOTE) return this.#become("string", this.#quoteEnd(at + 1, QUOTE, "quoted string"));
    if (unit === DOUBLE_QUOTE)
      return this.#become("quoted", this.#quoteEnd(at + 1, DOUBLE_QUOTE, "quoted identifier"));
    if (unit === DOLLAR) return this.#readDollar();
    if (isDigit(unit) || (unit === DOT && isDigit(this.#text.charCodeAt(at + 1)))) return this.#readNumber();
    if (unit === BACKSLASH) this.isSure = false;
    this.#become("symbol", at + 1);
  }

  #become(kind: TokenKind, end: number): void {
    this.kind = kind;
    this.end = Math.min(end, this.#limit);
  }

  /** `E'…'` knows backslashes; `U&'…'`, `B'…'`, `X'…'` and `N'…'` end as a plain string does. */
  #readWordOrPrefix(unit: number): void {
    const at = this.start;
    const following = this.#text.charCodeAt(at + 1);
    if (following === QUOTE) {
      const letter = unit | 0x20;
      if (letter === LOWER_E) return this.#become("string", this.#escapeStringEnd(at + 2));
      if (letter === LOWER_B || letter === LOWER_X || letter === LOWER_N) {
        return this.#become("string", this.#quoteEnd(at + 2, QUOTE, "quoted string"));
      }
    }
    if (following === AMPERSAND && (unit | 0x20) === LOWER_U) {
      const quote = this.#text.charCodeAt(at + 2);
      if (quote === QUOTE) return this.#become("string", this.#quoteEnd(at + 3, QUOTE, "quoted string"));
      if (quote === DOUBLE_QUOTE)
        return this.#become("quoted", this.#quoteEnd(at + 3, DOUBLE_QUOTE, "quoted identifier"));
    }
    this.#become("word", this.#wordEnd(at + 1));
  }

  #wordEnd(from: number): number {
    let i = from;
    while (i < this.#limit && isWordPart(this.#text.charCodeAt(i))) i++;
    return i;
  }

  /** Decimals, exponents, `0x1F` and `1_000`: before PostgreSQL 15 the letters were a word of their own, which ends at the same place. */
  #readNumber(): void {
    let i = this.#digitsEnd(this.start);
    // `1..10` is a range in PL/pgSQL, two tokens and not a decimal
    if (this.#text.charCodeAt(i) === DOT && this.#text.charCodeAt(i + 1) !== DOT) i = this.#digitsEnd(i + 1);
    while (i < this.#limit && isNumberPart(this.#text.charCodeAt(i))) i++;
    const following = this.#text.charCodeAt(i);
    // there a quote would begin another kind of string, and a dollar belong to the word
    if (following === QUOTE || following === AMPERSAND || following === DOLLAR || following >= 0x80)
      this.isSure = false;
    this.#become("number", i);
  }

  #digitsEnd(from: number): number {
    let i = from;
    while (i < this.#limit && isDigit(this.#text.charCodeAt(i))) i++;
    return i;
  }

  /** `$1`, or `$tag$…$tag$`; a `$` alone is no SQL. */
  #readDollar(): void {
    const at = this.start;
    if (isDigit(this.#text.charCodeAt(at + 1))) {
      const end = this.#digitsEnd(at + 1);
      if (end < this.#limit && isWordStart(this.#text.charCodeAt(end))) this.isSure = false;
      return this.#become("parameter", end);
    }
    let tagEnd = at + 1;
    if (isWordStart(this.#text.charCodeAt(tagEnd))) {
      while (tagEnd < this.#limit && isTagPart(this.#text.charCodeAt(tagEnd))) tagEnd++;
    }
    if (tagEnd >= this.#limit || this.#text.charCodeAt(tagEnd) !== DOLLAR) {
      this.isSure = false;
      return this.#become("symbol", at + 1);
    }
    const delimiter = this.#text.slice(at, tagEnd + 1);
    const close = this.#text.indexOf(delimiter, tagEnd + 1);
    if (close < 0 || close + delimiter.length > this.#limit)
      return this.#leaveOpen("string", "dollar-quoted string");
    this.#become("string", close + delimiter.length);
  }

  /** After the closing quote; a doubled quote is one of the content. */
  #quoteEnd(from: number, quote: number, what: string): number {
    const mark = quote === QUOTE ? "'" : '"';
    for (
      let at = this.#text.indexOf(mark, from);
      at >= 0 && at < this.#limit;
      at = this.#text.indexOf(mark, at + 2)
    ) {
      if (this.#text.charCodeAt(at + 1) !== quote) return at + 1;
    }
    this.open ??= { what, index: this.start };
    return this.#limit;
  }

  #escapeStringEnd(from: number): number {
    let i = from;
    while (i < this.#limit) {
      const unit = this.#text.charCodeAt(i);
      if (unit === BACKSLASH) {
        i += 2;
      } else if (unit !== QUOTE) {
        i++;
      } else if (this.#text.charCodeAt(i + 1) === QUOTE) {
        i += 2;
      } else {
        // `E'a'` and, on a later line, `'b\''`: the second part is read as the first was
        const next = this.#continuation(i + 1);
        if (next === undefined) return i + 1;
        i = next;
      }
    }
    this.open ??= { what: "quoted string", index: this.start };
    return this.#limit;
  }

  /** Where a string goes on after its closing quote: past white space and line comments with a line break, and a quote. */
  #continuation(from: number): number | undefined {
    let hasBreak = false;
    let i = from;
    while (i < this.#limit) {
      const unit = this.#text.charCodeAt(i);
      if (unit === QUOTE) return hasBreak ? i + 1 : undefined;
      if (unit === MINUS && this.#text.charCodeAt(i + 1) === MINUS) {
        i = this.#lineEnd(i + 2);
      } else if (isSpace(unit)) {
        hasBreak ||= unit === LF || unit === CR;
        i++;
      } else {
        return undefined;
      }
    }
    return undefined;
  }

  #leaveOpen(kind: TokenKind, what: string): void {
    this.open ??= { what, index: this.start };
    this.#become(kind, this.#limit);
  }

  #skipBlank(from: number): number {
    let i = from;
    while (i < this.#limit) {
      const unit = this.#text.charCodeAt(i);
      if (isSpace(unit)) {
        i++;
      } else if (unit === MINUS && this.#text.charCodeAt(i + 1) === MINUS) {
        i = this.#lineEnd(i + 2);
      } else if (unit === SLASH && this.#text.charCodeAt(i + 1) === STAR) {
        i = this.#blockEnd(i);
      } else {
        break;
      }
    }
    return Math.min(i, this.#limit);
  }

  /** Block comments nest. */
  #blockEnd(from: number): number {
    let depth = 1;
    let i = from + 2;
    while (i < this.#limit) {
      const unit = this.#text.charCodeAt(i);
      if (unit === STAR && this.#text.charCodeAt(i + 1) === SLASH) {
        i += 2;
        depth--;
        if (depth === 0) return i;
      } else if (unit === SLASH && this.#text.charCodeAt(i + 1) === STAR) {
        i += 2;
        depth++;
      } else {
        i++;
      }
    }
    this.open ??= { what: "comment", index: from };
    return this.#limit;
  }

  #lineEnd(from: number): number {
    let i = from;
    while (i < this.#limit) {
      const unit = this.#text.charCodeAt(i);
      if (unit === LF || unit === CR) break;
      i++;
    }
    return i;
  }
}

const LF = 0x0a;
const CR = 0x0d;
const DOUBLE_QUOTE = 0x22;
const DOLLAR = 0x24;
const AMPERSAND = 0x26;
const QUOTE = 0x27;
const STAR = 0x2a;
const MINUS = 0x2d;
const DOT = 0x2e;
const SLASH = 0x2f;
const BACKSLASH = 0x5c;
const LOWER_B = 0x62;
const LOWER_E = 0x65;
const LOWER_N = 0x6e;
const LOWER_U = 0x75;
const LOWER_X = 0x78;

function isDigit(unit: number): boolean {
  return unit >= 0x30 && unit <= 0x39;
}

function isSpace(unit: number): boolean {
  return unit === 0x20 || (unit >= 0x09 && unit <= 0x0d);
}

/** Every character beyond ASCII can begin a name: PostgreSQL knows no other white space. */
function isWordStart(unit: number): boolean {
  return (unit >= 0x61 && unit <= 0x7a) || (unit >= 0x41 && unit <= 0x5a) || unit === 0x5f || unit >= 0x80;
}

function isTagPart(unit: number): boolean {
  return isWordStart(unit) || isDigit(unit);
}

function isNumberPart(unit: number): boolean {
  return isTagPart(unit) && unit < 0x80;
}

function isWordPart(unit: number): boolean {
  return isWordStart(unit) || isDigit(unit) || unit === DOLLAR;
}
