import { readFileSync, writeFileSync } from "node:fs";

const begin = "<!-- results: written by npm run bench -->";
const end = "<!-- end of results -->";

/** Replaces what stands between the two marks of a README. */
export function writeTables(readme: string, tables: string): void {
  const text = readFileSync(readme, "utf8");
  const [before, rest] = split(text, begin, readme);
  const [, after] = split(rest, end, readme);
  writeFileSync(readme, `${before}${begin}\n\n${tables}\n\n${end}${after}`);
}

function split(text: string, mark: string, file: string): readonly [string, string] {
  const at = text.indexOf(mark);
  if (at < 0) throw new Error(`${file} lacks the line ${mark}`);
  return [text.slice(0, at), text.slice(at + mark.length)];
}
