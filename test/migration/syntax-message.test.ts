import { expect, test } from "vitest";
import { syntaxMessage } from "../../src/migration/syntax-message.ts";

test.for([
  ['syntax error at or near "WHERE"', 'syntax error at or near "WHERE"'],
  ['syntax error at or near ")"', 'syntax error at or near ")"'],
  ['syntax error at or near "users_2"', 'syntax error at or near "users_2"'],
  ["syntax error at end of input", "syntax error at end of input"],
  [`syntax error at or near "'a secret'"`, "syntax error"],
  [`syntax error at or near "$q$a secret$q$"`, "syntax error"],
  [`unterminated quoted string at or near "'a secret\nand more"`, "unterminated quoted string"],
  [`unterminated quoted identifier at or near ""a secret"`, "unterminated quoted identifier"],
  [`trailing junk after numeric literal at or near "123secret 4"`, "trailing junk after numeric literal"],
])("%s keeps names and signs only", ([message, shown]) => {
  expect(syntaxMessage(message ?? "")).toBe(shown);
});
