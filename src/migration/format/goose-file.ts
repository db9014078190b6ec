import type { RunnerError } from "../../error.ts";
import { substitute } from "./env-substitution.ts";
import type { SubstitutionOptions } from "./env-substitution.ts";
import { formatError } from "./format-error.ts";
import { GooseSectionBuilder } from "./goose-section.ts";
import type { GooseSection } from "./goose-section.ts";

/** A goose file, taken apart by goose's own rules. */
export interface GooseFile {
  readonly up: GooseSection;
  readonly down: GooseSection | undefined;
  /** false where NO TRANSACTION stands anywhere in the file */
  readonly isInTransaction: boolean;
  readonly warnings: readonly string[];
}

/**
 * Takes a file apart line by line, as goose does (internal/sqlparser/parser.go of v3.29.0).
 *
 * @throws RunnerError `FORMAT` - goose would not take it in one direction or the other, or would drop a line of it
 */
export function readGooseFile(
  text: string,
  path: string,
  variables: SubstitutionOptions["variables"] | undefined,
): GooseFile {
  const reader = new GooseReader(path, variables);
  const lines = text.split("\n");
  // what follows the last line end is no line
  if (lines.at(-1) === "") lines.pop();
  for (const line of lines) reader.add(line.endsWith("\r") ? line.slice(0, -1) : line);
  return reader.end();
}

/** Go's white space: JavaScript's with U+0085 and without U+FEFF. */
const SPACE = "[\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const BLANK = new RegExp(`^${SPACE}*$`);
const COMMENT = new RegExp(`^${SPACE}*--`);
const COMMENT_WORD = new RegExp(`(?:^|${SPACE})--`);
const SEMICOLON_LAST = new RegExp(`;${SPACE}*$`);
const HEADER = /^[ \t]*--[ \t]*lockkeeper\b/i;

const annotations = [
  "Up",
  "Down",
  "StatementBegin",
  "StatementEnd",
  "NO TRANSACTION",
  "ENVSUB ON",
  "ENVSUB OFF",
] as const;
type Annotation = (typeof annotations)[number];

class GooseReader {
  readonly #path: string;
  readonly #variables: SubstitutionOptions["variables"] | undefined;
  readonly #warnings: string[] = [];
  readonly #unset = new Set<string>();
  #up: GooseSectionBuilder | undefined;
  #down: GooseSectionBuilder | undefined;
  #line = 0;
  /** line of the StatementBegin that has no end yet */
  #block: number | undefined;
  /** a block without a statement was closed: goose drops the next line that is not empty nor a comment */
  #dropsNext = false;
  #substitutes = false;
  /** first line in which ENVSUB met a `$$` */
  #doubleDollar: number | undefined;
  #isInTransaction = true;

  constructor(path: string, variables: SubstitutionOptions["variables"] | undefined) {
    this.#path = path;
    this.#variables = variables;
  }

