import { expect, test } from "vitest";

import { testTitles } from "../support/titles.ts";

test("each of the 48 attacks has a test whose title begins with its number", () => {
  // roots and keyless identities are tested beside what reads them
  const titles = [
    ...testTitles("test/attack/*.test.ts"),
    ...testTitles("test/release/*.test.ts").filter((title) => title.startsWith("attack ")),
  ];
  const proven = new Set(titles.map((title) => Number(/^(?:attack )?(\d{1,2}):? /.exec(title)?.[1])));
  const missing = Array.from({ length: 48 }, (_, index) => index + 1).filter((number) => !proven.has(number));
  expect(missing).toEqual([]);
});
