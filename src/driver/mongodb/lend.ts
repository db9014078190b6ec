import type { ClientSession, Db, MongoClient } from "mongodb";

import { RunnerError } from "../../error.ts";
import type { MongoDatabase } from "./database.ts";

/** What a program works with, for as long as it runs. */
export interface Lent {
  readonly db: Db;
  readonly session: ClientSession;
  /** the first act that was refused; a program may have passed over it */
  readonly refused: RunnerError | undefined;
  /** Lets nothing more into the transaction. */
  end(): void;
}

/** Methods that decide about the transaction, which is not the program's to begin or to end. */
const transactionControl: ReadonlySet<string | symbol> = new Set<keyof ClientSession>([
  "startTransaction",
  "withTransaction",
  "commitTransaction",
  "abortTransaction",
  "endSession",
  Symbol.asyncDispose,
]);

/**
 * The database and an open transaction's session, in a form that can be given away: a call without the session is refused,
 * because the driver asks its client for a session of its own then; so is ending the transaction, and whatever comes when
 * the program is over.
 */
export function lend({ client, db }: MongoDatabase, session: ClientSession, path: string): Lent {
  let isOver = false;
  let refused: RunnerError | undefined;
  const refuse = (error: RunnerError): never => {
    refused ??= error;
    throw error;
  };
  const lentClient: MongoClient = standIn(client, (key) => {
    if (key === "startSession") return () => refuse(withoutSession(path));
    if (key === "close") return () => refuse(transactionNotItsOwn(path, "close"));
    return undefined;
  });
  const lentSession: ClientSession = standIn(session, (key) => {
    if (key === "client") return lentClient;
    if (key === "hasEnded" && isOver) return true;
    if (transactionControl.has(key)) return () => refuse(transactionNotItsOwn(path, nameOf(key)));
    return undefined;
  });
  return {
    db: lentClient.db(db.databaseName, { readPreference: "primary" }),
    session: lentSession,
    get refused() {
      return refused;
    },
    end: () => (isOver = true),
  };
}

/** The very object, but for what `instead` gives. */
function standIn<T extends object>(object: T, instead: (key: string | symbol) => unknown): T {
  return new Proxy(object, {
    get: (target, key): unknown => instead(key) ?? Reflect.get(target, key),
  });
}

function nameOf(key: string | symbol): string {
  return typeof key === "string" ? key : "endSession";
}

function withoutSession(path: string): RunnerError {
  return new RunnerError(
    "MIGRATION_FAILED",
    `"${path}" calls the database without its session, and so outside of its transaction; nothing of this migration was applied`,
    {
      hint: "give { session } as an option to every call; what no transaction takes is a migration of commands, .json",
      fields: { migration: path },
    },
  );
}

function transactionNotItsOwn(path: string, method: string): RunnerError {
  return new RunnerError(
    "TRANSACTION_CONTROL",
    `"${path}" calls ${method}, but its transaction is opened and ended for it`,
    { hint: "leave it out; throw an error where nothing is to stay", fields: { migration: path } },
  );
}
