/** What a comment tells Atlas: `-- atlas:txmode none`. */
export interface AtlasDirective {
  readonly name: string;
  /** what follows the name, blanks before it taken off; empty where there is nothing */
  readonly argument: string;
  /** from 1 */
  readonly line: number;
  /** what stands before `atlas:` */
  readonly prefix: string;
}

/** The directive at the start of a text, on its first line (sql/migrate/dir.go). */
export function atlasDirective(text: string, line = 1): AtlasDirective | undefined {
  const [, prefix = "", name, argument = ""] = /^([ -~]*)atlas:(\w+)(?: +([ -~]*))?/.exec(text) ?? [];
  return name === undefined ? undefined : { name, argument, line, prefix };
}

/**
 * The directives that hold for a whole file: those of the comment lines at its very beginning, where an empty line follows
 * these. A file of comments alone needs none, but the line end of its last. Lines that end in CRLF make no empty line, for Atlas.
 */
export function fileDirectives(text: string): readonly AtlasDirective[] {
  const { found, rest } = leadingDirectives(text);
  return rest === "" || /^[ \t]*\n/.test(rest) ? found : [];
}

/** The directives of the comment lines at the very beginning, and what follows these lines. */
export function leadingDirectives(text: string): {
  readonly found: readonly AtlasDirective[];
  readonly rest: string;
} {
  const found: AtlasDirective[] = [];
  let rest = text;
  for (let line = 1; rest.startsWith("--") || rest.startsWith("#"); line++) {
    const end = rest.indexOf("\n");
    const directive = atlasDirective((end < 0 ? rest : rest.slice(0, end)).trim(), line);
    if (directive !== undefined) found.push(directive);
    if (end < 0) break;
    rest = rest.slice(end + 1);
  }
  return { found, rest };
}

/** Every comment line that looks like a directive, wherever it stands. */
export function allDirectives(text: string): readonly AtlasDirective[] {
  if (!text.includes("atlas:")) return [];
  return text.split(/\r\n|\r|\n/).flatMap((line, index) => {
    if (!/^\s*(?:--|#)[ -~]*atlas:/.test(line)) return [];
    return atlasDirective(line.trim(), index + 1) ?? [];
  });
}
