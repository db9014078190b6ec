import { RunnerError } from "../../error.ts";

/** A database URL, taken apart: what the official driver is to read, and what golang-migrate's users wrote beside it. */
export interface Address {
  /** without password and parameters */
  readonly shown: string;
  /** without the parameters that only golang-migrate knows */
  readonly url: string;
  readonly database: string;
  /** its `x-transaction-mode`: the whole file in one transaction; undefined where the URL does not say */
  readonly transactionMode: boolean | undefined;
  /** the URL names a patience of its own */
  readonly hasSelectionTimeout: boolean;
}

/** golang-migrate's parameters. Its collections and its lock are not ours; only the transaction mode says something about how bodies run. */
const golangMigrate = new Set([
  "x-migrations-collection",
  "x-transaction-mode",
  "x-advisory-locking",
  "x-advisory-lock-collection",
  "x-advisory-lock-timeout",
  "x-advisory-lock-timeout-interval",
  // As its documentation wrote it for years.
  "x-advisory-lock-timout-interval",
]);

/** What Go's `strconv.ParseBool` takes. */
const booleans: Readonly<Record<string, boolean>> = {
  ...Object.fromEntries(["1", "t", "T", "TRUE", "true", "True"].map((text) => [text, true])),
  ...Object.fromEntries(["0", "f", "F", "FALSE", "false", "False"].map((text) => [text, false])),
};

/**
 * Reads `mongodb://user:password@host1,host2/database?…` or `mongodb+srv://…`. It may name several hosts, so it is no URL to Node.
 *
 * @throws RunnerError `USAGE` - it cannot be read, or names no database; the message never repeats it
 */
export function parseAddress(text: string): Address {
  const parts = /^(mongodb(?:\+srv)?):\/\/(?:([^@/?]*)@)?([^@/?]+)(?:\/([^?]*))?(?:\?(.*))?$/is.exec(text);
  if (parts === null)
    throw unusable("it is not a URL, or its password has special characters that are not escaped");
  const [, scheme = "", user, hosts = "", path = "", query = ""] = parts;
  const database = decode(path);
  if (database === "") throw unusable("it names no database");
  if (/[/\\. "$\0]/.test(database)) throw unusable("MongoDB has no database with such a name");
  const { kept, own } = splitParameters(query);
  const name = user?.split(":", 1)[0];
  return {
    shown: `${scheme.toLowerCase()}://${name === undefined || name === "" ? "" : `${name}@`}${hosts}/${database}`,
    url: `${scheme.toLowerCase()}://${user === undefined ? "" : `${user}@`}${hosts}/${path}${kept.length === 0 ? "" : `?${kept.join("&")}`}`,
    database,
    transactionMode: readBoolean(own.get("x-transaction-mode")),
    hasSelectionTimeout: kept.some((parameter) => /^serverSelectionTimeoutMS=/i.test(parameter)),
  };
}

function splitParameters(query: string): { kept: readonly string[]; own: ReadonlyMap<string, string> } {
  const kept: string[] = [];
  const own = new Map<string, string>();
  for (const parameter of query.split("&").filter((each) => each !== "")) {
    const [name = "", value = ""] = parameter.split("=", 2);
    if (!name.startsWith("x-")) kept.push(parameter);
    else if (golangMigrate.has(name)) own.set(name, decode(value));
    else throw unknownParameter(name);
  }
  return { kept, own };
}

function readBoolean(text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  const value = Object.hasOwn(booleans, text) ? booleans[text] : undefined;
  if (value === undefined) throw unusable("x-transaction-mode is neither true nor false");
  return value;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw unusable("it holds a % that does not start an escape");
  }
}

function unknownParameter(name: string): RunnerError {
  return new RunnerError("USAGE", `unknown parameter "${name}" in the database URL`, {
    hint: `of those that start with x- golang-migrate knows: ${[...golangMigrate].join(", ")}`,
  });
}

function unusable(why: string): RunnerError {
  return new RunnerError("USAGE", `cannot use the database URL: ${why}`, {
    hint: "write mongodb://user:password@host:27017/database, with special characters of the password percent-encoded",
  });
}
