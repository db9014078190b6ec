import { readFileSync, writeFileSync } from "node:fs";
import type { Limited, Measured, Results } from "./result.ts";

const begin = "<!-- results: written by npm run bench -->";
const end = "<!-- end of results -->";

/** Ratios that say something: tools that read their migrations from the same kind of place, and goose, which has no bucket. */
const comparisons = [
  { ours: "lockkeeper, folder", theirs: "golang-migrate, folder" },
  { ours: "lockkeeper, folder", theirs: "goose, folder" },
  { ours: "lockkeeper, signed release", theirs: "golang-migrate, bucket" },
  { ours: "lockkeeper, signed release", theirs: "goose, folder" },
  { ours: "lockkeeper, plain bucket", theirs: "golang-migrate, bucket" },
] as const;

/** Replaces what stands between the two marks of a README by the tables of these results. */
export function writeTables(readme: string, results: Results): void {
  const text = readFileSync(readme, "utf8");
  const [before, rest] = split(text, begin, readme);
  const [, after] = split(rest, end, readme);
  writeFileSync(readme, `${before}${begin}\n\n${tables(results)}\n\n${end}${after}`);
}

function split(text: string, mark: string, file: string): readonly [string, string] {
  const at = text.indexOf(mark);
  if (at < 0) throw new Error(`${file} lacks the line ${mark}`);
  return [text.slice(0, at), text.slice(at + mark.length)];
}

function tables(results: Results): string {
  const { bucketMs, databaseMs } = results.environment.delays;
  const near = results.runs.filter(({ distance }) => distance === "near");
  const far = results.runs.filter(({ distance }) => distance === "far");
  return [
    describe(results),
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
    ...limitedTable(results.limited),
    "### Processor time",
    "User and system time of the tool's own process, without the servers'.",
    toolTable(near, ({ cpuMs }) => cpuMs, duration),
  ].join("\n\n");
}

function describe({ environment, runs, floors }: Results): string {
  const versions = Object.entries(environment.versions).map(([name, version]) => `${name} ${version}`);
  const loads = runs.map(({ load }) => load);
  return [
    `Measured ${environment.date} UTC at commit \`${environment.commit}\`.`,
    `- Machine: ${environment.machine}. Load average while measuring: ${Math.min(...loads)} to ${Math.max(...loads)}, median ${median(loads).toFixed(1)}.`,
    `- Versions: ${versions.join(", ")}.`,
    `- PostgreSQL's settings: ${environment.settings}.`,
    `- \`node -e 0\`, the least that any program on Node takes: ${spread(
      floors.map(({ ms }) => ms),
      duration,
    )}.`,
  ].join("\n");
}

/** All runs of one case and size. */
interface Scenario {
  readonly label: string;
  readonly runs: readonly Measured[];
}

function scenarios(runs: readonly Measured[]): readonly Scenario[] {
  const labels = new Map<string, Measured[]>();
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
    ...comparisons.map(({ ours, theirs }) => ratio(times(runs, theirs), times(runs, ours))),
  ]);
  const heads = comparisons.map(({ ours, theirs }) => `${theirs} ÷ ${ours}`);
  return markdown(["", ...heads], rows);
}

/** How times follow the number of migrations: fresh from the middle size to the largest, nothing to do from the smallest. */
function growthTable(runs: readonly Measured[]): string {
  const names = [...new Set(runs.map(({ tool }) => tool))];
  const sizes = [...new Set(runs.map(({ migrations }) => migrations))].toSorted((a, b) => a - b);
  const [smallest, largest] = [sizes[0], sizes.at(-1)];
  const middle = sizes.at(-2);
  const row = (label: string, which: Measured["case"], from: number | undefined): readonly string[] => {
    const of = (size: number | undefined) =>
      runs.filter((run) => run.case === which && run.migrations === size);
    const cells = names.map((name) => ratio(times(of(largest), name), times(of(from), name)));
    return [`${label}, ${show(largest)} ÷ ${show(from)} migrations`].concat(cells);
  };
  const show = (size: number | undefined) => size?.toLocaleString("en") ?? "";
  return markdown(
    ["", ...names],
    [row("empty database", "fresh", middle), row("nothing to do", "noop", smallest)],
  );
}

function times(runs: readonly Measured[], tool: string): readonly number[] {
  return runs.filter((run) => run.tool === tool).map(({ ms }) => ms);
}

function ratio(dividends: readonly number[], divisors: readonly number[]): string {
  if (dividends.length === 0 || divisors.length === 0) return "";
  const value = median(dividends) / median(divisors);
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}

function toolTable(
  runs: readonly Measured[],
  value: (run: Measured) => number | undefined,
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

function limitedTable(limited: readonly Limited[]): readonly string[] {
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

function spread(values: readonly number[], show: (value: number) => string): string {
  if (values.length === 0) return "";
  const [least, most] = [show(Math.min(...values)), show(Math.max(...values))];
  return least === most ? least : `${show(median(values))} (${least} to ${most})`;
}

function duration(ms: number): string {
  if (ms < 1_000) return `${ms.toFixed(0)} ms`;
  return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** The middle value, or the mean of the two in the middle. */
function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const [low = 0, high = 0] = [sorted[Math.ceil(half) - 1], sorted[Math.floor(half)]];
  return (low + high) / 2;
}

function markdown(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, index) => (index === 0 ? "---" : "---:"))), ...rows.map(line)].join(
    "\n",
  );
}
