import type { Line } from "../result.ts";
import { duration, markdown, ratio, size, spread } from "../table.ts";
import { growthTable, onePendingTable } from "./growth.ts";
import type { PostgresLimited, PostgresRun, PostgresTraffic } from "./result.ts";
import { count, isFar, mib, near, rowsOf, type Situation, sizes } from "./select.ts";
import { type ToolName, toolNames } from "./tool.ts";

/** Ratios that say something: tools that read from the same kind of place, and the folder tools beside what replaces them. */
const comparisons = [
  { ours: "lockkeeper, folder", theirs: "golang-migrate, folder" },
  { ours: "lockkeeper, folder", theirs: "goose, folder" },
  { ours: "lockkeeper, folder", theirs: "dbmate, folder" },
  { ours: "lockkeeper, folder", theirs: "Atlas, folder" },
  { ours: "lockkeeper, folder", theirs: "Flyway, folder" },
  { ours: "lockkeeper, plain files, S3", theirs: "golang-migrate, S3" },
  { ours: "lockkeeper, signed release, S3", theirs: "golang-migrate, S3" },
  { ours: "lockkeeper, signed release, GCS", theirs: "golang-migrate, GCS" },
  { ours: "lockkeeper, signed release, S3", theirs: "goose, folder" },
  { ours: "lockkeeper, signed release, S3", theirs: "dbmate, folder" },
] as const satisfies readonly { readonly ours: ToolName; readonly theirs: ToolName }[];

/** A column of a table. */
interface Column {
  readonly head: string;
  holds(situation: Situation): boolean;
}

/** The sections of this scene. */
export function postgresTables(lines: readonly Line[]): string {
  const site = lines.find((line) => line.kind === "postgres-site");
  if (site === undefined) throw new Error("the results do not say what servers there were");
  const runs = lines.filter((line) => line.kind === "postgres-run");
  const traffic = lines.filter((line) => line.kind === "postgres-traffic");
  const versions = Object.entries(site.versions).map(([name, version]) => `${name} ${version}`);
  return [
    `Beside: ${versions.join(", ")}. PostgreSQL's settings: ${site.settings}.`,
    ...(site.absent.length === 0 ? [] : [`Left out, since not on the machine: ${site.absent.join("; ")}.`]),
    `Times are of the whole process, from start to exit: median (fastest to slowest), number of runs. A ratio is a median divided by a median: more than 1 means that lockkeeper is faster. Not at 10,000: Atlas and Flyway, whose time grows with the square of the number, so that one run would take many minutes; golang-migrate from GCS, since fake-gcs-server goes through all its objects at each request, and it would be that server that is measured.`,
    "### An empty database",
    "Everything on loopback.",
    ...timesAndRatios(runs, sizesOf(runs, "fresh")),
    "### Nothing to do",
    "Everything on loopback.",
    ...timesAndRatios(runs, sizesOf(runs, "noop")),
    "### One more migration",
    "On top of what is applied already. Everything on loopback.",
    ...timesAndRatios(runs, sizesOf(runs, "pending")),
    ...farSections(runs),
    "### Cost grows with what is pending, not with what exists",
    "What one more migration costs. Beside it how often as much other things take; medians divided by medians, on loopback.",
    onePendingTable(runs, traffic),
    growthTable(runs),
    "### Requests to the bucket",
    "Of one run: requests, bytes to the bucket and from it. Counted on the wire, headers and all.",
    trafficTable(
      traffic,
      ({ bucket }) =>
        bucket && `${bucket.exchanges}, ${size(bucket.bytesUp)} up, ${size(bucket.bytesDown)} down`,
    ),
    "### Round trips to the database",
    "Of one run, after connecting and logging in: how often the tool sent something and then had to wait. In brackets the connections.",
    trafficTable(traffic, ({ database }) => `${database.exchanges} (${database.connections})`),
    "### Peak memory",
    "MiB resident, median (least to most), number of runs.",
    toolTable(near(runs), allColumns(runs), ({ peakMb }) => peakMb, mib),
    ...limitedTable(lines.filter((line) => line.kind === "postgres-limited")),
    "### Processor time",
    "User and system time of the tool's own process, without the servers'; the kernel counts it in steps of 10 ms.",
    toolTable(
      near(runs),
      allColumns(runs),
      ({ cpuMs }) => cpuMs,
      (ms) => (ms < 10 ? "< 10 ms" : duration(ms)),
    ),
  ].join("\n\n");
}

function timesAndRatios(runs: readonly PostgresRun[], columns: readonly Column[]): readonly string[] {
  return [toolTable(runs, columns, ({ ms }) => ms, duration), ratioTable(runs, columns)];
}

