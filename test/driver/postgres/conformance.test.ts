import { afterAll, beforeAll, describe } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";
import { driverSuite } from "../../conformance/driver.ts";
import type { DriverUnderTest } from "../../conformance/driver-start.ts";
import { createDatabase, ownPostgres, type TestDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { type Pooler, startPgBouncer } from "../../support/pgbouncer.ts";

describe("PostgreSQL 18", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase();
  });
  driverSuite(() => underTest(database, database.url));
});

describe.for([14, 15, 16, 17] as const)("PostgreSQL %i", (major) => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase({ server: await ownPostgres({ major }) });
  });
  driverSuite(() => underTest(database, database.url));
});

describe("PostgreSQL through PgBouncer in transaction mode, with TLS before and behind it", () => {
  needs("pgbouncer");
  let database: TestDatabase;
  let pooler: Pooler;
  beforeAll(async () => {
    const server = await ownPostgres({ tls: {} });
    database = await createDatabase({ server });
    pooler = await startPgBouncer(database.url, { poolSize: 6, serverCa: server.caFile });
  });
  afterAll(() => pooler.stop());
  driverSuite(() => underTest(database, pooler.url));
});

let made = 0;

/** A part of the database that nobody has used: our own schema and the bodies' tables are named after the test. */
function underTest(database: TestDatabase, url: string): Promise<DriverUnderTest> {
  made += 1;
  const name = `part_${made}`;
  const schema = `${name} "of" it's own`;
  return Promise.resolve({
    open: (options) => openDriver(url, { ...options, schema }),
    adds: (n) => ({
      path: `${n}_add.up.sql`,
      up: `CREATE TABLE ${name}_${n} (); COMMENT ON TABLE ${name}_${n} IS 'it''s here';`,
    }),
    fails: (n) => ({
      path: `${n}_fail.up.sql`,
      up: `CREATE TABLE ${name}_${n} ();\nSELECT nothing FROM nowhere;`,
    }),
    async effects() {
      const rows = await database.query<{ n: number }>(
        "SELECT split_part(tablename, '_', 3)::int AS n FROM pg_tables WHERE starts_with(tablename, $1) ORDER BY 1",
        [`${name}_`],
      );
      return rows.map(({ n }) => n);
    },
    async expire() {
      await database.query(
        `UPDATE "${schema.replaceAll('"', '""')}".streams SET expires_at = clock_timestamp() - interval '1 second' WHERE holder IS NOT NULL`,
      );
    },
  });
}
