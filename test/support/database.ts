import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import type { ConnectionOptions } from "node:tls";
import pg from "pg";
import { afterAll, inject, onTestFinished } from "vitest";
import { type PostgresOptions, type PostgresServer, startPostgres } from "./postgres.ts";

export { type PostgresServer, postgresMajors } from "./postgres.ts";

/** An empty database of a test's own, dropped when the test has ended (or the file, when made outside of a test). */
export interface TestDatabase extends AsyncDisposable {
  readonly name: string;
  /** superuser's URL, with password; without `sslmode`, also where the server serves TLS only */
  readonly url: string;
  /** Rows of one statement, on a connection of its own. */
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    sql: string,
    values?: readonly unknown[],
  ): Promise<Row[]>;
  /** A connected client, closed before the database is dropped. */
  connect(): Promise<pg.Client>;
  /** Drops it now, whoever is still connected. */
  drop(): Promise<void>;
}

/** What to clean up when the file ends, newest first. */
const open = new Set<() => Promise<void>>();
afterAll(async () => {
  for (const close of [...open].toReversed()) await close();
});

/**
 * A fresh, empty database on the run's PostgreSQL 18, or on another server. Tests that run side by side say `file` and
 * drop it themselves: which of them is running cannot be told, and it would end with another.
 */
export async function createDatabase(
  options: { readonly server?: PostgresServer; readonly endsWith?: "test" | "file" } = {},
): Promise<TestDatabase> {
  const admin = accessOf(options.server);
  const name = `test_${randomBytes(8).toString("hex")}`;
  await once(admin, (client) => client.query(`create database ${name} template template0`));
  const url = new URL(admin.connectionString);
  url.pathname = name;
  const access = { ...admin, connectionString: url.href };
  const clients = new Set<pg.Client>();

  const drop = async () => {
    if (!open.delete(drop)) return;
    await Promise.all([...clients].map((client) => client.end().catch(() => undefined)));
    await once(admin, (client) => client.query(`drop database if exists ${name} with (force)`));
  };
  if (options.endsWith === "file") open.add(drop);
  else cleanUp(drop);
  return {
    name,
    url: url.href,
    async query<Row extends pg.QueryResultRow>(sql: string, values: readonly unknown[] = []): Promise<Row[]> {
      return once(access, async (client) => (await client.query<Row>(sql, [...values])).rows);
    },
    async connect() {
      const client = await connect(access);
      clients.add(client);
      return client;
    },
    drop,
    [Symbol.asyncDispose]: drop,
  };
}

/** A server of its own for this test or file: another major version, TLS, other settings. */
export async function ownPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const server = await startPostgres(options);
  const stop = async () => {
    if (open.delete(stop)) await server.stop();
  };
  cleanUp(stop);
  return server;
}

/** At the end of the running test; outside of a test (top level, beforeAll) at the end of the file. */
function cleanUp(close: () => Promise<void>): void {
  open.add(close);
  try {
    onTestFinished(close);
  } catch {
    // Not in a test: the file's afterAll does it.
  }
}

/** How the tests' own connections are made; whether the product finds a certificate good is for its tests to see. */
interface Access {
  readonly connectionString: string;
  readonly ssl?: ConnectionOptions;
}

function accessOf(server: PostgresServer | undefined): Access {
  if (server === undefined) return { connectionString: inject("postgresUrl") };
  if (server.caFile === undefined) return { connectionString: server.url };
  const ca = readFileSync(server.caFile, "utf8");
  return { connectionString: server.url, ssl: { ca, checkServerIdentity: () => undefined } };
}

async function connect(access: Access): Promise<pg.Client> {
  // Whatever a test makes of its database, its own connections may wait.
  const client = new pg.Client({ ...access, options: "-c idle_session_timeout=0" });
  // A test that ends the server or drops the database cuts connections on purpose.
  client.on("error", () => undefined);
  await client.connect();
  return client;
}

async function once<T>(access: Access, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(access);
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
