import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { exitCodes } from "../../src/cli/exit-code.ts";
import { root } from "./manifests.ts";
import { finalExits } from "./pod-rules.ts";

const infra = join(root, "infra");
const page = readFileSync(join(infra, "kubernetes.md"), "utf8");
const blocks = [...page.matchAll(/^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm)].map(
  ([, language = "", words = "", text = ""]) => ({ language, words, text }),
);

/** Whether these lines stand in a text, one after the other, at whatever depth. */
function stands(lines: readonly string[], text: string): boolean {
  const all = text.split("\n");
  return all.some((first, at) => {
    const depth = first.length - first.trimStart().length;
    const cut = all.slice(at, at + lines.length).map((line) => line.slice(depth));
    return cut.join("\n") === lines.join("\n");
  });
}

describe("infra/kubernetes.md", () => {
  const copied = blocks.filter(({ words }) => words.startsWith("of="));

  test.for(
    copied.map(({ words, text }, index) => [`${words.slice(3)}, block ${index}`, words, text] as const),
  )("says what stands in %s", ([, words, text]) => {
    const file = readFileSync(join(infra, "kubernetes", words.slice("of=".length)), "utf8");
    expect(stands(text.trimEnd().split("\n"), file)).toBe(true);
  });

  test("has no YAML and no JSON of its own, but what a test renders", () => {
    const typed = blocks.filter(({ language }) => language === "yaml" || language === "json");
    expect(typed.filter(({ words }) => !/^(of|chart)=/.test(words))).toEqual([]);
    expect(copied.length).toBeGreaterThan(15);
  });

  test("leads to every folder of manifests, and to nothing that is not there", () => {
    const links = [...page.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, link = ""]) => link);
    expect(links.filter((link) => !existsSync(join(infra, link)))).toEqual([]);
    const folders = readdirSync(join(infra, "kubernetes"), { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && entry.name !== "settings")
      .map(({ name }) => `kubernetes/${name}`);
    expect(folders.filter((folder) => !links.includes(folder))).toEqual([]);
  });

  test("its headings are there for its own links", () => {
    const anchors = [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading = ""]) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\w\- ]/g, "")
        .replaceAll(" ", "-"),
    );
    const wanted = [...page.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor = ""]) => anchor);
    expect(wanted.filter((anchor) => !anchors.includes(anchor))).toEqual([]);
  });

  test("its commands name folders that exist", () => {
    const commands = blocks.filter(({ language }) => language === "sh").map(({ text }) => text);
    const named = commands.flatMap((text) => [...text.matchAll(/infra\/[\w/-]+/g)].map(([path]) => path));
    expect(named.length).toBeGreaterThan(4);
    expect(named.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  test("says of each exit code what podFailurePolicy makes of it", () => {
    const rows = [...page.matchAll(/^\| ([\d, ]+) \| [^|]+ \| ([^|]+) \|/gm)].flatMap(
      ([, codes = "", job = ""]) => codes.split(", ").map((code) => [Number(code), job.trim()] as const),
    );
    const final = rows.filter(([, job]) => job === "fails for good").map(([code]) => code);
    expect(final).toEqual(finalExits);
    const told = new Set(rows.map(([code]) => code));
    // of people at a terminal, of `plan --exit-code`, of defects; the signals are the kubelet's
    const elsewhere = [1, 10, 130, 143];
    expect(
      Object.keys(exitCodes)
        .map(Number)
        .filter((code) => !told.has(code)),
    ).toEqual(elsewhere);
  });
});
