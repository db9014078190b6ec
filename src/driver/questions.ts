import type { Driver } from "./driver.ts";

/** Everything that a driver is asked, which is all of it but its name and its end. */
export type Questions = Omit<Driver, "url" | "close">;

/** All questions of a driver, each put by `ask`, which knows the driver that answers. */
export function questionsBy(ask: <T>(question: (driver: Driver) => Promise<T>) => Promise<T>): Questions {
  return {
    state: (...given) => ask((driver) => driver.state(...given)),
    history: (...given) => ask((driver) => driver.history(...given)),
    withLease: (...given) => ask((driver) => driver.withLease(...given)),
    acceptRun: (...given) => ask((driver) => driver.acceptRun(...given)),
    acceptNoop: (...given) => ask((driver) => driver.acceptNoop(...given)),
    spendUse: (...given) => ask((driver) => driver.spendUse(...given)),
    run: (...given) => ask((driver) => driver.run(...given)),
    runs: (...given) => ask((driver) => driver.runs(...given)),
    pickUpRuns: (...given) => ask((driver) => driver.pickUpRuns(...given)),
    audit: {
      append: (...given) => ask((driver) => driver.audit.append(...given)),
      read: (...given) => ask((driver) => driver.audit.read(...given)),
    },
    roots: (...given) => ask((driver) => driver.roots(...given)),
    setPaused: (...given) => ask((driver) => driver.setPaused(...given)),
    resetTrust: (...given) => ask((driver) => driver.resetTrust(...given)),
    updateRun: (...given) => ask((driver) => driver.updateRun(...given)),
    requestCancel: (...given) => ask((driver) => driver.requestCancel(...given)),
    unlock: (...given) => ask((driver) => driver.unlock(...given)),
    foreign: {
      tables: (...given) => ask((driver) => driver.foreign.tables(...given)),
      rows: (...given) => ask((driver) => driver.foreign.rows(...given)),
      begin: (...given) => ask((driver) => driver.foreign.begin(...given)),
      withLock: (...given) => ask((driver) => driver.foreign.withLock(...given)),
    },
  };
}