/** One column a size that was measured in this case on loopback. */
function sizesOf(runs: readonly PostgresRun[], which: PostgresRun["case"]): readonly Column[] {
  return sizes(near(runs).filter((run) => run.case === which)).map((migrations) => ({
    head: which === "pending" ? `on top of ${count(migrations)}` : `${count(migrations)} migrations`,
    holds: (run) => !isFar(run) && run.case === which && run.migrations === migrations,
  }));
}

function allColumns(runs: readonly PostgresRun[]): readonly Column[] {
  const titles = { fresh: "empty database", noop: "nothing to do", pending: "one more" } as const;
  return (["fresh", "noop", "pending"] as const).flatMap((which) =>
    sizesOf(runs, which).map(({ head, holds }) => ({ head: `${titles[which]}, ${head}`, holds })),
  );
}

/** One section a case and size that was measured with delays; its columns are the networks. */
function farSections(runs: readonly PostgresRun[]): readonly string[] {
  const titles = {
    fresh: "An empty database",
    noop: "Nothing to do",
    pending: "One more migration",
  } as const;
  return (["fresh", "noop"] as const).flatMap((which) => {
    const far = runs.filter((run) => isFar(run) && run.case === which);
    const networks = new Map(
      [...near(runs), ...far].map(({ bucketMs, databaseMs }) => [
        `${bucketMs} and ${databaseMs} ms`,
        { bucketMs, databaseMs },
      ]),
    );
    return sizes(far).flatMap((migrations) => {
      const columns: readonly Column[] = [...networks].map(([head, { bucketMs, databaseMs }]) => ({
        head,
        holds: (run) =>
          run.case === which &&
          run.migrations === migrations &&
          run.bucketMs === bucketMs &&
          run.databaseMs === databaseMs,
      }));
      const tools = new Set(far.filter((run) => run.migrations === migrations).map(({ tool }) => tool));
      return [
        `### ${titles[which]} over a network, ${count(migrations)} migrations`,
        "Columns: milliseconds that a round trip to the bucket and one to the database take.",
        ...timesAndRatios(
          runs.filter(({ tool }) => tools.has(tool)),
          columns,
        ),
      ];
    });
  });
}

function toolTable(
  runs: readonly PostgresRun[],
  columns: readonly Column[],
  value: (run: PostgresRun) => number,
  show: (value: number) => string,
): string {
  const rows = rowsOf(runs).map((tool) => [
    tool,
    ...columns.map((column) => {
      const values = runs.filter((run) => run.tool === tool && column.holds(run)).map(value);
      return values.length === 0 ? "" : `${spread(values, show)}, ${values.length}`;
    }),
  ]);
  return markdown(["", ...columns.map(({ head }) => head)], rows);
}

function ratioTable(runs: readonly PostgresRun[], columns: readonly Column[]): string {
  const rows = comparisons.map(({ ours, theirs }) => [
    `${theirs} ÷ ${ours}`,
    ...columns.map((column) => {
      const of = (tool: ToolName): readonly number[] =>
        runs.filter((run) => run.tool === tool && column.holds(run)).map(({ ms }) => ms);
      return ratio(of(theirs), of(ours));
    }),
  ]);
  return markdown(
    ["", ...columns.map(({ head }) => head)],
    rows.filter(([, ...cells]) => cells.some((cell) => cell !== "")),
  );
}

function trafficTable(
  traffic: readonly PostgresTraffic[],
  show: (line: PostgresTraffic) => string | undefined,
): string {
  const titles = { fresh: "empty database", noop: "nothing to do", pending: "one more on" } as const;
  const columns = (["noop", "pending", "fresh"] as const).flatMap((which) =>
    sizes(traffic.filter((line) => line.case === which)).map((migrations) => ({ which, migrations })),
  );
  const tools = toolNames.filter((tool) =>
    traffic.some((line) => line.tool === tool && show(line) !== undefined),
  );
  return markdown(
    ["", ...columns.map(({ which, migrations }) => `${titles[which]} ${count(migrations)}`)],
    tools.map((tool) => [
      tool,
      ...columns.map(({ which, migrations }) => {
        const line = traffic.find(
          (line) => line.tool === tool && line.case === which && line.migrations === migrations,
        );
        return (line && show(line)) ?? "";
      }),
    ]),
  );
}

function limitedTable(limited: readonly PostgresLimited[]): readonly string[] {
  const [first] = limited;
  if (first === undefined) return [];
  const rows = limited.map(({ tool, cost }) => [
    tool,
    cost === null ? "**failed**" : duration(cost.ms),
    cost === null ? "" : mib(cost.peakMb),
  ]);
  return [
    `An empty database, ${count(first.migrations)} migrations of ${size(first.bytesEach)}, within a control group of ${first.limitMb} MiB as a container has it, one run each:`,
    markdown(["", "time", "peak MiB"], rows),
  ];
}
