import { describe, expect, test } from "vitest";

import { withoutValues } from "../../../src/driver/mongodb/error-text.ts";

describe("of what a server says of a failure", () => {
  test.for([
    [
      'E11000 duplicate key error collection: shop.users index: mail_1 dup key: { mail: "a@b.example" }',
      11_000,
      "E11000 duplicate key error collection: shop.users index: mail_1",
    ],
    ["Cannot create field 'b' in element {a: \"secret\"}", 28, "Cannot create field 'b' in element {…}"],
    [
      "Failed to parse number 'secret' in $convert with no onError value",
      241,
      "Failed to parse number '…' in $convert with no onError value",
    ],
    ["index not found with name [n_1]", 27, "index not found with name 'n_1'"],
    ['bad values [1, {a: [2]}, "x"', 2, "bad values […"],
    ["Unrecognized pipeline stage name: '$foo'", 40_324, "Unrecognized pipeline stage name: '$foo'"],
  ] as const)("names stay and values go: %s", ([message, code, shown]) => {
    expect(withoutValues(message, code)).toBe(shown);
  });
});
