import type { Variables } from "../cli/context.ts";
import type { DatabaseAccess } from "../driver/access.ts";
import type { Driver } from "../driver/driver.ts";
import { openDriver } from "../driver/open.ts";
import { databaseNameOf, engineOf } from "../driver/url.ts";
import { RunnerError } from "../error.ts";
import { rdsRoots } from "../host/rds-roots.ts";
import type { Engine } from "../migration/migration.ts";
import type { AccessSettings, DatabaseSettings, TargetSettings, UrlSettings } from "./settings.ts";

/** A database URL with all that it needs; or how to come by it where that is kept elsewhere, and changes. */
export type Access = string | DatabaseAccess;

/**
 * How the database is reached that settings name.
 *
 * @throws RunnerError `USAGE` - they name none; `CONFIG` - it, or its password, is not where they say
 */
export function accessTo(settings: TargetSettings, variables: Variables): Promise<Access> {
  return readAccess(databaseOf(settings), settings.engine, variables);
}

function databaseOf({ database }: TargetSettings): DatabaseSettings {
  if (database !== undefined) return database;
  throw new RunnerError("USAGE", "--database <url> (or LOCKKEEPER_DATABASE, or DATABASE_URL) is missing", {
    hint: "name a database as postgres://user@host:5432/name or mongodb://user@host:27017/name, or a target of the configuration with --target",
  });
}

/** The driver for a database, past its pooler where settings say how; connects when it is first asked. */
export async function openDatabase(
  settings: TargetSettings,
  access: Access,
  variables: Variables,
): Promise<Driver> {
  const { schema, direct } = databaseOf(settings);
  return openDriver(access, {
    ...(schema === undefined ? {} : { schema }),
    ...(direct === undefined
      ? {}
      : { directUrl: await readAccess(direct, engineOfAccess(access), variables) }),
    rdsRoots,
  });
}

/** How a database is reached, by settings of its own. */
export async function readAccess(
  from: AccessSettings,
  engine: Engine | undefined,
  variables: Variables,
): Promise<Access> {
  const { url, password } = from;
  // A file may be a mounted secret, which is renewed in place.
  const changes = url.kind === "file" || url.kind === "secret" || password !== undefined;
  if (!changes) return readUrl(url, variables);
  const { keptAccess } = await import("./kept-access.ts");
  return keptAccess(from, () => readUrl(url, variables), engine, variables);
}

/** Which engine is at the other end. */
export function engineOfAccess(access: Access): Engine {
  return typeof access === "string" ? engineOf(access) : access.engine;
}

async function readUrl(from: UrlSettings, variables: Variables): Promise<string> {
  switch (from.kind) {
    case "text":
      return from.url;
    case "file": {
      const { readSecretFile } = await import("../cli/secret-file.ts");
      return (await readSecretFile(from.path, "the database URL's file")).trim();
    }
    case "variable": {
      const url = variables[from.name];
      if (url !== undefined && url !== "") return url;
      throw new RunnerError("CONFIG", `the variable ${from.name}, which holds the database URL, is not set`);
    }
    case "secret":
      throw new RunnerError("INTERNAL", "a secret was to be read as something else");
  }
}

/** A stream is called like its database unless told otherwise. */
export async function streamOf(access: Access): Promise<string> {
  const database = await databaseNameOf(typeof access === "string" ? access : await access.url());
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(database)) return database;
  throw new RunnerError("USAGE", "--stream <name> (or LOCKKEEPER_STREAM) is missing", {
    hint: "the database's name cannot be a stream's name: it may hold letters, digits, . _ - only",
  });
}
