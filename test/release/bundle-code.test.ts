import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { bundleCode } from "../../src/release/folder/bundle-code.ts";
import { tempFolder } from "../support/release.ts";

/** A folder with these files, folders of their own included; gone when the test has ended. */
async function folderOf(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder.path, name)), { recursive: true });
    await writeFile(join(folder.path, name), text);
  }
  return folder.path;
}

/** The bundle of `1_a.up.ts` in the folder `m` among these files. */
async function bundle(
  text: string,
  beside: Readonly<Record<string, string>> = {},
  path = "1_a.up.ts",
): Promise<string> {
  const folder = await folderOf({ ...beside, [`m/${path}`]: text });
  const sourceUrl = pathToFileURL(join(folder, "m")).href;
  return String(await bundleCode({ path, bytes: Buffer.from(text), sourceUrl }));
}

const program = `
import { readFileSync } from "node:fs";
import { name } from "../lib/name.ts";
import { old } from "old-package";
type Given = { sql(text: string, values: readonly unknown[]): Promise<unknown> };
export default async function up({ sql }: Given): Promise<void> {
  await sql("select $1", [name, old(), typeof readFileSync]);
}
`;
const beside = {
  "lib/name.ts": 'export const name: string = "ünïcode";\n',
  "node_modules/old-package/package.json": '{ "name": "old-package", "main": "index.js" }',
  "node_modules/old-package/index.js":
    'const path = require("path");\nexports.old = () => path.basename("/a/b");\n',
};

describe("a program's bundle", () => {
  test("is one module without imports but Node's own, and works from memory", async () => {
    const text = await bundle(program, beside);
    expect(text.match(/^import .*$/gm)).toEqual(['import { readFileSync } from "node:fs";']);
    expect(text).toContain("ünïcode");
    const module: { default(given: object): Promise<void> } = await import(
      `data:text/javascript;base64,${Buffer.from(text).toString("base64")}`
    );
    const sent: unknown[] = [];
    await module.default({ sql: async (...args: unknown[]) => void sent.push(args) });
    expect(sent).toEqual([["select $1", ["ünïcode", "b", "function"]]]);
  });

  test("does not take MongoDB's driver, and says where its values are to be had", async () => {
    const made = bundle('import { ObjectId } from "mongodb";\nexport default () => void new ObjectId();', {
      "node_modules/mongodb/package.json": '{ "name": "mongodb", "main": "index.js" }',
      "node_modules/mongodb/index.js":
        'try { require("kerberos"); } catch {}\nexports.ObjectId = class {};\n',
    });
    await expect(made).rejects.toMatchObject({
      code: "FORMAT",
      message: expect.stringContaining('imports "kerberos"') as string,
      hint: expect.stringContaining('from "bson"') as string,
    });
  });

  test("is the same wherever its folder is, and whatever else lies there", async () => {
    const [first, second] = [
      await bundle(program, beside),
      await bundle(program, {
        ...beside,
        "m/tsconfig.json": '{ "compilerOptions": { "target": "es5", "jsx": "react" } }',
        "package.json": '{ "sideEffects": true }',
      }),
    ];
    expect(second).toBe(first);
    expect(first).not.toMatch(/lockkeeper-test-/);
  });

  // What was published must be the same when it is published again: another bundler is another release of ours.
  test("is pinned to the byte", async () => {
    expect(sha256Hex(await bundle(program, beside))).toBe(
      "03dbadf7e57b4778755353cbcfec4f03c7a3b1d9e3cd81d1d570d4ea50f7de89",
    );
  });

  test("of a change in what it imports is another one", async () => {
    const other = { ...beside, "lib/name.ts": 'export const name: string = "other";\n' };
    expect(await bundle(program, other)).not.toBe(await bundle(program, beside));
  });

  test.for<readonly [string, string, string, string]>([
    [
      "a syntax error",
      "export default async () => {\n  const = 1;\n};",
      "1_a.up.ts",
      "1_a.up.ts:2:9: Expected identifier",
    ],
    [
      "an import that is not there",
      'import "./nothing.ts";\nexport default () => {};',
      "1_a.up.ts",
      '1_a.up.ts:1:8: Could not resolve "./nothing.ts"',
    ],
    [
      "a package that is not installed",
      'import "no-such-package";\nexport default () => {};',
      "1_a.up.js",
      "1_a.up.js:1:8: Could not resolve",
    ],
    ["no default export", "export const up = () => {};", "1_a.up.mts", "has no default export"],
    ["types in JavaScript", "export default (a: string) => {};", "1_a.up.mjs", "1_a.up.mjs:1:18:"],
    [
      "an import from the network",
      'import "https://example.com/x.js";\nexport default () => {};',
      "1_a.up.ts",
      'imports "https://example.com/x.js"',
    ],
  ])("is refused for %s", async ([, text, path, said]) => {
    await expect(bundle(text, {}, path)).rejects.toMatchObject({
      code: "FORMAT",
      message: expect.stringContaining(said) as string,
      fields: { migration: path },
    });
  });

  test("takes one file alone where it comes from a bucket", async () => {
    const from = (text: string) =>
      bundleCode({ path: "1_a.up.ts", bytes: Buffer.from(text), sourceUrl: "s3://bucket/m" });
    expect(String(await from("export default async () => {};"))).toContain("export {");
    await expect(from('import "./b.ts";\nexport default async () => {};')).rejects.toMatchObject({
      code: "FORMAT",
      hint: expect.stringContaining("publish it from there") as string,
    });
  });

  test("has the ceiling of every other body", async () => {
    const text = `export default () => ${JSON.stringify("x".repeat(17 * 1024 * 1024))};`;
    await expect(bundle(text)).rejects.toMatchObject({ code: "TOO_LARGE" });
  });
});
