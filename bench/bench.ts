/**
 * Measures lockkeeper beside other tools on this machine, writes `bench/results.jsonl` and from it the tables in
 * `bench/README.md`, which says what is measured and how, and the chart beside it.
 *
 *     npm run bench [-- --scenes postgres,http --quick --sizes 10,1000 --tools S3 --results FILE --readme FILE --chart FILE --cli FILE]
 *
 * A scene that is run again replaces its own lines of the results; the others' stay. `--scenes ""` only writes the tables.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import * as v from "valibot";
import { drawChart, type Panel } from "./chart.ts";
import { describeEnvironment } from "./environment.ts";
import { type Goal, goalTable } from "./goal.ts";
import { measure } from "./measure.ts";
import { measureColdStart } from "./cold-start/scene.ts";
import { coldStartGoals, coldStartTables } from "./cold-start/table.ts";
import { measureFloor } from "./floor/scene.ts";
import { floorTables } from "./floor/table.ts";
import { measureHttp } from "./http/scene.ts";
import { httpGoals, httpTables } from "./http/table.ts";
import { measureMongodb } from "./mongodb/scene.ts";
import { mongodbGoals, mongodbTables } from "./mongodb/table.ts";
import { postgresGoals } from "./postgres/goals.ts";
import { postgresPanels } from "./postgres/panels.ts";
import { measurePostgres } from "./postgres/scene.ts";
import { postgresTables } from "./postgres/table.ts";
import { writeTables } from "./readme.ts";
import { addResult, type Canary, dropResults, type Line, readResults } from "./result.ts";
import type { Bench } from "./scene.ts";
import { duration, spread } from "./table.ts";

/** One subject of the comparison. */
interface Scene {
  readonly title: string;
  measure(bench: Bench): Promise<void>;
  /** markdown sections, made from the scene's own lines among these */
  tables(lines: readonly Line[]): string;
  goals(lines: readonly Line[]): readonly Goal[];
  /** of the chart */
  panels?(lines: readonly Line[]): readonly Panel[];
}

/** By name, in the order in which they run; all kinds of a scene's lines begin with its name. A new scene is one entry here. */
const scenes: Readonly<Record<string, Scene>> = {
  postgres: {
    title: "PostgreSQL, by command line",
    measure: measurePostgres,
    tables: postgresTables,
    goals: postgresGoals,
    panels: postgresPanels,
  },
  mongodb: {
    title: "MongoDB, by command line",
    measure: measureMongodb,
    tables: mongodbTables,
    goals: mongodbGoals,
  },
  http: { title: "Over HTTP", measure: measureHttp, tables: httpTables, goals: httpGoals },
  "cold-start": {
    title: "Starts",
    measure: measureColdStart,
    tables: coldStartTables,
    goals: coldStartGoals,
  },
  floor: { title: "Floors", measure: measureFloor, tables: floorTables, goals: () => [] },
};

const here = import.meta.dirname;
const { values: options } = parseArgs({
  options: {
    scenes: { type: "string", default: Object.keys(scenes).join(",") },
    quick: { type: "boolean", default: false },
    /** numbers of migrations */
    sizes: { type: "string" },
    tools: { type: "string" },
    results: { type: "string", default: path.join(here, "results.jsonl") },
    readme: { type: "string", default: path.join(here, "README.md") },
    chart: { type: "string", default: path.join(here, "chart.svg") },
    cli: { type: "string" },
  },
});

const chartTitle = "How long a whole run takes, from start to exit";
const chartNote =
  "Medians with the fastest and the slowest run; × is against a signed release from S3. Logarithmic.";

await main();

async function main(): Promise<void> {
  const ours = { cli: path.resolve(options.cli ?? installedProgram()) };
  if (!existsSync(ours.cli)) throw new Error(`${ours.cli} is missing; first run: npm run build`);
  for (const name of options.scenes.split(",").filter((word) => word !== "")) {
    const scene = scenes[name];
    if (scene === undefined) throw new Error(`no scene ${name}; there are ${Object.keys(scenes).join(", ")}`);
    dropResults(options.results, (line) => isOfScene(line, name));
    const record = (line: Line): void => addResult(options.results, line);
    record(await describeEnvironment(ours, name));
    await scene.measure({
      ours,
      isQuick: options.quick,
      ...(options.sizes === undefined ? {} : { sizes: options.sizes.split(",").map(Number) }),
      ...(options.tools === undefined ? {} : { tools: options.tools }),
      record,
      canary: async () =>
        record({
          kind: "canary",
          scene: name,
          ...(await measure({ program: process.execPath, args: ["-e", "0"] })),
        }),
    });
  }
  const lines = readResults(options.results);
  writeTables(options.readme, tables(lines));
  const panels = Object.values(scenes).flatMap((scene) => scene.panels?.(lines) ?? []);
  if (panels.length > 0) writeFileSync(options.chart, drawChart(chartTitle, chartNote, panels));
}

/** The program that `npm install` links as `lockkeeper`. */
function installedProgram(): string {
  const file = path.join(here, "..", "package.json");
  const { bin } = v.parse(
    v.object({ bin: v.object({ lockkeeper: v.string() }) }),
    JSON.parse(readFileSync(file, "utf8")),
  );
  return path.join(here, "..", bin.lockkeeper);
}

function isOfScene(line: Line, name: string): boolean {
  return line.kind === "environment" || line.kind === "canary"
    ? line.scene === name
    : line.kind === name || line.kind.startsWith(`${name}-`);
}

function tables(lines: readonly Line[]): string {
  const measured = Object.entries(scenes).filter(([name]) => lines.some((line) => isOfScene(line, name)));
  return [
    ...(measured.some(([, { panels }]) => panels !== undefined) ? [`![${chartTitle}](chart.svg)`] : []),
    "### Numbers to reach",
    goalTable(measured.flatMap(([, scene]) => scene.goals(lines))),
    ...measured.flatMap(([name, { title, tables }]) => [
      `## ${title}`,
      describeScene(lines.filter((line) => isOfScene(line, name))),
      tables(lines),
    ]),
  ].join("\n\n");
}

function describeScene(lines: readonly Line[]): string {
  const environment = lines.find((line) => line.kind === "environment");
  if (environment === undefined) throw new Error("the results do not say where they were measured");
  const canaries: readonly Canary[] = lines.filter((line) => line.kind === "canary");
  const versions = Object.entries(environment.versions).map(([name, version]) => `${name} ${version}`);
  const noise = spread(
    canaries.map(({ ms }) => ms),
    duration,
  );
  const load = spread(
    canaries.map((canary) => canary.load),
    (value) => value.toFixed(1),
  );
  return [
    `Measured ${environment.date} UTC at commit \`${environment.commit}\` on ${environment.machine}, with ${versions.join(", ")}.`,
    `The machine's noise: \`node -e 0\`, ${canaries.length} times in between, took ${noise}; load average ${load}.`,
  ].join("\n");
}
