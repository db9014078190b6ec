import { describe, expect, test } from "vitest";
import { parseArgv } from "../../src/cli/argv.ts";

describe("a program in a text", () => {
  test.for([
    ["pg_dump", ["pg_dump"]],
    ["  pg_dump  --format=custom\t--file=/b/x ", ["pg_dump", "--format=custom", "--file=/b/x"]],
    ['["sh", "-c", "pg_dump | gzip > \\"a b\\""]', ["sh", "-c", 'pg_dump | gzip > "a b"']],
    ['  ["a", ""]', ["a", ""]],
  ] as const)("is %s", ([text, argv]) => {
    expect(parseArgv(text)).toEqual(argv);
  });

  test.for([
    "",
    " ",
    "pg_dump > file",
    "a | b",
    "a; b",
    "echo $HOME",
    "echo `id`",
    'echo "a b"',
    "echo 'a'",
    "ls *",
    "~/bin/dump",
    "a\nb",
    "a\\ b",
    "[]",
    '[""]',
    '["a", 1]',
    '["a"',
    '["a\\u0000b"]',
    "a\0b",
  ])("is not guessed from %j", (text) => {
    expect(parseArgv(text)).toBeUndefined();
  });
});
