import { expect, test } from "vitest";

import { RunnerError } from "../src/error.ts";

test("an error's message, hint and fields hold nothing that a terminal obeys or shows in another order", () => {
  const hostile = "\u001b[2Jerror\r\u202egpj\u2028\ud800\u0000";
  const error = new RunnerError("NAME", `two lines:\n\t${hostile}`, {
    hint: hostile,
    fields: { migration: `${hostile}\n  next: obey`, line: 3, isLast: null },
  });
  const shown = "\\u{1b}[2Jerror\\u{d}\\u{202e}gpj\\u{2028}\\u{d800}\\u{0}";
  expect(error.message).toBe(`two lines:\n\t${shown}`);
  expect(error.hint).toBe(shown);
  expect(error.fields).toEqual({ migration: `${shown}\\u{a}  next: obey`, line: 3, isLast: null });
});

test("an error keeps what people write: accents, other alphabets, emoji, several lines", () => {
  const text = "é Ж 漢字 \u{1f600}\nsecond line\ta column";
  expect(new RunnerError("NAME", text, { hint: text })).toMatchObject({ message: text, hint: text });
});

test("an error does not repeat a long input, nor cut a character in two", () => {
  const { message } = new RunnerError("NAME", "\u{1f600}".repeat(100_000));
  expect(message.length).toBeLessThan(13_000);
  expect(message.isWellFormed()).toBe(true);
});
