/** Where Atlas ends a statement: the range of its delimiter in the text (UTF-16 indexes). */
export interface DelimiterRange {
  readonly start: number;
  readonly end: number;
}

/** What Atlas makes of a text whose statements another delimiter than the semicolon ends. */
export interface AtlasScan {
  readonly delimiters: readonly DelimiterRange[];
  /** `DELIMITER //` commands, which are never sent */
  readonly commands: readonly DelimiterRange[];
}

/** Why Atlas does not take a text. */
export interface AtlasScanProblem {
  readonly what: string;
  /** default: what is open is to be closed */
  readonly hint?: string;
  /** UTF-16 index */
  readonly index: number;
}

/**
 * Splits a text as Atlas does for PostgreSQL (sql/migrate/lex.go), with its own idea of quotes and comments: a comment
 * without an end is none, and one after a statement's end is skipped together with the line break that ends it.
 *
 * @param start - where the first statement may begin
 * @param delimiter - the first; a `DELIMITER` command changes it
 */
export function scanAtlas(text: string, start: number, delimiter: string): AtlasScan | AtlasScanProblem {
  return new AtlasScanner(text, start, delimiter).scan();
}

/** `\n`, `\r` and `\t` are written as two characters. */
export function unescapeDelimiter(text: string): string {
  return text
    .replaceAll(String.raw`\n`, "\n")
    .replaceAll(String.raw`\r`, "\r")
    .replaceAll(String.raw`\t`, "\t");
}

const COMMAND = /delimiter ([^\n]*)/iy;
const DOLLAR_QUOTE = /\$(?:[A-Za-zÈ-ÿ_][\wÈ-ÿ]*)?\$/y;
const SPACE = /[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*/y;

class AtlasScanner {
  readonly #text: string;
  #delimiter: string;
  #at: number;
  /** where the statement at hand begins */
  #statement = 0;
  #openings: number[] = [];
  /** ends of comments that the rest of the text does not hold: looked for once */
  readonly #missing = new Set<string>();
  readonly #delimiters: DelimiterRange[] = [];
  readonly #commands: DelimiterRange[] = [];

  constructor(text: string, start: number, delimiter: string) {
    this.#text = text;
    this.#delimiter = delimiter;
    this.#at = start;
  }

  scan(): AtlasScan | AtlasScanProblem {
    this.#beginStatement();
    while (this.#at < this.#text.length) {
      const problem = this.#step();
      if (problem !== undefined) return problem;
    }
    const open = this.#openings[0];
    if (open !== undefined) return { what: 'the "(" that begins here has no end', index: open };
    this.#endLastStatement();
    return { delimiters: this.#delimiters, commands: this.#commands };
  }

  #step(): AtlasScanProblem | undefined {
    const at = this.#at;
    const text = this.#text;
    const unit = text[at] ?? "";
    if (unit === "(") this.#openings.push(this.#at++);
    else if (unit === ")") {
      if (this.#openings.pop() === undefined) return { what: 'a ")" without its "("', index: at };
      this.#at++;
    } else if (unit === "'" || unit === '"' || unit === "`") return this.#skipQuote(unit);
    else if (at === this.#statement && /^d/i.test(unit) && this.#readCommand())
      // it would stand everywhere, and nothing would ever follow it
      return this.#delimiter === ""
        ? { what: "the delimiter that is set here is empty", index: at, hint: "name one, or remove the line" }
        : undefined;
    else if (this.#openings.length === 0 && text.startsWith(this.#delimiter, at)) this.#endStatement();
    else if (unit === "$") this.#skipDollarQuote();
    else if (text.startsWith("--", at)) this.#skipComment("--", "\n");
    else if (text.startsWith("/*", at)) this.#skipComment("/*", "*/");
    else this.#at++;
    return undefined;
  }

  #beginStatement(): void {
    SPACE.lastIndex = this.#at;
    SPACE.exec(this.#text);
    this.#at = SPACE.lastIndex;
    this.#statement = this.#at;
  }

  #endStatement(): void {
    const start = this.#at;
    this.#at += this.#delimiter.length;
    this.#delimiters.push({ start, end: this.#at });
    this.#beginStatement();
  }

  /** At the end of the text a delimiter counts also where a comment before it took its line break. */
  #endLastStatement(): void {
    const start = this.#text.length - this.#delimiter.length;
    if (start >= this.#statement && this.#text.endsWith(this.#delimiter))
      this.#delimiters.push({ start, end: this.#text.length });
  }

  /** Backslashes count after `E` only, as PostgreSQL has it; a doubled quote is two strings, which ends the same. */
  #skipQuote(quote: string): AtlasScanProblem | undefined {
    const start = this.#at;
    const isEscaped = /[eE]/.test(this.#text[start - 1] ?? "");
    for (let i = start + 1; i < this.#text.length; i++) {
      if (isEscaped && this.#text[i] === "\\") i++;
      else if (this.#text[i] === quote) {
        this.#at = i + 1;
        return undefined;
      }
    }
    return { what: `the quote ${quote} that begins here has no end`, index: start };
  }

  #skipDollarQuote(): void {
    DOLLAR_QUOTE.lastIndex = this.#at;
    const tag = DOLLAR_QUOTE.exec(this.#text)?.[0];
    if (tag === undefined) {
      this.#at++;
      return;
    }
    const end = this.#text.indexOf(tag, this.#at + tag.length);
    this.#at = end < 0 ? this.#text.length : end + tag.length;
  }

  #skipComment(left: string, right: string): void {
    const end = this.#missing.has(right) ? -1 : this.#text.indexOf(right, this.#at + left.length);
    if (end < 0) {
      this.#missing.add(right);
      this.#at += left.length;
      return;
    }
    const isBeforeStatement = this.#at === this.#statement;
    this.#at = end + right.length;
    if (isBeforeStatement) this.#beginStatement();
  }

  /** MySQL's `DELIMITER //`, which Atlas understands everywhere. */
  #readCommand(): boolean {
    COMMAND.lastIndex = this.#at;
    const argument = COMMAND.exec(this.#text)?.[1]?.trim();
    const end = COMMAND.lastIndex;
    if (argument === undefined || argument === "") return false;
    const quoted = /^'(.*)'$/s.exec(argument)?.[1];
    this.#delimiter = unescapeDelimiter(quoted === undefined ? argument : quoted.replaceAll("''", "'"));
    this.#commands.push({ start: this.#at, end });
    this.#at = end;
    this.#beginStatement();
    return true;
  }
}
