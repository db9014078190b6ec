import { beforeAll, describe, test } from "vitest";
import { createDatabase, ownPostgres, type PostgresServer } from "../../support/database.ts";
import { survives, type OutcomeCase } from "./unknown-outcome.ts";

/** What belongs to a whole server is tried on one of our own; it is the publisher of the subscriptions, too. */
let server: PostgresServer;
let publisher: string;
beforeAll(async () => {
  server = await ownPostgres({ settings: { wal_level: "logical", allow_in_place_tablespaces: "on" } });
  const database = await createDatabase({ server });
  await database.query("CREATE PUBLICATION p FOR ALL TABLES");
  publisher = `host=127.0.0.1 port=${server.port} user=postgres password=postgres dbname=${database.name}`;
});

const own = (): Partial<OutcomeCase> => ({ server });
const subscribe = () =>
  `CREATE SUBSCRIPTION "S {db}" CONNECTION '${publisher}' PUBLICATION p WITH (slot_name = '{db}', enabled = false)`;

const cases: Readonly<Record<string, () => OutcomeCase>> = {
  "a made database": () => ({
    ...own(),
    statement: 'CREATE DATABASE "{db} made" TEMPLATE template0',
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT count(*)::int AS n FROM pg_database WHERE datname = '{db} made'",
    rows: [{ n: 1 }],
  }),
  "a dropped database": () => ({
    ...own(),
    setup: ["CREATE DATABASE {db}_old TEMPLATE template0"],
    statement: "DROP DATABASE {db}_OLD WITH (FORCE)",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT 1 FROM pg_database WHERE datname = '{db}_old'",
    rows: [],
  }),
  "a dropped database, of which the server has dropped one half": () => ({
    ...own(),
    setup: [
      "CREATE DATABASE {db}_old TEMPLATE template0",
      "UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{db}_old'",
    ],
    statement: "DROP DATABASE IF EXISTS {db}_old",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT 1 FROM pg_database WHERE datname = '{db}_old'",
    rows: [],
  }),
  "a made tablespace": () => ({
    ...own(),
    statement: "CREATE TABLESPACE {db}_s LOCATION ''",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT count(*)::int AS n FROM pg_tablespace WHERE spcname = '{db}_s'",
    rows: [{ n: 1 }],
  }),
  "a dropped tablespace": () => ({
    ...own(),
    setup: ["CREATE TABLESPACE {db}_s LOCATION ''"],
    statement: "DROP TABLESPACE {db}_s",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT 1 FROM pg_tablespace WHERE spcname = '{db}_s'",
    rows: [],
  }),
  "a moved database": () => ({
    ...own(),
    setup: ["CREATE TABLESPACE {db}_s LOCATION ''", "CREATE DATABASE {db}_old TEMPLATE template0"],
    statement: "ALTER DATABASE {db}_old SET TABLESPACE {db}_s",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check:
      "SELECT count(*)::int AS n FROM pg_database d JOIN pg_tablespace s ON s.oid = dattablespace WHERE datname = '{db}_old' AND spcname = '{db}_s'",
    rows: [{ n: 1 }],
  }),
  "a setting of the server": () => ({
    ...own(),
    statement: "ALTER SYSTEM SET application_name = 'x'",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "not-done" },
    check: "SELECT setting FROM pg_file_settings WHERE name = 'application_name'",
    rows: [{ setting: "x" }],
  }),
  "a made subscription": () => ({
    statement: subscribe(),
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT subname = 'S {db}' AS named FROM pg_subscription WHERE subslotname = '{db}'",
    rows: [{ named: true }],
    cleanUp: 'DROP SUBSCRIPTION "S {db}"',
  }),
  "a dropped subscription": () => ({
    setup: [subscribe()],
    statement: 'DROP SUBSCRIPTION IF EXISTS "S {db}"',
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "done" },
    check: "SELECT 1 FROM pg_subscription WHERE subslotname = '{db}'",
    rows: [],
  }),
  "a vacuumed table": () => ({
    setup: ["CREATE TABLE t (a int)"],
    statement: "VACUUM (ANALYZE) t",
    block: "LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "not-done" },
    check: "SELECT 1 AS n FROM after HAVING true",
    rows: [{ n: 1 }],
  }),
  "a clustered table, after the session was made new": () => ({
    setup: ["CREATE TABLE t (a int PRIMARY KEY)"],
    before: "DISCARD ALL;\nREINDEX TABLE t;\n",
    statement: "CLUSTER t USING t_pkey",
    verdicts: { unsent: "not-done", middle: "not-done", unanswered: "not-done" },
    check: "SELECT 1 AS n FROM after HAVING true",
    rows: [{ n: 1 }],
  }),
  "a procedure, of which nothing tells what it does: a person has to look": () => ({
    setup: [
      "CREATE TABLE done (n int)",
      "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO done VALUES (1); COMMIT; END $$",
    ],
    statement: "CALL p()",
    verdicts: { unsent: null, middle: null, unanswered: null },
    check: "SELECT count(*)::int <= 1 AS once, to_regclass('after') AS after FROM done",
    rows: [{ once: true, after: null }],
  }),
};

describe("an unknown outcome is settled from the catalogue, or by running it again:", () => {
  test.for(Object.entries(cases))("%s", { timeout: 90_000 }, async ([, kind]) => {
    await survives(kind());
  });
});
