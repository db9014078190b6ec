import pg from "pg";
import { expect, test } from "vitest";
import { createDatabase, ownPostgres } from "./database.ts";
import { needs } from "./parts.ts";
import { startPgBouncer } from "./pgbouncer.ts";

needs("pgbouncer");

test("shares few backends among many clients", async () => {
  const database = await createDatabase();
  const pooler = await startPgBouncer(database.url, { poolSize: 2 });
  const clients = await Promise.all(
    Array.from({ length: 6 }, async () => {
      const client = new pg.Client(pooler.url);
      await client.connect();
      return client;
    }),
  );
  const pids = await Promise.all(
    clients.map(
      async (client) => (await client.query<{ pid: number }>("select pg_backend_pid() as pid")).rows[0]?.pid,
    ),
  );
  expect(new Set(pids).size).toBeLessThanOrEqual(2);
  await Promise.all(clients.map((client) => client.end()));
});

test("refuses start-up parameters, as poolers in transaction mode do", async () => {
  const database = await createDatabase();
  const pooler = await startPgBouncer(database.url);
  const client = new pg.Client({ connectionString: pooler.url, options: "-c lock_timeout=1s" });
  await expect(client.connect()).rejects.toThrow("unsupported startup parameter");
});

test("with TLS on both sides takes no plain client, and is no plain client itself", async () => {
  const server = await ownPostgres({ tls: {} });
  const database = await createDatabase({ server });
  const pooler = await startPgBouncer(database.url, { serverCa: server.caFile });
  const plain = new URL(pooler.url);
  plain.search = "";
  await expect(new pg.Client(plain.href).connect()).rejects.toThrow("SSL required");
  const client = new pg.Client(pooler.url);
  await client.connect();
  const { rows } = await client.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
  await client.end();
  expect(rows).toEqual([{ ssl: true }]);
});
