import { RunnerError } from "../error.ts";
import type { Engine } from "../migration/migration.ts";

/**
 * Which engine a database URL is of, by its scheme.
 *
 * @throws RunnerError `USAGE` - none that is known; the message never repeats the URL
 */
export function engineOf(url: string): Engine {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(url)?.[1]?.toLowerCase();
  switch (scheme) {
    case "postgres":
    case "postgresql":
      return "postgres";
    case "mongodb":
    case "mongodb+srv":
      return "mongodb";
    default:
      throw new RunnerError("USAGE", "the database URL starts with no scheme that lockkeeper knows", {
        hint: "write postgres://user:password@host:5432/database or mongodb://user:password@host:27017/database",
      });
  }
}

/**
 * Name of the database that a URL is of.
 *
 * @throws RunnerError `USAGE` - it cannot be read, or names none
 */
export async function databaseNameOf(url: string): Promise<string> {
  switch (engineOf(url)) {
    case "postgres":
      return (await import("./postgres/address.ts")).parseAddress(url).database;
    case "mongodb":
      return (await import("./mongodb/address.ts")).parseAddress(url).database;
  }
}

/**
 * A URL with its user's password put in. One that cannot be read is left for the driver to refuse.
 *
 * @throws RunnerError `USAGE` - a MongoDB URL without a user
 */
export function withPassword(url: string, password: string): string {
  switch (engineOf(url)) {
    case "postgres": {
      // As a parameter: it needs no host in the URL, and its escaping knows every character.
      const parsed = URL.parse(url);
      if (parsed === null) return url;
      parsed.searchParams.set("password", password);
      return parsed.href;
    }
    case "mongodb": {
      const [, scheme, user, rest] = /^([^:]+:\/\/)([^:@/?]+)(?::[^@/?]*)?(@.*)$/s.exec(url) ?? [];
      if (scheme !== undefined && user !== undefined && rest !== undefined)
        return `${scheme}${user}:${encodeURIComponent(password)}${rest}`;
      throw new RunnerError("USAGE", "a password was given for a database URL without a user", {
        hint: "write the user's name before the host: mongodb://user@host:27017/database",
      });
    }
  }
}
