import { formatError, lineAt } from "./format-error.ts";
import { quote } from "./folder-problem.ts";

/**
 * Puts the values of `${name}` into a script's text, as Flyway does (PlaceholderReplacingReader.java): everywhere, also in
 * comments and quotes; names without regard to case; a value is not looked at again. Of two dollars in a row the second
 * begins no placeholder: `$${name}` stays as it is.
 *
 * @throws RunnerError `FORMAT` — a placeholder without a value, or without its closing brace
 */
export function replacePlaceholders(
  text: string,
  file: string,
  given: Readonly<Record<string, string>>,
): { readonly text: string; readonly warnings: readonly string[] } {
  const values = new Map(Object.entries(given).map(([name, value]) => [name.toLowerCase(), value]));
  values.set("flyway:filename", file);
  const warnings: string[] = [];
  let result = "";
  let copied = 0;
  for (let at = text.indexOf("$"); at >= 0 && at + 1 < text.length; at = text.indexOf("$", at)) {
    if (text[at + 1] !== "{") {
      if (warnings.length === 0) warnings.push(...warnOfKept(text, at, file, values));
      at += 2;
      continue;
    }
    const end = text.indexOf("}", at);
    if (end < 0)
      throw formatError(file, lineAt(text, at), 'the placeholder that begins here has no "}"', "close it");
    const name = text.slice(at + 2, end);
    const value = values.get(name.toLowerCase());
    if (value === undefined) throw noValue(file, lineAt(text, at), name);
    result += text.slice(copied, at) + value;
    at = end + 1;
    copied = at;
  }
  return { text: result + text.slice(copied), warnings };
}

/** `$${name}`, where `name` has a value: likely not what was meant. */
function warnOfKept(
  text: string,
  at: number,
  file: string,
  values: ReadonlyMap<string, string>,
): readonly string[] {
  const name = /^\$\$\{([^}]*)\}/.exec(text.slice(at, at + MAX_NAME))?.[1];
  if (name === undefined || !values.has(name.toLowerCase())) return [];
  return [
    `${quote(file)}:${lineAt(text, at)}: after a second dollar \${${name}} is no placeholder, for Flyway neither; a tag such as $body$ before it would help`,
  ];
}

/** Longer names are not looked for where only a warning depends on it. */
const MAX_NAME = 200;

function noValue(file: string, line: number, name: string): Error {
  const what = name.length > 60 ? `${name.slice(0, 60)}…` : name;
  return formatError(
    file,
    line,
    `the placeholder ${quote(what)} has no value`,
    `give it one with --placeholder, or let a ${quote(`${file}.conf`)} say placeholderReplacement=false`,
  );
}
