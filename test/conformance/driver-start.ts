import { onTestFinished } from "vitest";
import type { AppliedSteps, LeasedSession } from "../../src/driver/session.ts";
import type { Driver } from "../../src/driver/driver.ts";
import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import type { DriverOptions } from "../../src/driver/open.ts";
import type { MigrationText } from "../support/plain-release.ts";
import { applyBodies, never } from "../support/steps.ts";

/** A fresh database that has never seen us, and how a driver for it is opened. */
export interface DriverUnderTest {
  /** another driver on the same database; closed by the suite */
  open(options?: DriverOptions): Promise<Driver>;
  /** migration `n`: its effect is `n` in {@link effects}, and it fails when it is there already */
  adds(n: number): MigrationText;
  /** migration `n` fails, and where the database has transactions it has the same effect before */
  fails(n: number): MigrationText;
  /** what the bodies have done, in ascending order */
  effects(): Promise<readonly number[]>;
  /** what the passing of time does to every lease of the database: each of them has run out */
  expire(): Promise<void>;
}

/** A database of one test's own, with a first driver on it. */
export interface Started extends DriverUnderTest {
  readonly driver: Driver;
  /** Applies the migrations of these consecutive numbers. */
  apply(session: LeasedSession, numbers: readonly number[]): Promise<AppliedSteps>;
}

/** Starts one test; drivers have the same options as the first unless said otherwise. */
export type Start = (options?: DriverOptions) => Promise<Started>;

/** How tests start on databases that `fresh` gives. */
export function starter(fresh: () => Promise<DriverUnderTest>): Start {
  return async (options) => {
    const under = await fresh();
    const open = async (own = options) => {
      const driver = await under.open(own);
      onTestFinished(() => driver.close());
      return driver;
    };
    const driver = await open();
    const apply = (session: LeasedSession, numbers: readonly number[]) =>
      applyBodies(session, firstTo(under, Math.max(...numbers)), numbers[0]);
    return { ...under, open, driver, apply };
  };
}

/**
 * A holder that sends no heartbeat and does not look at its own clock: what a frozen process is to the database.
 * Its lease runs out when the test says so, whatever the machine is busy with.
 */
export const silentTimes: LeaseTimes = {
  leaseMs: 60_000,
  heartbeatMs: 3_600_000,
  marginMs: -3_600_000,
  cancelPollMs: 3_600_000,
};

function firstTo(under: Pick<DriverUnderTest, "adds">, last: number): readonly MigrationText[] {
  return Array.from({ length: last }, (_, index) => under.adds(index + 1));
}

/** Until somebody has the lease. */
export function untilHeld(driver: Driver): Promise<void> {
  return until(async () => (await driver.state("orders", never)).lease !== null);
}

/** Asks again and again; the test's own time-out is the bound. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Until the signal has fired. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