  add(line: string): void {
    this.#line++;
    const section = this.#down ?? this.#up;
    if (section === undefined && BLANK.test(line)) return;
    const isComment = COMMENT.test(line);
    if (isComment && line.includes("+goose")) this.#annotate(this.#annotation(line), line);
    else if (section === undefined) this.#refuseBeforeUp(line, isComment);
    else if ((isComment || line === "") && !section.isInStatement) section.addBetween(line);
    else if (this.#dropsNext) this.#drop(line, section);
    else this.#addToStatement(line, section);
  }

  end(): GooseFile {
    if (this.#up === undefined)
      throw this.#problem('no "-- +goose Up"', 'begin the file with a line of "-- +goose Up"', 1);
    if (this.#block !== undefined)
      throw this.#problem('"-- +goose StatementBegin" without its end', ADD_END, this.#block);
    const open = (this.#down ?? this.#up).unfinished;
    if (open !== undefined) {
      // goose says so only when it goes down, and PostgreSQL needs no semicolon there
      if (this.#down === undefined) throw this.#problem("a statement without its semicolon", FINISH, open);
      this.#warnings.push(
        `${this.#path}:${open}: a statement without its semicolon, so goose itself could not go down`,
      );
    }
    if (this.#doubleDollar !== undefined)
      this.#warnings.push(`${this.#path}:${this.#doubleDollar}: ENVSUB makes one $ of $$, as in goose`);
    if (this.#unset.size > 0) {
      const names = [...this.#unset].toSorted().join(", ");
      this.#warnings.push(
        `${this.#path}: ENVSUB puts nothing in the place of variables that are not set: ${names}`,
      );
    }
    return {
      up: this.#up.end(),
      down: this.#down?.end(),
      isInTransaction: this.#isInTransaction,
      warnings: this.#warnings,
    };
  }

  #annotation(line: string): Annotation {
    const hint = `write it at the beginning of the line, as -- +goose and one of ${annotations.join(", ")}`;
    if (line.startsWith(" ") || line.startsWith("\t"))
      throw this.#problem("white space before a goose annotation", hint);
    const name = line.replaceAll("--", "").replace("+goose", "").trim();
    const found = annotations.find((annotation) => annotation.toLowerCase() === name.toLowerCase());
    if (found === undefined) throw this.#problem("a comment with +goose in it that is no annotation", hint);
    return found;
  }

  #annotate(annotation: Annotation, line: string): void {
    const before = this.#down ?? this.#up;
    if (annotation === "Up") this.#beginUp();
    else if (annotation === "Down") this.#beginDown();
    else if (annotation === "StatementBegin") this.#beginBlock();
    else if (annotation === "StatementEnd") return this.#endBlock(line);
    else if (annotation === "NO TRANSACTION") this.#isInTransaction = false;
    else this.#beginSubstitution(annotation === "ENVSUB ON");
    const section = this.#down ?? this.#up;
    if (section === before && section?.isInStatement === true) section.omit(line);
    else section?.addBetween(line);
  }

  #beginUp(): void {
    if (this.#up !== undefined)
      throw this.#problem('a second "-- +goose Up"', "put it into a migration of its own");
    this.#up = new GooseSectionBuilder(this.#line);
  }

  #beginDown(): void {
    if (this.#up === undefined || this.#down !== undefined || this.#block !== undefined) {
      const what = this.#down === undefined ? 'before "-- +goose Up"' : "for a second time";
      throw this.#problem(
        `"-- +goose Down" ${this.#block === undefined ? what : "before the end of a statement"}`,
        "a file has one Up and after it at most one Down",
      );
    }
    if (this.#up.unfinished !== undefined)
      throw this.#problem("a statement without its semicolon", FINISH, this.#up.unfinished);
    this.#dropsNext = false;
    this.#down = new GooseSectionBuilder(this.#line);
  }

  #beginBlock(): void {
    if (this.#block !== undefined)
      throw this.#problem('a second "-- +goose StatementBegin" before the end', ADD_END);
    if (this.#up === undefined)
      throw this.#problem('"-- +goose StatementBegin" before "-- +goose Up"', "move it below");
    this.#block = this.#line;
    this.#dropsNext = false;
  }

  #endBlock(line: string): void {
    const section = this.#down ?? this.#up;
    if (this.#block === undefined || section === undefined)
      throw this.#problem(
        '"-- +goose StatementEnd" without its beginning',
        'write "-- +goose StatementBegin" before the statement',
      );
    this.#block = undefined;
    this.#dropsNext = !section.isInStatement;
    if (this.#dropsNext) return section.addBetween(line);
    section.endStatement();
    // a statement may come without its semicolon here, and PostgreSQL gets it together with the next
    section.addBetween(`; ${line}`);
  }

  #refuseBeforeUp(line: string, isComment: boolean): void {
    const hint = 'move it below a line of "-- +goose Up"';
    if (line.startsWith("\ufeff"))
      throw this.#problem("a byte order mark, which goose does not take", "save the file without it");
    if (!isComment) throw this.#problem('text before "-- +goose Up"', hint);
    if (HEADER.test(line)) throw this.#problem('a lockkeeper header before "-- +goose Up"', hint);
  }

  #drop(line: string, section: GooseSectionBuilder): void {
    if (!BLANK.test(line))
      throw this.#problem(
        "goose overlooks this line, because a StatementBegin without a statement stands before it",
        "remove the empty StatementBegin and StatementEnd; what goose has already applied lacks the line",
      );
    this.#dropsNext = false;
    section.addToStatement("");
    section.endStatement();
  }

  #addToStatement(line: string, section: GooseSectionBuilder): void {
    const text = this.#substitutes ? this.#substitute(line) : line;
    section.addToStatement(text, BLANK.test(text) ? undefined : this.#line);
    if (this.#block === undefined && endsWithSemicolon(text)) section.endStatement();
  }

  #beginSubstitution(isOn: boolean): void {
    if (isOn && this.#variables === undefined) {
      throw this.#problem(
        "ENVSUB would put this runner's environment into what somebody else wrote into the bucket",
        "publish the folder as a signed release: then it is filled in by who signs",
      );
    }
    this.#substitutes = isOn;
  }

  #substitute(line: string): string {
    const { text, unset, hasDoubleDollar } = substitute(line, {
      variables: this.#variables ?? {},
      problem: (what) =>
        this.#problem(
          `ENVSUB: ${what}`,
          "correct it, set the variable, or write -- +goose ENVSUB OFF before it",
        ),
    });
    for (const name of unset) this.#unset.add(name);
    if (hasDoubleDollar) this.#doubleDollar ??= this.#line;
    return text;
  }

  #problem(what: string, hint: string, line = this.#line): RunnerError {
    return formatError(this.#path, line, what, hint);
  }
}

const ADD_END = 'end the statement with a line of "-- +goose StatementEnd"';
const FINISH =
  'write the semicolon at the end of a line, or the statement between "-- +goose StatementBegin" and "-- +goose StatementEnd"';

/** By the last word of the line before one that begins with a comment. */
function endsWithSemicolon(line: string): boolean {
  const comment = line.search(COMMENT_WORD);
  return SEMICOLON_LAST.test(comment < 0 ? line : line.slice(0, comment));
}
