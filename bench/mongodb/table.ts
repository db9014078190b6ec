import type { Goal } from "../goal.ts";
import type { Line } from "../result.ts";
import { duration, markdown, median, ratio, spread, times } from "../table.ts";
import type { MongodbRun } from "./result.ts";

const folder = "lockkeeper, folder";
const signed = "lockkeeper, signed release";
/** Of each kind of ours, beside everybody else. */
const others = [
  "golang-migrate, folder",
  "golang-migrate, folder, with its lock",
  "migrate-mongo, folder",
] as const;

/** The sections of this scene. */
export function mongodbTables(lines: readonly Line[]): string {
  const site = lines.find((line) => line.kind === "mongodb-site");
  if (site === undefined) throw new Error("the results do not say what servers there were");
  const runs = runsOf(lines);
  const near = runs.filter(({ distance }) => distance === "near");
  const far = runs.filter(({ distance }) => distance === "far");
  const versions = Object.entries(site.versions).map(([name, version]) => `${name} ${version}`);
  return [
    `Beside: ${versions.join(", ")}. Each migration builds one index, ${site.databaseMs} ms to the database and back where the row says so.`,
    "### How many times as long the others take",
    "More than 1: lockkeeper is faster. Medians divided by medians.",
    ratioTable(runs, site.databaseMs),
    "### How it grows",
    "On loopback; medians divided by medians.",
    growthTable(near),
    "### Times on loopback",
    "Median (fastest to slowest) of the whole process, from start to exit.",
    toolTable(near, ({ ms }) => ms, duration),
    `### Times with ${site.databaseMs} ms to the database`,
    toolTable(far, ({ ms }) => ms, duration),
    "### Commands to the database",
    "Of one run: what each tool sent and waited for the answer of. Connecting and watching the server are not counted.",
    toolTable(far, ({ commands }) => commands, String),
    "### Peak memory",
    "MiB resident, median (least to most).",
    toolTable(
      near,
      ({ peakMb }) => peakMb,
      (mb) => mb.toFixed(0),
    ),
    "### Processor time",
    "User and system time of the tool's own process, without the servers'.",
    toolTable(near, ({ cpuMs }) => cpuMs, duration),
  ].join("\n\n");
}

/** What this scene measures of the numbers to reach. */
export function mongodbGoals(lines: readonly Line[]): readonly Goal[] {
  const runs = runsOf(lines);
  const startMs = median(
    lines.flatMap((line) => (line.kind === "canary" && line.scene === "mongodb" ? [line.ms] : [])),
  );
  const rows = scenarios(runs).filter(({ runs: [first] }) => first?.case === "fresh");
  const beside = rows.map(({ label, runs }) => {
    const ours = median(millis(runs, folder)) - startMs;
    const best = Math.min(...others.map((name) => median(millis(runs, name))));
    return { label: runs[0]?.distance === "far" ? `${label}, with the delay` : label, value: best / ours };
  });
  const worst = beside.toSorted((a, b) => a.value - b.value)[0];
  const commands = runs.flatMap((run) =>
    run.case === "noop" && run.tool === signed && run.commands !== undefined ? [run.commands] : [],
  );
  const most = Math.max(...commands);
  return [
    ...(worst === undefined
      ? []
      : [
          {
            what: "MongoDB: empty database, the quickest of the other tools ÷ lockkeeper without Node's start, worst of all sizes and distances",
            target: "at least 1",
            measured: `${times(worst.value)} (${worst.label})`,
            isReached: worst.value >= 1,
          },
        ]),
    ...(commands.length === 0
      ? []
      : [
          {
            what: "MongoDB: commands that a signed release with nothing to do waits for, after connecting",
            target: "1",
            measured: String(most),
            isReached: most <= 1,
          },
        ]),
  ];
}

function runsOf(lines: readonly Line[]): readonly MongodbRun[] {
  return lines.filter((line) => line.kind === "mongodb-run");
}

/** All runs of one case, size and distance. */
interface Scenario {
  readonly label: string;
  readonly runs: readonly MongodbRun[];
}

const cases: Readonly<Record<MongodbRun["case"], string>> = {
  fresh: "empty database, * migrations",
  noop: "nothing to do, * migrations",
  one: "one pending on top of * migrations",
};

/** Loopback before the delay, fresh before nothing to do, small before large. */
function scenarios(runs: readonly MongodbRun[]): readonly Scenario[] {
  const sorted = runs.toSorted(
    (a, b) =>
      b.distance.localeCompare(a.distance) || a.case.localeCompare(b.case) || a.migrations - b.migrations,
  );
  const groups = Map.groupBy(sorted, (run) => `${run.distance} ${run.case} ${run.migrations}`);
  return [...groups.values()].map((runs) => ({ label: labelOf(runs[0]), runs }));
}

function labelOf(run: MongodbRun | undefined): string {
  if (run === undefined) return "";
  return cases[run.case].replace("*", run.migrations.toLocaleString("en"));
}

function ratioTable(runs: readonly MongodbRun[], databaseMs: number): string {
  const pairs = [folder, signed].flatMap((ours) => others.map((theirs) => ({ ours, theirs })));
  const rows = scenarios(runs).map(({ label, runs }) => [
    `${label}${runs[0]?.distance === "far" ? `, with ${databaseMs} ms to the database` : ""}`,
    ...pairs.map(({ ours, theirs }) => ratio(millis(runs, theirs), millis(runs, ours))),
  ]);
  return markdown(["", ...pairs.map(({ ours, theirs }) => `${theirs} ÷ ${ours}`)], rows);
}

/** How times follow the number of migrations: fresh from the middle size to the largest, nothing to do from the smallest. */
function growthTable(runs: readonly MongodbRun[]): string {
  const names = namesOf(runs);
  const sizes = [...new Set(runs.map(({ migrations }) => migrations))].toSorted((a, b) => a - b);
  const row = (which: "fresh" | "noop", from: number | undefined): readonly string[] => {
    const of = (size: number | undefined): readonly MongodbRun[] =>
      runs.filter((run) => run.case === which && run.migrations === size);
    const show = (size: number | undefined): string => size?.toLocaleString("en") ?? "";
    const label = cases[which].replace("*", `${show(sizes.at(-1))} ÷ ${show(from)}`);
    return [label, ...names.map((name) => ratio(millis(of(sizes.at(-1)), name), millis(of(from), name)))];
  };
  return markdown(["", ...names], [row("fresh", sizes.at(-2)), row("noop", sizes[0])]);
}

function toolTable(
  runs: readonly MongodbRun[],
  value: (run: MongodbRun) => number | undefined,
  show: (value: number) => string,
): string {
  const names = namesOf(runs);
  const rows = scenarios(runs).map(({ label, runs }) => [
    label,
    ...names.map((name) =>
      spread(
        runs.flatMap((run) => (run.tool === name ? (value(run) ?? []) : [])),
        show,
      ),
    ),
    String(runs.length / names.length),
  ]);
  return markdown(["", ...names, "runs each"], rows);
}

function namesOf(runs: readonly MongodbRun[]): readonly string[] {
  return [...new Set(runs.map(({ tool }) => tool))];
}

function millis(runs: readonly MongodbRun[], tool: string): readonly number[] {
  return runs.filter((run) => run.tool === tool).map(({ ms }) => ms);
}
