/** What goose sends in one direction. */
export interface GooseSection {
  /** empty lines, as many as stand before its annotation in the file, then its lines; each ends with LF */
  readonly text: string;
  readonly statements: readonly GooseStatement[];
}

/** What goose sends as one statement: a range of a section's text (UTF-16 indexes), with white space around. */
export interface GooseStatement {
  readonly start: number;
  readonly end: number;
}

/** Puts the lines of one direction together, as they are and where they are. */
export class GooseSectionBuilder {
  readonly #pieces: string[];
  readonly #statements: GooseStatement[] = [];
  #length: number;
  #start: number | undefined;
  #unfinished: number | undefined;
  #omitted = 0;

  /** @param line - the one of its annotation */
  constructor(line: number) {
    this.#pieces = ["\n".repeat(line - 1)];
    this.#length = line - 1;
  }

  /** Whether a statement has begun, be it with white space. */
  get isInStatement(): boolean {
    return this.#start !== undefined;
  }

  /** Line of the first text of a statement that has no end yet. */
  get unfinished(): number | undefined {
    return this.#unfinished;
  }

  /** A line that is no part of a statement: an annotation, a comment, nothing. */
  addBetween(line: string): void {
    this.#push(`${line}\n`);
  }

  /** @param number - of the line, unless it is blank */
  addToStatement(line: string, number?: number): void {
    this.#start ??= this.#length;
    this.#unfinished ??= number;
    this.#push(`${line}\n`);
  }

  /** An annotation within a statement, perhaps within the body of a function: goose takes it out. */
  omit(line: string): void {
    if (this.#unfinished !== undefined) {
      this.#omitted++;
      return;
    }
    // nothing but white space before it, so it can stay where it is
    this.#push(`${line}\n`);
    this.#start = this.#length;
  }

  endStatement(): void {
    if (this.#start !== undefined) this.#statements.push({ start: this.#start, end: this.#length });
    this.#start = undefined;
    this.#unfinished = undefined;
    // what follows stands in its own lines again
    this.#push("\n".repeat(this.#omitted));
    this.#omitted = 0;
  }

  end(): GooseSection {
    return { text: this.#pieces.join(""), statements: this.#statements };
  }

  #push(piece: string): void {
    this.#pieces.push(piece);
    this.#length += piece.length;
  }
}
