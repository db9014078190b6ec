import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { freshState } from "../stream-state.ts";
import type { StreamState } from "../stream-state.ts";
import type { Connection, ConnectionPool, Row, StatementResult } from "./connection.ts";
import { databaseFailure, serverError } from "./failure.ts";
import { creationClash, sqlstate } from "./sqlstate.ts";
import { readInstant } from "./instant.ts";
import { sendPrepared, type PreparedStatement, type Write } from "./prepared.ts";
import { readFacts, readState, selectFacts, stateQuestion, type ServerFacts } from "./state.ts";
import { addColumns, createTables, literal, type TableNames } from "./tables.ts";

/** The oldest server this driver is tested with. */
const oldestVersion = 140_000;
/** tries of creating our tables, when other runners do the same */
const creationTries = 40;
/** tries of adding columns while transactions are in the way, each of {@link addColumns}' own patience */
const lockTries = 6;

/** One database with our tables in it, which may not be there yet. */
export class PostgresDatabase {
  readonly pool: ConnectionPool;
  readonly t: TableNames;
  #facts: ServerFacts | undefined;
  #hasTables = true;

  constructor(pool: ConnectionPool, t: TableNames) {
    this.pool = pool;
    this.t = t;
  }

  get shownUrl(): string {
    return this.pool.shown;
  }

  /** false when the database was last seen without our tables; a guess, until it was looked at */
  get hasTables(): boolean {
    return this.#hasTables;
  }

  /** What the database says of a stream; a database without our tables has the state of a fresh one. */
  async readState(connection: Connection, stream: string, signal: AbortSignal): Promise<StreamState> {
    const question = stateQuestion(this.t);
    try {
      const [result] = await this.#withColumns(connection, signal, () =>
        sendPrepared(connection, [question], (write) => write(question, { stream: literal(stream) }), signal),
      );
      const row = result?.rows[0] ?? {};
      this.#hasTables = true;
      this.#learn(row);
      return readState(row);
    } catch (cause) {
      if (serverError(cause)?.sqlstate !== sqlstate.undefinedTable) throw cause;
      this.#hasTables = false;
      const [result] = await connection.send(selectFacts, signal);
      const row = result?.rows[0] ?? {};
      this.#learn(row);
      return freshState(readInstant(row["now"]));
    }
  }

  /**
   * Runs `action`; where our tables are absent, or of an earlier build, first makes them what they should be.
   *
   * @throws RunnerError `LEASE_HELD` - a run under way keeps tables of an earlier build from being brought up to date
   */
  async withTables<T>(connection: Connection, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        if (!this.#hasTables) await this.#setUp(connection, signal, createTables(this.t), attempt);
        return await action();
      } catch (cause) {
        const remedy = attempt > creationTries ? undefined : remedyFor(this.t, cause);
        if (remedy === undefined) throw cause;
        // It may have failed in a transaction.
        await connection.send("ROLLBACK", signal);
        await this.#setUp(connection, signal, remedy, attempt);
      }
    }
  }

  /** Rows of a message's last statement; none where our tables are absent. */
  rows(message: string, signal: AbortSignal): Promise<StatementResult["rows"]> {
    return this.#rowsOf(signal, (connection) => connection.send(message, signal));
  }

  /** As {@link rows}, of what is asked often. */
  rowsOf<Parameter extends string>(
    statement: PreparedStatement<Parameter>,
    values: Readonly<Record<Parameter, string>>,
    signal: AbortSignal,
  ): Promise<StatementResult["rows"]> {
    const message = (write: Write): string => write(statement, values);
    return this.#rowsOf(signal, (connection) => sendPrepared(connection, [statement], message, signal));
  }

  #rowsOf(
    signal: AbortSignal,
    send: (connection: Connection) => Promise<readonly StatementResult[]>,
  ): Promise<StatementResult["rows"]> {
    return this.use(signal, async (connection) => {
      try {
        const results = await this.#withColumns(connection, signal, () => send(connection));
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

  /** As {@link withTables}, for whoever reads: where there is no table there is nothing to read. */
  async #withColumns<T>(connection: Connection, signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      if (serverError(cause)?.sqlstate !== sqlstate.undefinedColumn) throw cause;
      return this.withTables(connection, signal, action);
    }
  }

  async #setUp(connection: Connection, signal: AbortSignal, remedy: string, attempt: number): Promise<void> {
    await this.knownFacts(connection);
    try {
      await connection.send(remedy, signal);
      this.#hasTables = true;
    } catch (cause) {
      await connection.send("ROLLBACK").catch(() => undefined);
      const code = serverError(cause)?.sqlstate;
      if (code === sqlstate.lockNotAvailable && attempt >= lockTries) throw this.#inTheWay(cause);
      if (code === undefined || !creationClash.has(code)) throw cause;
      await sleep(20 + Math.random() * 30 * Math.min(attempt, 10), undefined, { signal });
    }
  }

  #inTheWay(cause: unknown): RunnerError {
    return new RunnerError(
      "LEASE_HELD",
      `${this.shownUrl}: our tables are of an earlier version of lockkeeper, and a transaction under way keeps them from being brought up to date`,
      { hint: "try again when the run that is on its way in this database has ended", cause },
    );
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

/** What to send after a message of ours has failed on tables that are absent, or of an earlier build. */
function remedyFor(t: TableNames, cause: unknown): string | undefined {
  switch (serverError(cause)?.sqlstate) {
    case sqlstate.undefinedTable:
      return createTables(t);
    case sqlstate.undefinedColumn:
      return addColumns(t);
    default:
      return undefined;
  }
}

/** The value of a column that only one statement of a message has. */
export function firstValue(results: readonly StatementResult[], column: string): unknown {
  return results.flatMap((result) => result.rows).find((row) => column in row)?.[column];
}
