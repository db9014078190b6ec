import pg from "pg";
import { describe, expect, test } from "vitest";
import { createDatabase, ownPostgres, postgresMajors } from "./database.ts";

describe("a test's database", () => {
  test("is empty and writable", async () => {
    const database = await createDatabase();
    await database.query("create table t (a int)");
    expect(
      await database.query("select count(*)::int as n from pg_tables where schemaname = 'public'"),
    ).toEqual([{ n: 1 }]);
  });

  test("is gone after the test, whoever is still connected", async () => {
    const database = await createDatabase();
    const other = await createDatabase();
    const client = await database.connect();
    const cut = new Promise((resolve) => client.once("end", resolve));
    await database.drop();
    await cut;
    expect(await other.query("select 1 from pg_database where datname = $1", [database.name])).toEqual([]);
  });

  test("refuses a wrong password", async () => {
    const url = new URL((await createDatabase()).url);
    url.password = "wrong";
    await expect(new pg.Client(url.href).connect()).rejects.toMatchObject({ code: "28P01" });
  });
});

describe("a server of its own", () => {
  test.for(postgresMajors)("runs PostgreSQL %i", async (major) => {
    const server = await ownPostgres({ major });
    const database = await createDatabase({ server });
    const [row] = await database.query<{ server_version: string }>("show server_version");
    expect(row?.server_version).toMatch(new RegExp(`^${major}\\.`));
  });

  test("serves TLS only, with a certificate that its CA vouches for", async () => {
    const server = await ownPostgres({ tls: {} });
    const database = await createDatabase({ server });
    expect(await database.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()")).toEqual([
      { ssl: true },
    ]);
    await expect(new pg.Client(server.url).connect()).rejects.toMatchObject({ code: "28000" });
  });
});
