import { decodeBody } from "../decode.ts";
import type { TxMode } from "../migration.ts";
import { quote } from "./folder-problem.ts";
import { formatError } from "./format-error.ts";

/** What `V1__a.sql.conf` asks for its script. */
export interface ScriptConfig {
  readonly tx?: TxMode;
  readonly replacesPlaceholders: boolean;
}

/** A script that has no such file. */
export const defaultScriptConfig: ScriptConfig = { replacesPlaceholders: true };

/**
 * Reads a script's settings: lines of `key=value` (SqlScriptMetadata.java).
 *
 * @throws RunnerError `FORMAT` — a key or value that Flyway does not know, or that we cannot honour
 */
export function readScriptConfig(bytes: Buffer, file: string): ScriptConfig {
  const config: { -readonly [Key in keyof ScriptConfig]: ScriptConfig[Key] } = { ...defaultScriptConfig };
  const lines = decodeBody(bytes, file)
    .replace(/^\ufeff/, "")
    .split(/\r\n|\r|\n/);
  for (const [index, line] of lines.entries()) {
    if (/^\s*(?:[#!].*)?$/.test(line)) continue;
    const [, key = "", value = ""] = /^([^\s=:]+)\s*[=:]?\s*(.*)$/.exec(line.trim()) ?? [];
    const read = readSetting(key, value, (what, hint) => formatError(file, index + 1, what, hint));
    Object.assign(config, read);
  }
  return config;
}

type Fail = (what: string, hint: string) => Error;

function readSetting(key: string, value: string, fail: Fail): Partial<ScriptConfig> {
  switch (key) {
    case "executeInTransaction":
      return { tx: readBoolean(key, value, fail) ? "one" : "none" };
    case "placeholderReplacement":
      return { replacesPlaceholders: readBoolean(key, value, fail) };
    case "encoding":
      if (/^utf-?8$/i.test(value)) return {};
      throw fail(
        `the encoding ${quote(value)}; only UTF-8 is taken`,
        "save the script as UTF-8 and say so here",
      );
    default:
      throw fail(
        `unknown setting ${quote(key)}`,
        "known are executeInTransaction, placeholderReplacement and encoding",
      );
  }
}

function readBoolean(key: string, value: string, fail: Fail): boolean {
  if (/^true$/i.test(value)) return true;
  if (/^false$/i.test(value)) return false;
  throw fail(`${quote(value)} is no value for ${quote(key)}`, "write true or false");
}
