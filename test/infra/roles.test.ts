import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { awaitApplied } from "../../src/status/await-applied.ts";
import { createDatabase, ownPostgres, type TestDatabase } from "../support/database.ts";
import { needs, part } from "../support/parts.ts";
import { never } from "../support/steps.ts";
import { openTarget, tableMigrations } from "../support/target.ts";

needs("psql");

const script = path.join(import.meta.dirname, "..", "..", "infra", "sql", "roles-postgres.sql");

/** The script as its first lines say, run by the real psql. */
async function makeRoles({ url }: TestDatabase): Promise<void> {
  const database = new URL(url).pathname.slice(1);
  const names = { database, owner: 'orders "owner"', app: "orders_app" };
  const variables = Object.entries(names).flatMap(([name, value]) => ["-v", `${name}=${value}`]);
  await promisify(execFile)(part("psql"), [url, "-qX", "-v", "ON_ERROR_STOP=1", ...variables, "-f", script]);
}

/** The same database for another role. */
function as(url: string, role: string): string {
  const other = new URL(url);
  other.username = role;
  other.password = "secret";
  return other.href;
}

test.for([14, 18] as const)(
  "on PostgreSQL %i the runner changes tables that belong to their owner, the reader only looks, the application only works with rows",
  async (major) => {
    // roles belong to the whole server
    const database = await createDatabase({ server: await ownPostgres({ major }) });
    await database.query("create role orders_app login password 'secret'");
    await makeRoles(database);
    await makeRoles(database);
    await database.query("alter role lockkeeper_runner password 'secret'");
    await database.query("alter role lockkeeper_reader password 'secret'");
    const url = (role: string): string => as(database.url, role);

    const reader = await openDriver(url("lockkeeper_reader"));
    const before = await reader.state("orders", never);
    expect(before.position.version).toBeNull();

    const runner = await openTarget(url("lockkeeper_runner"), tableMigrations(2));
    expect(await runner.run()).toMatchObject({ status: "succeeded", outcome: "applied" });
    const owners = await database.query(
      "select distinct tableowner from pg_tables where schemaname in ('public', 'lockkeeper')",
    );
    expect(owners).toEqual([{ tableowner: 'orders "owner"' }]);

    const release = await runner.run();
    const wanted = { kind: "release", digest: release.release?.digest ?? "" } as const;
    const waiting = { timeoutMs: 30_000, pollMs: 100, signal: never, onWaiting: () => undefined };
    expect(await awaitApplied(reader, "orders", wanted, waiting)).toMatchObject({
      position: { version: "2" },
    });
    expect(await reader.history("orders", {}, never)).toHaveLength(2);
    await reader.close();

    const lookers = await openTarget(url("lockkeeper_reader"), tableMigrations(3));
    expect((await lookers.run()).error).toMatchObject({ code: "DATABASE_DENIED" });
    const app = await openTarget(url("orders_app"), tableMigrations(3));
    expect((await app.run()).error).toMatchObject({ code: "DATABASE_DENIED" });

    const client = await database.connect();
    await client.query("set session authorization orders_app");
    await client.query("insert into t1 values (1)");
    for (const forbidden of [
      "create table mine (id int)",
      "alter table t1 add column mine int",
      "select from lockkeeper.history",
    ])
      await expect(client.query(forbidden)).rejects.toMatchObject({ code: "42501" });
    await client.query("set session authorization lockkeeper_reader");
    await expect(client.query("select from t1")).rejects.toMatchObject({ code: "42501" });
  },
);
