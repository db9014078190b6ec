import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseConfig, readConfigFile } from "../../src/bin/config-file.ts";

const target = "engine: postgres, stream: orders, source: ./r, database: { urlEnv: DB }";

/** A file's text, and all that is said about it. */
const bad: readonly (readonly [string, string, readonly string[]])[] = [
  ["nothing", "", ["1:1 : expected a mapping, got null"]],
  ["a list", "- 1\n", ["1:1 : expected a mapping, got a list"]],
  ["text", "hello\n", ['1:1 : expected a mapping, got "hello"']],
  ["no targets", "version: 1\n", ["1:1 targets: missing"]],
  ["empty targets", "version: 1\ntargets: {}\n", ["2:10 targets: expected at least one target"]],
  [
    "another version",
    `version: 2\ntargets: { a: { ${target} } }\n`,
    ["1:10 version: expected 1, the version of this file's shape, got 2"],
  ],
  [
    "a broken line",
    'version: 1\ntargets: { a: "b\n',
    ['3:1 : Missing closing "quote', "3:1 : Flow map in block collection must be sufficiently"],
  ],
  ["a key twice", "version: 1\nversion: 1\ntargets: {}\n", ["2:1 : Map keys must be unique"]],
  [
    "an unknown key near a known one",
    `version: 1\nlistn: ":1"\ntargets: { a: { ${target} } }\n`,
    ["2:1 listn: unknown key; did you mean listen?"],
  ],
  [
    "an unknown key near none",
    `version: 1\ntargets:\n  a: { ${target}, limits: { patience: 1m } }\n`,
    ["3:91 targets.a.limits.patience: unknown key; known are wait, lockTimeout, statementTimeout, deadline"],
  ],
  [
    "a duration in words",
    `version: 1\ntargets:\n  orders-prod:\n    engine: postgres\n    stream: orders\n    source: ./r\n    database: { urlEnv: DB }\n    limits:\n      lockTimeout: 5s\n      wait: ten\n`,
    ['10:13 targets.orders-prod.limits.wait: expected a duration such as 10m, got "ten"'],
  ],
  [
    "a trust that is not there",
    `version: 1\ntrust: { prod: { keys: [a.pub] } }\ntargets:\n  a: { ${target}, trust: prd }\n`,
    ['4:88 targets.a.trust: "prd" is not in trust; did you mean prod?'],
  ],
  [
    "a trust without a trust section",
    `version: 1\ntargets:\n  a: { ${target}, trust: prod }\n`,
    ['3:88 targets.a.trust: "prod" is not in trust; there is no trust section'],
  ],
  [
    "a threshold in words",
    `version: 1\ntrust: { prod: { threshold: two, keys: [a.pub] } }\ntargets: { a: { ${target} } }\n`,
    ['2:29 trust.prod.threshold: expected number, got "two"'],
  ],
  [
    "a wrong name of a target",
    `version: 1\ntargets:\n  "a b": { ${target} }\n`,
    [
      '3:3 targets.a b: expected a name: up to 63 letters, digits, . _ -, the first a letter or digit, got "a b"',
    ],
  ],
  [
    "two URLs of a database",
    `version: 1\ntargets:\n  a: { engine: postgres, stream: o, source: ./r, database: { url: "postgres://u:planted-secret@h/d", urlFile: f } }\n`,
    [
      "3:60 targets.a.database: expected exactly one of url, urlFile, urlEnv, urlSecret, got keys url, urlFile",
    ],
  ],
  [
    "a URL of a database in the wrong place",
    `version: 1\ntargets:\n  a: { engine: postgres, stream: o, source: ./r, database: "postgres://u:planted-secret@h/d" }\n`,
    ["3:60 targets.a.database: expected a mapping, got another text"],
  ],
  [
    "a URL with a password where none belongs",
    `version: 1\npublicUrl: https://u:planted-secret@h\ntargets: { a: { ${target} } }\n`,
    ['2:12 publicUrl: expected an http or https URL without user, query and fragment, got "https://u:***@h"'],
  ],
];

describe("a configuration file", () => {
  test.for(bad)("is refused for %s", ([, text, expected]) => {
    const parsed = parseConfig(text);
    const told =
      parsed.kind === "config"
        ? []
        : parsed.problems.map(({ line, column, path, message }) => `${line}:${column} ${path}: ${message}`);
    expect(told).toHaveLength(expected.length);
    for (const [index, words] of expected.entries()) expect(told[index]).toContain(words);
    expect(told.join("\n")).not.toContain("planted-secret");
  });

  test("tells every problem at once, in the order of its lines, each with file, line, column and path", async () => {
    const file = await write(`version: 2
listn: ":1"
targets:
  a:
    engine: mysql
    source: ""
    limits: { wait: ten, locktimeout: 5s }
`);
    const error = await readConfigFile(file).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "CONFIG", fields: { problems: 8, line: 1, column: 10 } });
    expect(String(error).split("\n").slice(1)).toEqual([
      `  ${file}:1:10 version: expected 1, the version of this file's shape, got 2`,
      `  ${file}:2:1 listn: unknown key; did you mean listen?`,
      `  ${file}:5:5 targets.a.stream: missing`,
      `  ${file}:5:5 targets.a.database: missing`,
      `  ${file}:5:13 targets.a.engine: expected postgres or mongodb, got "mysql"`,
      `  ${file}:6:13 targets.a.source: expected text, not nothing, got ""`,
      `  ${file}:7:21 targets.a.limits.wait: expected a duration such as 10m, got "ten"`,
      `  ${file}:7:26 targets.a.limits.locktimeout: unknown key; did you mean lockTimeout?`,
    ]);
  });

  test("that is not there is named with the reason", async () => {
    await expect(readConfigFile("no-such-file.yaml")).rejects.toMatchObject({
      code: "CONFIG",
      message: "no-such-file.yaml cannot be read (ENOENT)",
    });
  });

  test("with aliases that multiply without end is refused", () => {
    const bomb = [
      "a: &a [x,x,x,x,x,x,x,x,x,x]",
      ..."bcdefgh"
        .split("")
        .map((name, at) =>
          `${name}: &${name} [${"abcdefg"[at]}]`.replace(
            /\[(.)\]/,
            (_, one: string) => `[${Array(10).fill(`*${one}`).join(",")}]`,
          ),
        ),
    ];
    expect(parseConfig(`${bomb.join("\n")}\n`)).toMatchObject({
      kind: "problems",
      problems: [{ line: 1, column: 1 }],
    });
  });
});

async function write(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-config-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, "lockkeeper.yaml");
  await writeFile(file, text);
  return file;
}
