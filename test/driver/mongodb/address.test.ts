import { expect, test } from "vitest";
import { parseAddress } from "../../../src/driver/mongodb/address.ts";

const usage = (message: RegExp) => ({ code: "USAGE", message: expect.stringMatching(message) as string });

function refusal(url: string): unknown {
  try {
    parseAddress(url);
  } catch (error) {
    return error;
  }
  return undefined;
}

test("a URL is shown with its user, its hosts and its database, and nothing else", () => {
  const { shown, database } = parseAddress(
    "mongodb://anna:s3cr%40t@one:27017,two:27018/orders?replicaSet=rs0&authSource=admin",
  );
  expect({ shown, database }).toEqual({
    shown: "mongodb://anna@one:27017,two:27018/orders",
    database: "orders",
  });
  expect(parseAddress("mongodb+srv://cluster.example/orders").shown).toBe(
    "mongodb+srv://cluster.example/orders",
  );
});

test("golang-migrate's parameters are taken off, and its transaction mode is heard", () => {
  const url =
    "mongodb://h/d?x-advisory-locking=true&retryWrites=false&x-transaction-mode=true&x-migrations-collection=m&x-advisory-lock-timout-interval=3";
  expect(parseAddress(url)).toMatchObject({
    url: "mongodb://h/d?retryWrites=false",
    transactionMode: true,
  });
  for (const [text, mode] of [
    ["1", true],
    ["T", true],
    ["False", false],
    ["0", false],
  ] as const)
    expect(parseAddress(`mongodb://h/d?x-transaction-mode=${text}`).transactionMode).toBe(mode);
  expect(parseAddress("mongodb://h/d").transactionMode).toBeUndefined();
});

test("a URL that cannot be used says why, and not what it holds", () => {
  const cases = [
    ["mongodb://h", /names no database/],
    ["mongodb://h/", /names no database/],
    ["mongodb://h/?x-transaction-mode=true", /names no database/],
    ["mongodb://u:s3cret/x@h/d", /no database with such a name/],
    ["mongodb://u:s3c@ret@h/d", /not escaped/],
    ["mongodb://h/a%2Fb", /no database with such a name/],
    ["mongodb://h/d%zz", /does not start an escape/],
    ["mongodb://h/d?x-transaction-mode=yes", /neither true nor false/],
    ["mongodb://h/d?x-unknown=1", /unknown parameter "x-unknown"/],
    ["postgres://h/d", /not a URL/],
  ] as const;
  for (const [url, message] of cases) {
    const error = refusal(url);
    expect(error, url).toMatchObject(usage(message));
    expect(String(error)).not.toMatch(/s3c/);
  }
});
