/**
 * What a server says of a failure, without what it quotes of documents and commands: whatever stands in braces, brackets
 * or double quotes. Names of fields, operators and indexes, which it writes bare or in single quotes, stay.
 */
export function withoutValues(message: string, code: number | undefined): string {
  const cut = message.split(/ dup key:| failed with:? \{/)[0] ?? "";
  let text = cut.replaceAll(/"(?:[^"\\]|\\.)*"/g, '"…"');
  // What cannot be converted is quoted as it was found in a document.
  if (code !== undefined && quotesValues.has(code)) text = text.replaceAll(/'[^']*'/g, "'…'");
  // The name of an index in brackets is none of a document's values.
  text = withoutNested(text.replaceAll(/ name \[([\w.$-]+)\]/g, " name '$1'"))
    .replaceAll(/\s+/g, " ")
    .trim();
  return text.length > mostLength ? `${text.slice(0, mostLength)}…` : text;
}

/** ConversionFailure */
const quotesValues: ReadonlySet<number> = new Set([241]);
const mostLength = 300;

/** Balanced or not: after an opening bracket without its end nothing is kept. */
function withoutNested(text: string): string {
  let kept = "";
  let depth = 0;
  for (const character of text) {
    if (character === "{" || character === "[") {
      if (depth === 0) kept += `${character}…`;
      depth += 1;
    } else if (character === "}" || character === "]") {
      if (depth > 0) depth -= 1;
      if (depth === 0) kept += character;
    } else if (depth === 0) kept += character;
  }
  return kept;
}
