import type { DatabaseAccess, RdsRoots } from "./access.ts";
import type { Driver } from "./driver.ts";
import type { LeaseTimes } from "./lease-keeper.ts";
import { engineOf } from "./url.ts";

/** Settings of a driver that do not depend on which database it speaks to. */
export interface DriverOptions {
  /** schema, or prefix of the collections, of our own state; default `lockkeeper` */
  readonly schema?: string;
  /** the same database past its pooler, for statements outside transactions */
  readonly directUrl?: string | DatabaseAccess;
  /** for URLs that mean them */
  readonly rdsRoots?: RdsRoots;
  /** for tests: shorter leases */
  readonly times?: LeaseTimes;
}

/**
 * The driver for a database, loaded when asked for; it connects with its first call.
 *
 * @throws RunnerError `USAGE` for a URL that no driver takes
 */
export async function openDriver(url: string | DatabaseAccess, options: DriverOptions = {}): Promise<Driver> {
  switch (typeof url === "string" ? engineOf(url) : url.engine) {
    case "postgres": {
      const { openPostgres } = await import("./postgres/postgres.ts");
      return openPostgres(url, options);
    }
    case "mongodb": {
      const { openMongo } = await import("./mongodb/mongodb.ts");
      if (typeof url === "string") return openMongo(url, options);
      const { keptMongo } = await import("./mongodb/kept.ts");
      return keptMongo(url, (known) => openMongo(known, options));
    }
  }
}
