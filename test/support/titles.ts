import { globSync, readFileSync } from "node:fs";
import path from "node:path";

/**
 * What tests are called, as their files write it: `%s` stands where each row of a table puts its own word, and a row that
 * begins with an attack's number counts by itself.
 */
export function testTitles(pattern: string): readonly string[] {
  const root = path.join(import.meta.dirname, "../..");
  return globSync(pattern, { cwd: root })
    .toSorted()
    .flatMap((file) => titlesOf(readFileSync(path.join(root, file), "utf8")));
}

const called = /\btest(?:\.\w+)?\(\s*("(?:[^"\\\n]|\\.)*")/g;
/** `test.for([…])("…"` */
const ofTable =
  /\)\(\s*("(?:[^"\\\n]|\\.)*%[sjdo](?:[^"\\\n]|\\.)*"|"(?:[^"\\\n]|\\.)*"(?=,\s*(?:async\s*)?\())/g;
const numberedRow = /\[\s*("(?:attack )?\d{1,2}:? (?:[^"\\\n]|\\.)*")/g;

function titlesOf(text: string): readonly string[] {
  return [called, ofTable, numberedRow].flatMap((pattern) =>
    [...text.matchAll(pattern)].map(([, title = '""']) => String(JSON.parse(title))),
  );
}
