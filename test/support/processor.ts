/**
 * Milliseconds of the processor that some work takes: other processes do not count, however busy the machine is.
 * Still not for small bounds: what else the machine does to caches and clocks may well make it five times as many.
 */
export function processorMs(work: () => unknown): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}
