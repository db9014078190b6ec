import type { ScannedStatement } from "./scan-sql.ts";
import { SqlLexer } from "./sql-lexer.ts";
import { qualifiedName } from "./lock-collector.ts";

/** Walks through the tokens of one statement, one token ahead. */
export class TokenReader {
  /** how many parentheses are open before the token ahead */
  depth = 0;
  readonly #lexer: SqlLexer;
  /** the token ahead: a word in upper case, or a symbol; empty for all else */
  #ahead = "";
  #isOpen = true;
  #afterDot = false;

  constructor(text: string, statement: ScannedStatement) {
    this.#lexer = new SqlLexer(text, statement.start, statement.end);
    this.#read();
  }

  /** Whether a token is ahead. */
  get isOpen(): boolean {
    return this.#isOpen;
  }

  isAt(token: string): boolean {
    return this.#ahead === token;
  }

  /** Reads one token, and gives it when it is a word or a symbol; a word after a dot is a name. */
  advance(): string {
    const token = this.#afterDot ? "" : this.#ahead;
    this.#afterDot = this.#ahead === ".";
    if (this.#ahead === "(") this.depth++;
    else if (this.#ahead === ")") this.depth--;
    this.#read();
    return token;
  }

  /** Reads one word; undefined, and nothing read, where something else is ahead. */
  word(): string | undefined {
    return this.#isOpen && this.#lexer.kind === "word" ? this.advance() : undefined;
  }

  /** Reads these tokens if the first of them is ahead; false where one is missing. */
  skip(...tokens: readonly string[]): boolean {
    for (const token of tokens) {
      if (this.#ahead !== token) return false;
      this.advance();
    }
    return true;
  }

  /** Reads up to and including the next such word outside parentheses. */
  skipTo(word: string): boolean {
    while (this.#isOpen) {
      const isOutside = this.depth === 0;
      if (this.advance() === word && isOutside) return true;
    }
    return false;
  }

  /** Whether the word is anywhere in what is ahead; reads all of it. */
  hasWord(word: string): boolean {
    while (this.#isOpen) if (this.advance() === word) return true;
    return false;
  }

  /** Reads a name with its qualifiers, as `qualifiedName` writes it; undefined where there is none, or one that only the parser can spell. */
  name(part: "whole" | "without last" = "whole"): string | undefined {
    const names: string[] = [];
    do {
      const name = this.#plainName();
      if (name === undefined) return undefined;
      names.push(name);
    } while (this.skip("."));
    return qualifiedName(part === "whole" ? names : names.slice(0, -1));
  }

  #plainName(): string | undefined {
    const { kind, text } = this.#lexer;
    if (!this.#isOpen || (kind !== "word" && kind !== "quoted")) return undefined;
    const name = kind === "word" ? foldCase(text) : unquote(text);
    if (name === undefined || isCutByServer(name)) return undefined;
    this.advance();
    this.#afterDot = false;
    return name;
  }

  #read(): void {
    this.#isOpen = this.#lexer.next();
    const { kind } = this.#lexer;
    this.#ahead =
      !this.#isOpen || (kind !== "word" && kind !== "symbol") ? "" : this.#lexer.text.toUpperCase();
  }
}

/** NAMEDATALEN - 1: of longer names the server keeps no more than this. */
const MAX_NAME_BYTES = 63;

function isCutByServer(name: string): boolean {
  return name.length * 3 > MAX_NAME_BYTES && Buffer.byteLength(name) > MAX_NAME_BYTES;
}

/** PostgreSQL folds ASCII letters only. */
function foldCase(word: string): string {
  return word.replace(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

/** `U&"…"` is left to the parser. */
function unquote(quoted: string): string | undefined {
  return quoted.startsWith('"') ? quoted.slice(1, -1).replaceAll('""', '"') : undefined;
}
