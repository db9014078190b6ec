import { isUtf8 } from "node:buffer";
import type { RunnerError } from "../../error.ts";

/** What goes into a text. */
export interface SubstitutionOptions {
  /** values by name; absent: not set */
  readonly variables: Readonly<Record<string, string | undefined>>;
  /** makes the error of what cannot be read, or of a variable that must be set and is not; `what` tells no value */
  problem(what: string): RunnerError;
}

/** A text with values in the place of variables. */
export interface Substituted {
  readonly text: string;
  /** variables that are not set, and so left nothing */
  readonly unset: readonly string[];
  /** there was a `$$`, which gives one `$` */
  readonly hasDoubleDollar: boolean;
}

/**
 * Puts variables into a text as goose does between ENVSUB ON and OFF: `$X`, `${X}`, `${X:-if empty}`, `${X-if unset}`,
 * `${X:offset:length}` in bytes, `${X?message}`, nested too; `\$` and `$$` give `$`, `$(` stays.
 *
 * Grammar of github.com/mfridman/interpolate v0.0.2.
 */
export function substitute(text: string, options: SubstitutionOptions): Substituted {
  if (!text.includes("$")) return { text, unset: [], hasDoubleDollar: false };
  const reader = new TemplateReader(text, options);
  const template = reader.read();
  return { text: template(), unset: reader.unset, hasDoubleDollar: reader.hasDoubleDollar };
}

/** A part of a text, evaluated only where it is needed: a default's `${X?…}` is not asked for in vain. */
type Template = () => string;

const TEXT = /[^$\\}]+/y;
const IDENTIFIER = /\p{L}[\p{L}\p{N}_]*/uy;
const OPERATOR = /:-|[:?-]/y;
const RANGE = /\s*([+-]?[0-9]+)\s*(?::\s*([+-]?[0-9]+)\s*)?/y;
/** Two characters that stay, or stand for the second of them. */
const KEPT: ReadonlyMap<string, string> = new Map([
  ["\\\\", "\\\\"],
  ["\\$", "$"],
  ["$$", "$"],
  ["$(", "$("],
]);
/** Defaults within defaults: nobody writes more, and the stack has an end. */
const MAX_DEPTH = 100;
/** What an error may repeat of the file. */
const MAX_MESSAGE = 100;

class TemplateReader {
  readonly unset: string[] = [];
  hasDoubleDollar = false;
  readonly #text: string;
  readonly #options: SubstitutionOptions;
  #at = 0;
  #depth = 0;

  constructor(text: string, options: SubstitutionOptions) {
    this.#text = text;
    this.#options = options;
  }

  /** Up to the end of the text, or of the braces that it stands in. */
  read(isInBraces = false): Template {
    if (++this.#depth > MAX_DEPTH) throw this.#options.problem("variables nested too deeply");
    const parts: Template[] = [];
    const end = isInBraces ? "}" : "";
    while (this.#at < this.#text.length && this.#text[this.#at] !== end) parts.push(this.#part());
    this.#depth--;
    return () => parts.map((part) => part()).join("");
  }

  #part(): Template {
    const pair = this.#text.slice(this.#at, this.#at + 2);
    const kept = KEPT.get(pair);
    if (kept !== undefined) {
      if (pair === "$$") this.hasDoubleDollar = true;
      this.#at += 2;
      return () => kept;
    }
    if (this.#isAt("$") && pair.length === 2) return this.#expansion();
    // alone: a backslash, a closing brace outside of braces, a dollar at the very end
    const text = this.#match(TEXT)?.[0] ?? this.#text.charAt(this.#at++);
    return () => text;
  }

  #expansion(): Template {
    this.#at++;
    const isBraced = this.#isAt("{");
    if (isBraced) this.#at++;
    const name = this.#match(IDENTIFIER)?.[0];
    if (name === undefined) throw this.#options.problem("a $ without the name of a variable after it");
    if (!isBraced) return () => this.#value(name);
    const template = this.#isAt("}") ? () => this.#value(name) : this.#operation(name);
    if (!this.#isAt("}")) throw this.#options.problem(`\${${name} without its closing brace`);
    this.#at++;
    return template;
  }

  #operation(name: string): Template {
    const operator = this.#match(OPERATOR)?.[0];
    const from = this.#at;
    switch (operator) {
      case ":-": {
        const instead = this.read(true);
        return () => this.#lookUp(name) || instead();
      }
      case "-": {
        const instead = this.read(true);
        return () => this.#lookUp(name) ?? instead();
      }
      case "?": {
        this.read(true);
        const message = this.#text.slice(from, Math.min(this.#at, from + MAX_MESSAGE));
        return () => {
          const value = this.#lookUp(name);
          if (value === undefined)
            throw this.#options.problem(`the variable ${name} is not set${message && `: ${message}`}`);
          return value;
        };
      }
      case ":": {
        const [, offset, length] = this.#match(RANGE) ?? [];
        if (offset === undefined) throw this.#options.problem(`\${${name}: without a number after the colon`);
        return () => this.#piece(name, Number(offset), length === undefined ? undefined : Number(length));
      }
      default:
        throw this.#options.problem(`\${${name} is followed by none of } : :- - ?`);
    }
  }

  #value(name: string): string {
    const value = this.#lookUp(name);
    if (value === undefined) this.unset.push(name);
    return value ?? "";
  }

  /** Cut as Go cuts a string; a negative offset or length counts from the end. */
  #piece(name: string, offset: number, length: number | undefined): string {
    const bytes = Buffer.from(this.#value(name));
    const from = Math.min(Math.max(offset < 0 ? offset + bytes.length : offset, 0), bytes.length);
    const end = length === undefined ? bytes.length : length + (length < 0 ? bytes.length : from);
    const piece = bytes.subarray(from, Math.max(end, from));
    if (!isUtf8(piece)) throw this.#options.problem(`\${${name}: cuts a character in two`);
    return piece.toString();
  }

  #lookUp(name: string): string | undefined {
    const { variables } = this.#options;
    return Object.hasOwn(variables, name) ? variables[name] : undefined;
  }

  #isAt(character: string): boolean {
    return this.#text[this.#at] === character;
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text) ?? undefined;
    this.#at += found?.[0].length ?? 0;
    return found;
  }
}
