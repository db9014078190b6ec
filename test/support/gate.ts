import { setTimeout as sleep } from "node:timers/promises";
import type { TestDatabase } from "./database.ts";

/** A place in SQL where it waits for the test, so that the test can be sure of what is under way meanwhile. */
export interface Gate {
  /** an expression: whatever contains it waits there until the gate is open */
  readonly sql: string;
  /** Resolves when somebody waits before the gate. */
  reached(): Promise<void>;
  /** Lets everybody through from now on. */
  open(): Promise<void>;
}

/** The expression that waits at the gate of this number, for SQL that is written before there is a gate. */
export function waitAtGate(number = 42): string {
  return `pg_advisory_xact_lock_shared(${number})`;
}

/** Makes a gate, closed. `number` tells it from the database's other gates. */
export async function closeGate(database: TestDatabase, number = 42): Promise<Gate> {
  const keeper = await database.connect();
  await keeper.query(`SELECT pg_advisory_lock(${number})`);
  return {
    sql: waitAtGate(number),
    async reached() {
      const waiting = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = ${number} AND NOT granted
 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
      while ((await keeper.query(waiting)).rowCount === 0) await sleep(20);
    },
    async open() {
      await keeper.query(`SELECT pg_advisory_unlock(${number})`);
    },
  };
}
