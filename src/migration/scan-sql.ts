import { SqlLexer } from "./sql-lexer.ts";
import type { OpenToken } from "./sql-lexer.ts";

/** A text of PostgreSQL taken apart by its lexical rules alone. */
export interface SqlScan {
  readonly statements: readonly ScannedStatement[];
  /** no quote or comment is left open */
  readonly isClosed: boolean;
  readonly open: OpenToken | undefined;
  /** false where the lexer cannot promise that PostgreSQL takes the text apart in the same way */
  readonly isSure: boolean;
  /** UTF-16 index of the first backslash outside quotes and comments: psql's commands begin so, SQL has none */
  readonly backslash: number | undefined;
}

/** One statement: from its first token to its last, without the semicolon and the comments around it. */
export interface ScannedStatement {
  /** UTF-16 index */
  readonly start: number;
  /** UTF-16 index after the last token */
  readonly end: number;
}

/**
 * Splits a text into its statements in linear time, without the parser.
 *
 * A byte order mark at the start is no part of any statement. Semicolons in parentheses (`CREATE RULE`) and in
 * `BEGIN ATOMIC … END` bodies end nothing.
 */
export function scanSql(text: string): SqlScan {
  const lexer = new SqlLexer(text, text.charCodeAt(0) === 0xfeff ? 1 : 0);
  const statements: ScannedStatement[] = [];
  const current = new StatementTracker();
  let backslash: number | undefined;
  while (lexer.next()) {
    if (lexer.kind === "symbol" && lexer.unit === BACKSLASH) backslash ??= lexer.start;
    if (lexer.kind === "symbol" && lexer.unit === SEMICOLON && current.isOutermost) {
      const ended = current.end();
      if (ended !== undefined) statements.push(ended);
    } else {
      current.add(lexer);
    }
  }
  const isBalanced = current.isOutermost;
  const last = current.end();
  if (last !== undefined) statements.push(last);
  return {
    statements,
    isClosed: lexer.open === undefined,
    open: lexer.open,
    isSure: lexer.open === undefined && lexer.isSure && isBalanced && current.isSure,
    backslash,
  };
}

/** The statement's first words in upper case, up to the first token that is not a word (a quoted name is none); 8 at most. */
export function firstWords(text: string, statement: ScannedStatement): readonly string[] {
  const lexer = new SqlLexer(text, statement.start, statement.end);
  const words: string[] = [];
  while (words.length < MAX_WORDS && lexer.next() && lexer.kind === "word")
    words.push(lexer.text.toUpperCase());
  return words;
}

/** Enough to tell `ALTER TABLE IF EXISTS ONLY` and `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS` apart. */
const MAX_WORDS = 8;

const SEMICOLON = 0x3b;
const BACKSLASH = 0x5c;
const OPENING = 0x28;
const CLOSING = 0x29;

/** `CREATE OR REPLACE FUNCTION` */
const ROUTINE_WORDS = 4;

/** The statement being read: where it began, and how deep in parentheses and blocks we are. */
class StatementTracker {
  isSure = true;
  #start = -1;
  #end = -1;
  #words: string[] = [];
  #isRoutine = false;
  #parentheses = 0;
  /** `BEGIN ATOMIC` and the `CASE`s within it, each waiting for its `END` */
  #blocks = 0;
  /** the token before the current one in a routine, where it is a word or a dot */
  #previous = "";

  get isOutermost(): boolean {
    return this.#parentheses === 0 && this.#blocks === 0;
  }

  add(lexer: SqlLexer): void {
    if (this.#start < 0) this.#start = lexer.start;
    this.#end = lexer.end;
    if (lexer.kind === "word") {
      if (this.#words.length < ROUTINE_WORDS) this.#addFirstWord(lexer.text.toUpperCase());
      if (this.#isRoutine) this.#followBlocks(lexer.text.toUpperCase());
      return;
    }
    this.#previous = lexer.kind === "symbol" && lexer.unit === DOT ? "." : "";
    if (lexer.kind !== "symbol") return;
    if (lexer.unit === OPENING) this.#parentheses++;
    else if (lexer.unit === CLOSING) {
      if (this.#parentheses === 0) this.isSure = false;
      else this.#parentheses--;
    }
  }

  end(): ScannedStatement | undefined {
    const statement = this.#start < 0 ? undefined : { start: this.#start, end: this.#end };
    this.#start = -1;
    this.#words.length = 0;
    this.#isRoutine = false;
    this.#parentheses = 0;
    this.#blocks = 0;
    this.#previous = "";
    return statement;
  }

  /** Only a function or procedure can have a body of several statements outside quotes. */
  #addFirstWord(word: string): void {
    this.#words.push(word);
    const [first, second, third, fourth] = this.#words;
    if (first !== "CREATE") return;
    const what = second === "OR" && third === "REPLACE" ? fourth : second;
    this.#isRoutine = what === "FUNCTION" || what === "PROCEDURE";
  }

  #followBlocks(word: string): void {
    const previous = this.#previous;
    this.#previous = word;
    const opensBlock = word === "ATOMIC" && previous === "BEGIN";
    const isBlockWord = this.#blocks > 0 && (word === "CASE" || word === "END");
    if (!opensBlock && !isBlockWord) return;
    // `x.end` and `AS end` are names
    if (previous === "." || previous === "AS") this.isSure = false;
    else if (word === "END") this.#blocks--;
    else this.#blocks++;
  }
}

const DOT = 0x2e;
