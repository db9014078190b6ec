import type { Variables } from "../cli/context.ts";
import { readSecretFile } from "../cli/secret-file.ts";
import type { Driver } from "../driver/driver.ts";
import { openDriver } from "../driver/open.ts";
import { databaseNameOf, withPassword } from "../driver/url.ts";
import { RunnerError } from "../error.ts";
import type { DatabaseSettings, TargetSettings, UrlSettings } from "./settings.ts";

/**
 * The URL of the database that settings name.
 *
 * @throws RunnerError `USAGE` - they name none; `CONFIG` - it, or its password, is not where they say
 */
export function urlOfDatabase(settings: TargetSettings, variables: Variables): Promise<string> {
  return readUrl(databaseOf(settings), variables);
}

function databaseOf({ database }: TargetSettings): DatabaseSettings {
  if (database !== undefined) return database;
  throw new RunnerError("USAGE", "--database <url> (or LOCKKEEPER_DATABASE, or DATABASE_URL) is missing", {
    hint: "name a database as postgres://user@host:5432/name or mongodb://user@host:27017/name, or a target of the configuration with --target",
  });
}

/** The driver for the database at `url`, past its pooler where settings say how; connects when it is first asked. */
export async function openDatabase(
  settings: TargetSettings,
  url: string,
  variables: Variables,
): Promise<Driver> {
  const database = databaseOf(settings);
  const direct = database.direct === undefined ? undefined : await readUrl(database.direct, variables);
  return openDriver(url, {
    ...(database.schema === undefined ? {} : { schema: database.schema }),
    ...(direct === undefined ? {} : { directUrl: direct }),
  });
}

/** A database URL with its password. */
export async function readUrl(
  from: { readonly url: UrlSettings; readonly passwordFile: string | undefined },
  variables: Variables,
): Promise<string> {
  const url = await readUrlText(from.url, variables);
  if (from.passwordFile === undefined) return url;
  return withPassword(url, await readSecretFile(from.passwordFile, "the password file"));
}

async function readUrlText(from: UrlSettings, variables: Variables): Promise<string> {
  switch (from.kind) {
    case "text":
      return from.url;
    case "file":
      return (await readSecretFile(from.path, "the database URL's file")).trim();
    case "variable": {
      const url = variables[from.name];
      if (url !== undefined && url !== "") return url;
      throw new RunnerError("CONFIG", `the variable ${from.name}, which holds the database URL, is not set`);
    }
  }
}

/** A stream is called like its database unless told otherwise. */
export async function streamOf(url: string): Promise<string> {
  const database = await databaseNameOf(url);
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(database)) return database;
  throw new RunnerError("USAGE", "--stream <name> (or LOCKKEEPER_STREAM) is missing", {
    hint: "the database's name cannot be a stream's name: it may hold letters, digits, . _ - only",
  });
}
