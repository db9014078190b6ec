import { SqlLexer } from "../../../migration/sql-lexer.ts";

/**
 * Walks through one statement that PostgreSQL's parser has taken, for the names in it. They are given as they are
 * written: the database is asked what they stand for.
 */
export class StatementReader {
  readonly #lexer: SqlLexer;
  /** the word ahead in upper case, or the symbol; empty for all else, quoted names too */
  #ahead = "";

  constructor(sql: string) {
    this.#lexer = new SqlLexer(sql);
    this.#read();
  }

  get isOpen(): boolean {
    return this.#lexer.kind !== "end";
  }

  isAt(token: string): boolean {
    return this.#ahead === token;
  }

  /** Reads these tokens, as far as they are ahead; false at the first that is not. */
  skip(...tokens: readonly string[]): boolean {
    for (const token of tokens) {
      if (this.#ahead !== token) return false;
      this.#read();
    }
    return true;
  }

  /** Reads what stands in parentheses, if one opens ahead. */
  skipParentheses(): void {
    if (!this.isAt("(")) return;
    let depth = 0;
    do {
      if (this.isAt("(")) depth += 1;
      if (this.isAt(")")) depth -= 1;
      this.advance();
    } while (this.isOpen && depth > 0);
  }

  advance(): void {
    this.#read();
  }

  /** Reads a name with its qualifiers; undefined where there is none, or one (`U&"…"`) that only a parser can spell. */
  name(): string | undefined {
    let name = "";
    for (;;) {
      const { kind, text } = this.#lexer;
      if (kind !== "word" && !(kind === "quoted" && text.startsWith('"'))) return undefined;
      name += text;
      this.#read();
      if (!this.isAt(".")) return name;
      name += ".";
      this.#read();
    }
  }

  #read(): void {
    const isOpen = this.#lexer.next();
    const { kind } = this.#lexer;
    this.#ahead = isOpen && (kind === "word" || kind === "symbol") ? this.#lexer.text.toUpperCase() : "";
  }
}
