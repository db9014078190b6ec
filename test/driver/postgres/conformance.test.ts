import { beforeAll, describe } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";
import { type DriverUnderTest, driverSuite } from "../../conformance/driver.ts";
import { createDatabase, ownPostgres, type PostgresMajor, type PostgresServer, type TestDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { type Pooler, startPgBouncer } from "../../support/pgbouncer.ts";

const olderMajors = [14, 15, 16, 17] as const satisfies readonly PostgresMajor[];

describe("PostgreSQL 18", () => {
  driverSuite(async () => underTest(await createDatabase()));
});

describe.for(olderMajors)("PostgreSQL %i", (major) => {
  let server: PostgresServer;
  beforeAll(async () => {
    server = await ownPostgres({ major });
  });
  driverSuite(async () => underTest(await createDatabase({ server })));
});

describe("PostgreSQL through PgBouncer in transaction mode", () => {
  needs("pgbouncer");
  driverSuite(async () => {
    const database = await createDatabase();
    const pooler: Pooler = await startPgBouncer(database.url, { poolSize: 4 });
    return underTest(database, pooler.url);
  });
});

/** Through TCP to the server, unless `url` names a pooler before it. */
function underTest(database: TestDatabase, url = database.url): DriverUnderTest {
  return {
    open: (options) => openDriver(url, options),
    adds: (n) => ({ path: `${n}_add.up.sql`, up: `CREATE TABLE effect_${n} (); COMMENT ON TABLE effect_${n} IS 'it''s here';` }),
    fails: (n) => ({ path: `${n}_fail.up.sql`, up: `CREATE TABLE effect_${n} ();\nSELECT nothing FROM nowhere;` }),
    async effects() {
      const rows = await database.query<{ n: number }>(
        "SELECT substring(tablename from 'effect_(.*)')::int AS n FROM pg_tables WHERE tablename LIKE 'effect\\_%' ORDER BY 1",
      );
      return rows.map(({ n }) => n);
    },
  };
}
