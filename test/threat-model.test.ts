import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

import { describe, expect, test } from "vitest";

import { testTitles } from "./support/titles.ts";

const page = readFileSync(path.join(import.meta.dirname, "../infra/threat-model.md"), "utf8");
const named = [...page.matchAll(/`([\w/.-]+\.test\.ts) › ([^`]+)`/g)].map(([, file = "", title = ""]) => ({
  file,
  title,
}));

describe("the threat model", () => {
  test("names only tests that there are, by their titles", () => {
    expect(named.length).toBeGreaterThan(80);
    const gone = named.filter(
      ({ file, title }) =>
        !existsSync(path.join(import.meta.dirname, file)) || !testTitles(`test/${file}`).includes(title),
    );
    expect(gone).toEqual([]);
  });

  test("has all of the 48 attacks, each with its test", () => {
    const proven = new Set(named.map(({ title }) => Number(/(?:^|attack )(\d{1,2}):? /.exec(title)?.[1])));
    const missing = Array.from({ length: 48 }, (_, index) => index + 1).filter(
      (number) => !proven.has(number),
    );
    expect(missing).toEqual([]);
  });

  test("says of each attacker what stops them, and by which test or why by none", () => {
    const sections = page
      .split(/^### /m)
      .slice(1)
      .map((text) => text.split(/^## /m)[0] ?? "");
    expect(sections.map((text) => /^A(\d+) /.exec(text)?.[1])).toEqual(
      Array.from({ length: 20 }, (_, index) => String(index + 1)),
    );
    const bare = sections.filter((text) => !text.includes(" › ") && !text.includes("Out of scope"));
    expect(bare.map((text) => text.split("\n")[0])).toEqual([]);
  });
});
