import type { Sample } from "./series.ts";

/** What this process is and takes. */
export function processSamples(version: string): readonly Sample[] {
  const { user, system } = process.cpuUsage();
  return [
    { name: "lockkeeper_build_info", labels: { version, node: process.versions.node }, value: 1 },
    { name: "process_cpu_seconds_total", labels: {}, value: (user + system) / 1e6 },
    { name: "process_resident_memory_bytes", labels: {}, value: process.memoryUsage.rss() },
    { name: "process_start_time_seconds", labels: {}, value: performance.timeOrigin / 1000 },
    {
      name: "nodejs_eventloop_utilization_ratio",
      labels: {},
      value: performance.eventLoopUtilization().utilization,
    },
  ];
}
