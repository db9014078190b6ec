import { duration, markdown, median, ratio, size } from "../table.ts";
import type { PostgresRun, PostgresTraffic } from "./result.ts";
import { count, mib, near, rowsOf, sizes } from "./select.ts";
import type { ToolName } from "./tool.ts";

/** What one more migration costs, on top of few and of many. */
export function onePendingTable(runs: readonly PostgresRun[], traffic: readonly PostgresTraffic[]): string {
  const ofCase = near(runs).filter((run) => run.case === "pending");
  const rows = rowsOf(ofCase).flatMap((tool) =>
    sizes(ofCase).map((migrations) => {
      const here = ofCase.filter((run) => run.tool === tool && run.migrations === migrations);
      const wire = traffic.find(
        (line) => line.case === "pending" && line.tool === tool && line.migrations === migrations,
      );
      if (here.length === 0 || wire === undefined) return [];
      return [
        `${tool}, on top of ${count(migrations)}`,
        wire.bucket === undefined ? "" : String(wire.bucket.exchanges),
        wire.bucket === undefined ? "" : size(wire.bucket.bytesUp + wire.bucket.bytesDown),
        String(wire.database.exchanges),
        `${mib(median(here.map(({ peakMb }) => peakMb)))} MiB`,
        duration(median(here.map(({ ms }) => ms))),
      ];
    }),
  );
  return markdown(
    ["", "requests", "bytes, both ways", "round trips", "memory", "time"],
    rows.filter((row) => row.length > 0),
  );
}

/** How times follow the number of migrations: fresh from the last size but one to the largest, else from the smallest. */
export function growthTable(runs: readonly PostgresRun[]): string {
  const of = (
    tool: ToolName,
    which: PostgresRun["case"],
    migrations: number | undefined,
  ): readonly number[] =>
    near(runs)
      .filter((run) => run.tool === tool && run.case === which && run.migrations === migrations)
      .map(({ ms }) => ms);
  const all = sizes(near(runs));
  const [smallest, middle, largest] = [all[0], all.at(-2), all.at(-1)];
  const columns = [
    { head: "empty database", which: "fresh", from: middle },
    { head: "nothing to do", which: "noop", from: smallest },
    { head: "one more", which: "pending", from: smallest },
  ] as const;
  const show = (migrations: number | undefined): string =>
    migrations === undefined ? "" : count(migrations);
  return markdown(
    ["", ...columns.map(({ head, from }) => `${head}, ${show(largest)} ÷ ${show(from)} migrations`)],
    rowsOf(runs).map((tool) => [
      tool,
      ...columns.map(({ which, from }) => ratio(of(tool, which, largest), of(tool, which, from))),
    ]),
  );
}
