import pg from "pg";
import { expect, onTestFinished, test } from "vitest";
import { SimpleQuery } from "../../../src/driver/postgres/simple-query.ts";
import { createDatabase } from "../../support/database.ts";

test("gives rows and counts as pg itself does, statement by statement", async () => {
  const client = await connect();
  const messages = [
    `SELECT 1 AS a, 'x' AS b, NULL AS c, true AS d, 9007199254740993::bigint AS e, 1.50::numeric AS f, '{"a": [1]}'::jsonb AS g,
      ARRAY['a', NULL, 'c,"d"'] AS h, '\\xdead'::bytea AS i, timestamptz '2026-11-21 10:00:00+00' AS j, 0.1::float8 AS k`,
    `CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 3) RETURNING id; UPDATE t SET id = id; DELETE FROM t WHERE id = 3; SELECT * FROM t ORDER BY id`,
    "SELECT 1 AS a; SELECT 2 AS a, 3 AS a; SELECT WHERE false; SELECT",
    `SELECT 1 AS "__proto__", 2 AS "constructor"`,
    "BEGIN; SET LOCAL lock_timeout = 0; COMMIT",
    "COPY (SELECT 1) TO STDOUT; SELECT 1 AS after",
    "",
    "-- nothing",
    "; ;",
  ];
  for (const message of messages) {
    const ours = await client.query(new SimpleQuery(message)).answer;
    await client.query("DROP TABLE IF EXISTS t");
    const theirs: unknown = await client.query(message);
    await client.query("DROP TABLE IF EXISTS t");
    const expected = (Array.isArray(theirs) ? theirs : [theirs]) as readonly pg.QueryResult[];
    expect(ours).toEqual(expected.map(({ rowCount, rows }) => ({ rowCount, rows })));
  }
});

test("fails as the server says, and leaves the connection fit for the next message", async () => {
  const client = await connect();
  await client.query("CREATE TABLE t (id int)");
  for (const [message, sqlstate] of [
    ["SELECT 1; SELECT 1 / 0; SELECT 2", "22012"],
    ["SELEC 1", "42601"],
    ["COPY t FROM STDIN", "57014"],
  ] as const) {
    await expect(client.query(new SimpleQuery(message)).answer).rejects.toMatchObject({ code: sqlstate });
    expect(await client.query(new SimpleQuery("SELECT 1 AS a")).answer).toEqual([
      { rowCount: 1, rows: [{ a: 1 }] },
    ]);
  }
});

test("fails where a value cannot be read, when the server is done", async () => {
  const client = await connect();
  // The parser of `pg` is told to read JSON, and this is none: the server sends what it was told is JSON.
  pg.types.setTypeParser(pg.types.builtins.JSONB, (text) => {
    if (text === '"unreadable"') throw new SyntaxError("unreadable");
    return JSON.parse(text) as unknown;
  });
  onTestFinished(() =>
    pg.types.setTypeParser(pg.types.builtins.JSONB, (text) => JSON.parse(text) as unknown),
  );
  const message = `SELECT '"unreadable"'::jsonb; CREATE TABLE t (id int)`;
  await expect(client.query(new SimpleQuery(message)).answer).rejects.toThrow("unreadable");
  expect(await client.query(new SimpleQuery("SELECT to_regclass('t') IS NOT NULL AS made")).answer).toEqual([
    { rowCount: 1, rows: [{ made: true }] },
  ]);
});

async function connect(): Promise<pg.Client> {
  const database = await createDatabase();
  const client = new pg.Client({ connectionString: database.url });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}
