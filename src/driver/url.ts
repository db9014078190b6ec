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
 * @param user - in place of the URL's
 * @throws RunnerError `USAGE` - a MongoDB URL without a user
 */
export function withPassword(url: string, password: string, user?: string): string {
  switch (engineOf(url)) {
    case "postgres": {
      // As parameters: they need no host in the URL, which is none to Node then, and their escaping knows every character.
      const [base = "", query = ""] = url.split(/\?(.*)/s, 2);
      const parameters = new URLSearchParams(query);
      if (user !== undefined) parameters.set("user", user);
      parameters.set("password", password);
      return `${base}?${parameters.toString()}`;
    }
    case "mongodb": {
      const [, scheme, named, rest] = /^([^:]+:\/\/)(?:([^:@/?]+)(?::[^@/?]*)?@)?(.*)$/s.exec(url) ?? [];
      const name = user === undefined ? named : encodeURIComponent(user);
      if (scheme !== undefined && name !== undefined && rest !== undefined)
        return `${scheme}${name}:${encodeURIComponent(password)}@${rest}`;
      throw new RunnerError("USAGE", "a password was given for a database URL without a user", {
        hint: "write the user's name before the host: mongodb://user@host:27017/database",
      });
    }
  }
}
