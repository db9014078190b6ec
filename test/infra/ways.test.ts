import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

import { describe, expect, test } from "vitest";

import { testTitles } from "../support/titles.ts";

const infra = path.join(import.meta.dirname, "../../infra");
const page = readFileSync(path.join(infra, "README.md"), "utf8");
const rows = (page.split("## What you do today")[1] ?? "")
  .split("\n")
  .filter((line) => line.startsWith("| "))
  .map((line) => line.split(" | "))
  .slice(2);

/** The ways in which teams run migrations before they come to us, by the words of the page's first column. */
const ways = [
  "application at its start",
  "initContainer",
  "Job, and pods that wait",
  "Helm hooks",
  "CD tool with the database's password",
  "Argo CD",
  "operator",
  "Codefresh",
];

/** As GitHub makes a heading's address. */
const anchorsOf = (text: string): readonly string[] =>
  [...text.matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
    title
      .toLowerCase()
      .replace(/[^\w -]/g, "")
      .replaceAll(" ", "-"),
  );

describe("infra/README.md", () => {
  test("has a row for each way in which people run migrations today", () => {
    for (const way of ways) expect(rows.filter(([first = ""]) => first.includes(way))).toHaveLength(1);
  });

  test("names for each row tests that there are, by their titles", () => {
    expect(rows.length).toBeGreaterThanOrEqual(ways.length);
    for (const cells of rows) {
      const named = [...(cells.at(-1) ?? "").matchAll(/`([^`]+?) › ([^`]+)`/g)];
      expect(named.length, cells[0]).toBeGreaterThan(0);
      for (const [, file = "", title = ""] of named) expect(testTitles(`test/${file}`)).toContain(title);
    }
  });

  test("leads to files and headings that there are", () => {
    const links = [...page.matchAll(/\]\(([^)#]+)(?:#([^)]+))?\)/g)];
    expect(links.length).toBeGreaterThan(30);
    for (const [link, file = "", anchor] of links) {
      const target = path.join(infra, file);
      expect(existsSync(target), link).toBe(true);
      if (anchor !== undefined) expect(anchorsOf(readFileSync(target, "utf8")), link).toContain(anchor);
    }
  });
});
