import { leaseSuite } from "./driver-lease.ts";
import { runSuite } from "./driver-run.ts";
import { type DriverUnderTest, starter } from "./driver-start.ts";
import { trustSuite } from "./driver-trust.ts";
import { workSuite } from "./driver-work.ts";

/** The numbered promises of `Driver` and `LeasedSession`; every implementation keeps all of them. */
export function driverSuite(fresh: () => Promise<DriverUnderTest>): void {
  const start = starter(fresh);
  leaseSuite(start);
  workSuite(start);
  runSuite(start);
  trustSuite(start);
}
