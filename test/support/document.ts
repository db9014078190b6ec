import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The fenced blocks of a document of ours, found by their language and the words after it. */
export interface Document {
  /** @throws Error where there is no such block, or more than one */
  block(language: string, words: string): string;
}

/** Reads a document; `file` is relative to the checkout. */
export function readDocument(file: string): Document {
  const text = readFileSync(join(import.meta.dirname, "..", "..", file), "utf8");
  const blocks = [...text.matchAll(/^```(\w+)([^\n]*)\n([\s\S]*?)^```$/gm)].map(
    ([, language, words = "", body = ""]) => ({ language, words: words.trim(), body }),
  );
  return {
    block(language, words) {
      const [found, second] = blocks.filter((one) => one.language === language && one.words === words);
      if (found === undefined || second !== undefined)
        throw new Error(
          `${file} has ${found === undefined ? "no" : "more than one"} block ${language} ${words}`,
        );
      return found.body;
    },
  };
}
