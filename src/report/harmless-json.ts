/**
 * JSON without what `JSON.stringify` lets through: characters that a terminal takes for commands, C1 and what turns a line
 * round, and the mark that GitHub takes for one in the middle of any line, `##[`.
 */
export function harmlessJson(json: string): string {
  return json.replace(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]|#(?=#\[)/gu, (character) =>
    Array.from(
      { length: character.length },
      (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`,
    ).join(""),
  );
}
