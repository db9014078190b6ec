/** What only a shell gives a meaning to; passed on as it is, it would surprise. */
const shellWords = /["'`$|&;<>()*?{}[\]\\~#\n\r]/;

/**
 * The program and its arguments that a text stands for: words between spaces, or a JSON list of them. There is no
 * shell and no quoting: whoever wants a shell names it, `["sh", "-c", "…"]`.
 *
 * @returns undefined for what could be meant in more than one way
 */
export function parseArgv(text: string): readonly [string, ...string[]] | undefined {
  const words = text.trimStart().startsWith("[") ? jsonWords(text) : plainWords(text);
  const [program, ...rest] = words ?? [];
  if (program === undefined || program === "" || text.includes("\0")) return undefined;
  return [program, ...rest];
}

function plainWords(text: string): readonly string[] | undefined {
  return shellWords.test(text) ? undefined : text.trim().split(/\s+/);
}

function jsonWords(text: string): readonly string[] | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(value)) return undefined;
  const words = value.filter((word: unknown) => typeof word === "string" && !word.includes("\0"));
  return words.length === value.length ? words : undefined;
}
