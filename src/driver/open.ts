import { RunnerError } from "../error.ts";
import type { Driver } from "./driver.ts";
import type { LeaseTimes } from "./lease-keeper.ts";

/** Settings of a driver that do not depend on which database it speaks to. */
export interface DriverOptions {
  /** schema, or prefix of the collections, of our own state; default `lockkeeper` */
  readonly schema?: string;
  /** the same database past its pooler, for statements outside transactions */
  readonly directUrl?: string;
  /** for tests: shorter leases */
  readonly times?: LeaseTimes;
}

/**
 * The driver for a database URL, loaded when asked for; it connects with its first call.
 *
 * @throws RunnerError `USAGE` for a URL that no driver takes
 */
export async function openDriver(url: string, options: DriverOptions = {}): Promise<Driver> {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(url)?.[1]?.toLowerCase();
  switch (scheme) {
    case "postgres":
    case "postgresql": {
      const { openPostgres } = await import("./postgres/postgres.ts");
      return openPostgres(url, options);
    }
    case "mongodb":
    case "mongodb+srv":
      throw new RunnerError("USAGE", "MongoDB is not supported by this version", {
        hint: "see CHANGELOG.md for what is planned",
      });
    default:
      throw new RunnerError("USAGE", "the database URL starts with no scheme that lockkeeper knows", {
        hint: "write postgres://user:password@host:5432/database",
      });
  }
}
