import pg from "pg";

/** Runs statements one after the other on a connection of their own; gives the rows of the last. */
export async function ask(
  connectionString: string,
  statements: readonly string[],
): Promise<readonly pg.QueryResultRow[]> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    let rows: readonly pg.QueryResultRow[] = [];
    for (const statement of statements) rows = (await client.query<pg.QueryResultRow>(statement)).rows;
    return rows;
  } finally {
    await client.end();
  }
}
