import { RunnerError } from "../error.ts";
import { parseDuration } from "../migration/duration.ts";
import { isVersion } from "../migration/version.ts";
import type { Variables } from "./context.ts";
import { parseCount } from "./flag.ts";

/** What the variables of the usual container script around golang-migrate ask for. */
export interface ScriptWish {
  readonly database: string;
  /** golang-migrate's own table, where the URL names one */
  readonly table: string | undefined;
  /** milliseconds; undefined where the URL does not say */
  readonly statementTimeoutMs: number | undefined;
  /** folder or URL of the migrations */
  readonly source: string;
  /** undefined: all there are */
  readonly version: string | undefined;
  readonly retries: number;
  /** milliseconds between two tries */
  readonly intervalMs: number;
}

/** Where images that carry their migrations have them. */
const usualFolder = "/migrations";
/** As long as a database in the same cluster takes to start. */
const usualRetries = 30;
const usualIntervalMs = 2_000;

/**
 * Reads `DATABASE_URL`, `MIGRATION_DIR`, `TARGET_VERSION`, `MAX_RETRIES` and `RETRY_INTERVAL`; seconds where no unit is written.
 *
 * @throws RunnerError `USAGE` naming the variable
 */
export function readScriptVariables(variables: Variables): ScriptWish {
  const read = (name: string): string | undefined => {
    const text = variables[name]?.trim();
    return text === "" ? undefined : text;
  };
  const url = read("DATABASE_URL");
  if (url === undefined) {
    throw new RunnerError("USAGE", "the variable DATABASE_URL is missing", {
      hint: "set it as for golang-migrate: postgres://user:password@host:5432/name?sslmode=require",
    });
  }
  const version = read("TARGET_VERSION");
  if (version !== undefined && !isVersion(version))
    throw new RunnerError("USAGE", `TARGET_VERSION: expected a version, got ${JSON.stringify(version)}`);
  const retries = parseCount(read("MAX_RETRIES") ?? String(usualRetries), 0);
  if (retries === undefined) throw new RunnerError("USAGE", "MAX_RETRIES: expected a whole number");
  const interval = read("RETRY_INTERVAL");
  const intervalMs =
    interval === undefined
      ? usualIntervalMs
      : parseDuration(/^[0-9]+$/.test(interval) && interval !== "0" ? `${interval}s` : interval);
  if (intervalMs === undefined)
    throw new RunnerError("USAGE", "RETRY_INTERVAL: expected seconds, or a duration such as 5s");
  const source = read("MIGRATION_DIR") ?? usualFolder;
  return { ...readDatabaseUrl(url), source, version, retries, intervalMs };
}

/** What golang-migrate's drivers for PostgreSQL take; `pgx5://` and its like are the same server. */
const aliases = /^(pgx|pgx4|pgx5)(?=:\/\/)/;
/** Parameters that need nothing done here: statements are split by PostgreSQL's rules, whatever their size. */
const passedOver = new Set(["x-multi-statement", "x-multi-statement-max-size"]);

/** A URL as golang-migrate reads it, without what is only for golang-migrate. MongoDB's is left to its driver, which knows those. */
function readDatabaseUrl(text: string): Pick<ScriptWish, "database" | "table" | "statementTimeoutMs"> {
  const at = text.indexOf("?");
  const base = (at < 0 ? text : text.slice(0, at)).replace(aliases, "postgres");
  const parameters = at < 0 ? [] : text.slice(at + 1).split("&");
  const own = new URLSearchParams(parameters.filter((one) => one.startsWith("x-")).join("&"));
  if (base.startsWith("mongodb")) {
    return {
      database: text,
      table: own.get("x-migrations-collection") ?? undefined,
      statementTimeoutMs: undefined,
    };
  }
  const { table, isQuoted, timeout } = readOwn(own);
  const kept = parameters.filter((one) => !one.startsWith("x-"));
  return {
    database: kept.length === 0 ? base : `${base}?${kept.join("&")}`,
    table: isQuoted ? unquoted(table ?? "") : table,
    statementTimeoutMs: timeout,
  };
}

function readOwn(own: URLSearchParams): {
  readonly table: string | undefined;
  readonly isQuoted: boolean;
  readonly timeout: number | undefined;
} {
  let [table, timeout]: [string | undefined, number | undefined] = [undefined, undefined];
  let isQuoted = false;
  for (const [name, value] of own) {
    if (name === "x-migrations-table") table = value === "" ? undefined : value;
    else if (name === "x-migrations-table-quoted")
      isQuoted = ["1", "t", "true"].includes(value.toLowerCase());
    else if (name === "x-statement-timeout") timeout = milliseconds(name, value);
    else if (!passedOver.has(name) && !(name === "x-lock-strategy" && value === "advisory")) {
      throw new RunnerError(
        "USAGE",
        `DATABASE_URL: ${JSON.stringify(name.slice(0, 40))} is not taken over from golang-migrate`,
        {
          hint: "take it out of the URL; known are x-migrations-table, x-migrations-table-quoted, x-statement-timeout, x-multi-statement and x-multi-statement-max-size",
        },
      );
    }
  }
  return { table, isQuoted, timeout };
}

function milliseconds(name: string, value: string): number {
  const ms = parseCount(value, 0);
  if (ms === undefined) throw new RunnerError("USAGE", `DATABASE_URL: ${name} is no number of milliseconds`);
  return ms;
}

/** `"schema"."table"` as `schema.table`; golang-migrate takes no other form there. */
function unquoted(text: string): string {
  const [, schema, table] = /^"([^".]+)"\."([^".]+)"$/.exec(text) ?? [];
  if (schema !== undefined && table !== undefined) return `${schema}.${table}`;
  throw new RunnerError(
    "USAGE",
    'DATABASE_URL: x-migrations-table-quoted goes with x-migrations-table="schema"."table"',
  );
}
