import type { Goal } from "../goal.ts";
import type { Line } from "../result.ts";
import { duration, markdown, ratio, spread } from "../table.ts";
import type { PostgresLimited, PostgresRun } from "./result.ts";

/** Ratios that say something: tools that read their migrations from the same kind of place, and goose, which has no bucket. */
const comparisons = [
  { ours: "lockkeeper, folder", theirs: "golang-migrate, folder" },
  { ours: "lockkeeper, folder", theirs: "goose, folder" },
  { ours: "lockkeeper, signed release", theirs: "golang-migrate, bucket" },
  { ours: "lockkeeper, signed release", theirs: "goose, folder" },
  { ours: "lockkeeper, plain bucket", theirs: "golang-migrate, bucket" },
] as const;

/** The sections of this scene. */
export function postgresTables(lines: readonly Line[]): string {
  const site = lines.find((line) => line.kind === "postgres-site");
  if (site === undefined) throw new Error("the results do not say what servers there were");
  const { bucketMs, databaseMs } = site.delays;
  const runs = lines.filter((line) => line.kind === "postgres-run");
  const near = runs.filter(({ distance }) => distance === "near");
  const far = runs.filter(({ distance }) => distance === "far");
  const versions = Object.entries(site.versions).map(([name, version]) => `${name} ${version}`);
  return [
    `Beside: ${versions.join(", ")}. PostgreSQL's settings: ${site.settings}.`,
    "### How many times as long the others take",
    "More than 1: lockkeeper is faster. Medians divided by medians.",
    ratioTable(
      [...scenarios(near), ...scenarios(far)],
      `with ${bucketMs} ms to the bucket and ${databaseMs} ms to the database`,
    ),
    "### How it grows",
    "On loopback; medians divided by medians.",
    growthTable(near),
    "### Times on loopback",
    "Median (fastest to slowest) of the whole process, from start to exit.",
    toolTable(near, ({ ms }) => ms, duration),
    `### Times with ${bucketMs} ms to the bucket and ${databaseMs} ms to the database`,
    toolTable(far, ({ ms }) => ms, duration),
    "### Requests to the bucket",
    "Of one run. Counted by the proxies that add the delays.",
    toolTable(far, ({ bucketRequests }) => bucketRequests, String),
    "### Round trips to the database",
    "Of one run, after connecting and logging in: how often the tool sent something and then had to wait.",
    toolTable(far, ({ databaseExchanges }) => databaseExchanges, String),
    "### Peak memory",
    "MiB resident, median (least to most).",
    toolTable(
      near,
      ({ peakMb }) => peakMb,
      (mb) => mb.toFixed(0),
    ),
    ...limitedTable(lines.filter((line) => line.kind === "postgres-limited")),
    "### Processor time",
    "User and system time of the tool's own process, without the servers'.",
    toolTable(near, ({ cpuMs }) => cpuMs, duration),
  ].join("\n\n");
}

/** What this scene measures of the numbers to reach. */
export function postgresGoals(_lines: readonly Line[]): readonly Goal[] {
  return [];
}

/** All runs of one case and size. */
interface Scenario {
  readonly label: string;
  readonly runs: readonly PostgresRun[];
}

function scenarios(runs: readonly PostgresRun[]): readonly Scenario[] {
  const labels = new Map<string, PostgresRun[]>();
  for (const run of runs) {
    const what = run.case === "fresh" ? "empty database" : "nothing to do";
    const label = `${what}, ${run.migrations.toLocaleString("en")} migrations${run.distance === "far" ? ", far" : ""}`;
    labels.set(label, [...(labels.get(label) ?? []), run]);
  }
  return [...labels].map(([label, runs]) => ({ label, runs })).toSorted((a, b) => order(a) - order(b));
}

/** Fresh before nothing to do, small before large. */
function order({ runs: [first] }: Scenario): number {
  return first === undefined ? 0 : first.migrations + (first.case === "fresh" ? 0 : 1_000_000);
}

function ratioTable(all: readonly Scenario[], far: string): string {
  const rows = all.map(({ label, runs }) => [
    label.replace(/, far$/, `, ${far}`),
    ...comparisons.map(({ ours, theirs }) => ratio(millis(runs, theirs), millis(runs, ours))),
  ]);
  const heads = comparisons.map(({ ours, theirs }) => `${theirs} ÷ ${ours}`);
  return markdown(["", ...heads], rows);
}

/** How times follow the number of migrations: fresh from the middle size to the largest, nothing to do from the smallest. */
function growthTable(runs: readonly PostgresRun[]): string {
  const names = [...new Set(runs.map(({ tool }) => tool))];
  const sizes = [...new Set(runs.map(({ migrations }) => migrations))].toSorted((a, b) => a - b);
  const [smallest, largest] = [sizes[0], sizes.at(-1)];
  const middle = sizes.at(-2);
  const row = (label: string, which: PostgresRun["case"], from: number | undefined): readonly string[] => {
    const of = (size: number | undefined) =>
      runs.filter((run) => run.case === which && run.migrations === size);
    const cells = names.map((name) => ratio(millis(of(largest), name), millis(of(from), name)));
    return [`${label}, ${show(largest)} ÷ ${show(from)} migrations`].concat(cells);
  };
  const show = (size: number | undefined) => size?.toLocaleString("en") ?? "";
  return markdown(
    ["", ...names],
    [row("empty database", "fresh", middle), row("nothing to do", "noop", smallest)],
  );
}

function millis(runs: readonly PostgresRun[], tool: string): readonly number[] {
  return runs.filter((run) => run.tool === tool).map(({ ms }) => ms);
}

function toolTable(
  runs: readonly PostgresRun[],
  value: (run: PostgresRun) => number | undefined,
  show: (value: number) => string,
): string {
  const names = [...new Set(runs.filter((run) => value(run) !== undefined).map(({ tool }) => tool))];
  const rows = scenarios(runs).map(({ label, runs }) => {
    const cells = names.map((name) =>
      spread(
        runs.flatMap((run) => (run.tool === name ? (value(run) ?? []) : [])),
        show,
      ),
    );
    const tools = new Set(runs.map(({ tool }) => tool)).size;
    return [label.replace(/, far$/, "")].concat(cells, String(runs.length / tools));
  });
  return markdown(["", ...names, "runs each"], rows);
}

function limitedTable(limited: readonly PostgresLimited[]): readonly string[] {
  const [first] = limited;
  if (first === undefined) return [];
  const rows = limited.map(({ tool, cost }) => [
    tool,
    cost === null ? "failed" : duration(cost.ms),
    cost?.peakMb.toFixed(0) ?? "",
  ]);
  const count = first.migrations.toLocaleString("en");
  return [
    `An empty database, ${count} migrations, within a control group of ${first.limitMb} MiB as a container has it, one run each:`,
    markdown(["", "time", "peak MiB"], rows),
  ];
}
