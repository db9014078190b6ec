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

/** Makes a gate, closed. `number` tells it from the database's other gates. */
export async function closeGate(database: TestDatabase, number = 42): Promise<Gate> {
  const keeper = await database.connect();
  await keeper.query(`SELECT pg_advisory_lock(${number})`);
  return {
    sql: `pg_advisory_xact_lock_shared(${number})`,
    async reached() {
      const waiting = `SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = ${number} AND NOT granted
 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;
      while ((await keeper.query(waiting)).rowCount === 0)
        await new Promise((resolve) => setTimeout(resolve, 20));
    },
    async open() {
      await keeper.query(`SELECT pg_advisory_unlock(${number})`);
    },
  };
}
