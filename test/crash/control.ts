import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";

/** milliseconds for a server to come back from a fault that the harness itself made */
const patienceMs = 30_000;

/** The harness's own view of a round's database, past all proxies; goes on after the server went away. */
export interface Control extends AsyncDisposable {
  /** Rows of one statement, in a transaction of its own; asked again while the server is away. */
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(sql: string): Promise<Row[]>;
  /** Does `sql` on a session of its own, and gives the session up with `open`. */
  hold(sql: string): Promise<Hold>;
}

/** A session that keeps something locked. */
export interface Hold {
  open(): Promise<void>;
}

/** Opens one; connects when first asked. */
export function openControl(url: string): Control {
  let client: Promise<pg.Client> | undefined;
  let last: Promise<unknown> = Promise.resolve();
  const connect = async (): Promise<pg.Client> => {
    const made = new pg.Client({ connectionString: url, application_name: "crash harness" });
    made.on("error", () => undefined);
    await made.connect();
    return made;
  };
  const ask = async <Row extends pg.QueryResultRow>(sql: string): Promise<Row[]> => {
    const giveUpAt = performance.now() + patienceMs;
    for (;;) {
      try {
        client ??= connect();
        return (await (await client).query<Row>(sql)).rows;
      } catch (cause) {
        if (!isAway(cause) || performance.now() > giveUpAt) throw cause;
        client = undefined;
        await sleep(50);
      }
    }
  };
  return {
    query<Row extends pg.QueryResultRow>(sql: string) {
      // One after the other: a client takes one at a time.
      const asked = last.then(() => ask<Row>(sql));
      last = asked.catch(() => undefined);
      return asked;
    },
    async hold(sql) {
      const session = await connect();
      await session.query(sql);
      return { open: () => session.end().catch(() => undefined) };
    },
    async [Symbol.asyncDispose]() {
      await client?.then((made) => made.end()).catch(() => undefined);
    },
  };
}

/** Whether the server, or the way to it, is what failed: a network error has no severity, a closing server says class 57P. */
function isAway(cause: unknown): boolean {
  if (!(cause instanceof Error)) return false;
  if (!("severity" in cause)) return true;
  return "code" in cause && typeof cause.code === "string" && /^(57P|08)/.test(cause.code);
}
