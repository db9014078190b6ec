import { globSync, readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { traits } from "../src/error.ts";
import { missingEntries } from "./parts/complete-lock.ts";
import { checkImports } from "./support/imports.ts";

const root = path.join(import.meta.dirname, "..");
const sources = globSync("src/**/*.ts", { cwd: root }).toSorted();
const read = (file: string) => readFileSync(path.join(root, file), "utf8");

describe("imports", () => {
  test("follow the rooms' directions, and each package has one owner", async () => {
    const { files, violations } = await checkImports();
    expect(violations).toEqual([]);
    // A cruiser that can read no TypeScript finds no violation either.
    expect(files.toSorted()).toEqual(sources);
  });

  test("rules know every room of src, and so does its map", () => {
    const entries = readdirSync(path.join(root, "src")).filter((entry) => entry !== "README.md");
    const rules = read(".dependency-cruiser.cjs");
    // The first two may import everything, the others nothing.
    const free = ["bin", "index.ts", "error.ts", "build.ts", "growing-bytes.ts", "together.ts"];
    const hasRule = (entry: string) => new RegExp(`^  "?${entry}"?: `, "m").test(rules);
    expect(entries.filter((entry) => !free.includes(entry) && !hasRule(entry))).toEqual([]);
    const map = read("src/README.md");
    expect(entries.filter((entry) => !map.includes(`\`${entry}`))).toEqual([]);
  });
});

describe("source files", () => {
  test("are at most 400 lines long", () => {
    const long = sources.filter((file) => read(file).split("\n").length > 401);
    expect(long).toEqual([]);
  });

  test("have names that say what is inside", () => {
    const vague = /(^|[-/])(utils?|common|helpers?|misc|shared|types|models|base|manager|service)([-.]|$)/;
    expect(sources.filter((file) => vague.test(file))).toEqual([]);
  });

  test("carry no licence heads and no line numbers of other files", () => {
    const found = sources.filter((file) => /Licensed under|SPDX-License|[a-z]\.ts:\d+/.test(read(file)));
    expect(found).toEqual([]);
  });
});

describe("documentation", () => {
  const exported =
    /^export (?:declare )?(?:async )?(?:abstract )?(?:function|const|class|interface|type) (\w+)/;

  test("stands above every export", () => {
    const bare = sources.flatMap((file) => {
      const lines = read(file).split("\n");
      return lines.flatMap((line, at) => {
        const name = exported.exec(line)?.[1];
        if (name === undefined || lines[at - 1]?.trim().endsWith("*/") === true) return [];
        // The second and later signatures of an overloaded function share the first one's comment.
        const isOverload = lines.slice(0, at).some((earlier) => exported.exec(earlier)?.[1] === name);
        // A flag of the command line says what it is to the user, in its `text`.
        const hasText = lines.slice(at, at + 4).some((near) => /\btext: "/.test(near));
        return isOverload || hasText ? [] : [`${file} ${name}`];
      });
    });
    expect(bare).toEqual([]);
  });

  test("names only error codes that exist", () => {
    const unknown = sources.flatMap((file) =>
      throwsOf(read(file)).flatMap((text) =>
        [...text.matchAll(/`([A-Z][A-Z0-9_]+)(…?)`/g)]
          .filter(([, code = "", rest]) =>
            rest === "" ? !(code in traits) : !Object.keys(traits).some((known) => known.startsWith(code)),
          )
          .map(([, code]) => `${file} ${code}`),
      ),
    );
    expect(unknown).toEqual([]);
  });

  test("says with which code a function throws", () => {
    const vague = sources.flatMap((file) =>
      throwsOf(read(file))
        .filter((text) => text.startsWith("RunnerError") && !/`|\{@link|codes of/.test(text))
        .map((text) => `${file} ${text}`),
    );
    expect(vague).toEqual([]);
  });
});

describe("the package", () => {
  test("runs on Node 24, also where the machine's own is older", () => {
    expect(process.version).toMatch(/^v24\./);
  });

  test("has a menu of at most twelve scripts", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    expect(Object.keys(scripts).length).toBeLessThanOrEqual(12);
  });

  test("pins every dependency", () => {
    const manifest = JSON.parse(read("package.json")) as Record<string, Record<string, string>>;
    const versions = { ...manifest["dependencies"], ...manifest["devDependencies"] };
    expect(Object.entries(versions).filter(([, version]) => !/^(npm:[a-z-]+@)?\d/.test(version))).toEqual([]);
  });

  test("has lock files that `npm ci` takes on every platform", () => {
    for (const file of ["package-lock.json", "test/parts/npm/package-lock.json"]) {
      const lock = JSON.parse(read(file)) as Parameters<typeof missingEntries>[0];
      // `node test/parts/complete-lock.ts` adds them, and says why they can be missing.
      expect(Object.keys(missingEntries(lock)), file).toEqual([]);
    }
  });

  test("exports exactly what is written down here", async () => {
    const index = read("src/index.ts");
    const names = [...index.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, list = ""]) =>
      list.split(",").map((name) =>
        name
          .replace(/^\s*type /, "")
          .trim()
          .replace(/^.* as /, ""),
      ),
    );
    expect(index).not.toMatch(/^export \*/m);
    await expect(names.filter(Boolean).toSorted().join("\n")).toMatchFileSnapshot("public-exports.txt");
  });
});

/** Each `@throws` of a file, with its continuation lines, in one line. */
function throwsOf(text: string): string[] {
  return [...text.matchAll(/@throws ([\s\S]*?)(?=\n\s*\*\s*(?:@|\/|\n)|\*\/)/g)].map(([, found = ""]) =>
    found.replace(/\n\s*\*\s*/g, " ").trim(),
  );
}
