import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { freshState } from "../stream-state.ts";
import type { StreamState } from "../stream-state.ts";
import type { Connection, ConnectionPool, Row, StatementResult } from "./connection.ts";
import { databaseFailure, serverError } from "./failure.ts";
import { creationClash, sqlstate } from "./sqlstate.ts";
import { readInstant } from "./instant.ts";
import { readFacts, readState, selectFacts, selectState, type ServerFacts } from "./state.ts";
import { createTables, type TableNames } from "./tables.ts";

/** The oldest server this driver is tested with. */
const oldestVersion = 140_000;
/** tries of creating our tables, when other runners do the same */
const creationTries = 40;

/** One database with our tables in it, which may not be there yet. */
export class PostgresDatabase {
  readonly shownUrl: string;
  readonly pool: ConnectionPool;
  readonly t: TableNames;
  #facts: ServerFacts | undefined;

  constructor(shownUrl: string, pool: ConnectionPool, t: TableNames) {
    this.shownUrl = shownUrl;
    this.pool = pool;
    this.t = t;
  }

  /** What the database says of a stream; a database without our tables has the state of a fresh one. */
  async readState(connection: Connection, stream: string, signal: AbortSignal): Promise<StreamState> {
    try {
      const [result] = await connection.send(selectState(this.t, stream), signal);
      const row = result?.rows[0] ?? {};
      this.#learn(row);
      return readState(row);
    } catch (cause) {
      if (serverError(cause)?.sqlstate !== sqlstate.undefinedTable) throw cause;
      const [result] = await connection.send(selectFacts, signal);
      const row = result?.rows[0] ?? {};
      this.#learn(row);
      return freshState(readInstant(row["now"]));
    }
  }

  /** Runs `action`, and where it finds our tables absent creates them first. */
  async withTables<T>(connection: Connection, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      if (serverError(cause)?.sqlstate !== sqlstate.undefinedTable) throw cause;
    }
    await this.knownFacts(connection);
    for (let attempt = 1; ; attempt += 1) {
      try {
        await connection.send(createTables(this.t), signal);
        return await action();
      } catch (cause) {
        await connection.send("ROLLBACK").catch(() => undefined);
        const code = serverError(cause)?.sqlstate;
        const isClash = code !== undefined && (creationClash.has(code) || code === sqlstate.undefinedTable);
        if (!isClash || attempt === creationTries) throw cause;
        await sleep(20 + Math.random() * 30 * Math.min(attempt, 10), undefined, { signal });
      }
    }
  }

  /** Rows of a message's last statement; none where our tables are absent. */
  async rows(message: string, signal: AbortSignal): Promise<StatementResult["rows"]> {
    return this.use(signal, async (connection) => {
      try {
        const results = await connection.send(message, signal);
        return results.at(-1)?.rows ?? [];
      } catch (cause) {
        if (serverError(cause)?.sqlstate === sqlstate.undefinedTable) return [];
        throw cause;
      }
    });
  }

  /** Lends a connection to `action`, whose failures come out under their public codes. */
  async use<T>(signal: AbortSignal, action: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.pool.connect(signal);
    let isBroken = true;
    try {
      const result = await action(connection);
      isBroken = false;
      return result;
    } catch (cause) {
      signal.throwIfAborted();
      throw databaseFailure(cause, this.shownUrl);
    } finally {
      // After an error it may be in the middle of a transaction.
      connection.release(isBroken);
    }
  }

  /**
   * What the server is, for whoever is about to write.
   *
   * @throws RunnerError `DATABASE_READ_ONLY` - it takes no writes; `DATABASE_UNSUPPORTED` - it is too old
   */
  async knownFacts(connection: Connection): Promise<ServerFacts> {
    if (this.#facts === undefined) {
      const [result] = await connection.send(selectFacts);
      this.#learn(result?.rows[0] ?? {});
    }
    if (this.#facts === undefined) throw new RunnerError("INTERNAL", "the server's facts came back empty");
    if (this.#facts.isReadOnly) {
      throw new RunnerError("DATABASE_READ_ONLY", `${this.shownUrl}: the database takes no writes`, {
        hint: "connect to the primary, or make the database writable",
      });
    }
    return this.#facts;
  }

  #learn(row: Row): void {
    this.#facts = readFacts(row);
    if (this.#facts.versionNumber < oldestVersion) {
      throw new RunnerError(
        "DATABASE_UNSUPPORTED",
        `${this.shownUrl}: the server is PostgreSQL ${Math.floor(this.#facts.versionNumber / 10_000)}`,
        {
          hint: "lockkeeper works with PostgreSQL 14 and later",
        },
      );
    }
  }
}

/** The value of a column that only one statement of a message has. */
export function firstValue(results: readonly StatementResult[], column: string): unknown {
  return results.flatMap((result) => result.rows).find((row) => column in row)?.[column];
}
