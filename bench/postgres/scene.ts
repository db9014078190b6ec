import { findPart, partsFolder } from "../../test/support/parts.ts";
import { measure } from "../measure.ts";
import { openMemoryLimit } from "../memory-limit.ts";
import type { Bench } from "../scene.ts";
import { type Delays, directly, type Network, openNetwork } from "./network.ts";
import type { PostgresRun } from "./result.ts";
import { openSite, type Site } from "./site.ts";
import { type Place, type Tool, tools } from "./tool.ts";

/** A bucket in the same region, a database in the same zone. */
const far = { bucketMs: 20, databaseMs: 5 };
/** A usual limit of an initContainer. */
const limitMb = 128;
const limitedBytesEach = 1_024;

/** How much is measured. */
interface Plan {
  readonly sizes: readonly number[];
  /** the most migrations that fresh runs with delays have: golang-migrate takes a minute for 1,000 */
  readonly farTo: number;
  /** the most that are counted on the wire for the others too, from an empty database */
  readonly countedTo: number;
  /** runs of each tool, where one is short */
  readonly runs: number;
  /** runs of each tool where one more migration has come; the same for all, since each run brings one more */
  readonly pendingRuns: number;
  /** runs of each tool by what the first took */
  readonly longRuns: readonly { readonly fromMs: number; readonly runs: number }[];
}

const wholePlan: Plan = {
  sizes: [10, 100, 1_000, 10_000],
  farTo: 1_000,
  countedTo: 1_000,
  runs: 7,
  pendingRuns: 5,
  longRuns: [
    { fromMs: 20_000, runs: 1 },
    { fromMs: 2_000, runs: 3 },
    { fromMs: 500, runs: 5 },
  ],
};
const quickPlan: Plan = {
  sizes: [10, 100],
  farTo: 100,
  countedTo: 100,
  runs: 2,
  pendingRuns: 2,
  longRuns: [{ fromMs: 1_000, runs: 1 }],
};

/** lockkeeper beside the tools that read files or buckets, each by its command line. */
export async function measurePostgres(bench: Bench): Promise<void> {
  for (const server of ["versitygw", "fake-gcs-server"] as const)
    if (findPart(server) === undefined)
      throw new Error(`${server} is missing in ${partsFolder}; first run: npm run parts`);
  const plan = { ...(bench.isQuick ? quickPlan : wholePlan), ...(bench.sizes && { sizes: bench.sizes }) };
  const [smallest, largest] = [Math.min(...plan.sizes), Math.max(...plan.sizes)];
  const farSize = Math.max(...plan.sizes.filter((size) => size <= plan.farTo));
  const all = tools(bench.ours).filter(({ name }) => name.includes(bench.tools ?? ""));
  const present = all.filter(({ program }) => program !== undefined);
  const absent = all.filter(({ program }) => program === undefined).map(({ name }) => name);

  await using site = await openSite(bench.ours);
  bench.record({ kind: "postgres-site", ...site.description, absent });
  await using counting = await openNetwork(site, { bucketMs: 0, databaseMs: 0 });
  // The small first, whole: a server that holds databases of 10,000 tables has other things to do as well.
  for (const size of plan.sizes.toSorted((one, other) => one - other)) {
    const contestants = present.filter(({ most }) => size <= most);
    const scenario: Scenario = { bench, plan, site, place: await site.place(size), size, contestants };
    const isEnd = size === smallest || size === largest;
    await fresh(scenario, directly(site));
    await noop(scenario, directly(site));
    await count(scenario, counting);
    for (const delays of [{ ...far, databaseMs: 0 }, { ...far, bucketMs: 0 }, far]) {
      await using network = await openNetwork(site, delays);
      const delayed = {
        ...scenario,
        contestants: contestants.filter((tool) => isWorthDelaying(tool, delays)),
      };
      if (size === farSize) await fresh(delayed, network);
      if (isEnd) await noop(delayed, network);
    }
    if (isEnd) await pending(scenario, directly(site), counting);
  }
  await limited(bench, site, largest, present);
}

/** A number of migrations, and who brings them to a database. */
interface Scenario {
  readonly bench: Bench;
  readonly plan: Plan;
  readonly site: Site;
  readonly place: Place;
  readonly size: number;
  readonly contestants: readonly Tool[];
}

/** All networks for what this is about: a signed release in S3 against golang-migrate from S3; for others the one that tells most. */
function isWorthDelaying({ name, source }: Tool, { bucketMs, databaseMs }: Delays): boolean {
  if (name === "lockkeeper, signed release, S3" || name === "golang-migrate, S3") return true;
  return databaseMs > 0 && bucketMs > 0 === (source !== "folder");
}

/** Brings an empty database up. On loopback the databases of the last turn stay, for what follows. */
async function fresh(scenario: Scenario, network: Network): Promise<void> {
  const isFar = network.delays.bucketMs + network.delays.databaseMs > 0;
  await inTurns(scenario, async (tool) => {
    const database = isFar ? "bench_far" : databaseOf(scenario, tool);
    await scenario.site.createDatabase(database);
    return timed(scenario, network, "fresh", tool, database);
  });
}

/** Runs on the databases that are up already, after one turn that is not counted. */
async function noop(scenario: Scenario, network: Network): Promise<void> {
  for (const tool of scenario.contestants) await warmUp(scenario, network, tool);
  await inTurns(scenario, (tool) => timed(scenario, network, "noop", tool, databaseOf(scenario, tool)));
}

/** What goes over the wire, in runs that are not timed: of many migrations for ours alone, since the others take long. */
async function count(scenario: Scenario, network: Network): Promise<void> {
  for (const tool of scenario.contestants) {
    await counted(scenario, network, "noop", tool, databaseOf(scenario, tool));
    if (scenario.size > scenario.plan.countedTo && !tool.isOurs) continue;
    await scenario.site.createDatabase("bench_counted");
    await counted(scenario, network, "fresh", tool, "bench_counted");
  }
}

/** One more migration comes, and then one more: on the databases that are up, all tools one after the other each time. */
async function pending(scenario: Scenario, network: Network, counting: Network): Promise<void> {
  const { bench, plan, site, place, size, contestants } = scenario;
  for (let turn = 1; turn <= plan.pendingRuns + 1; turn += 1) {
    await site.extend(place, size + turn);
    await bench.canary();
    const isCounted = turn > plan.pendingRuns;
    for (const tool of contestants) {
      const [run, by] = isCounted ? [counted, counting] : [timed, network];
      await run(scenario, by, "pending", tool, databaseOf(scenario, tool), size + turn);
    }
  }
}

/** Brings an empty database up within a container's memory; whether that is enough is the result. */
async function limited(bench: Bench, site: Site, size: number, present: readonly Tool[]): Promise<void> {
  using limit = openMemoryLimit(limitMb);
  if (limit === undefined)
    return console.log("not run: a limit of memory needs Linux, control groups and root");
  const place = await site.place(size, limitedBytesEach);
  // The others take a fraction of it.
  for (const { name, program = "", up } of present.filter(({ isOurs }) => isOurs)) {
    await site.createDatabase("bench_limited");
    const route = directly(site).route("bench_limited");
    const before = limit.ended();
    const cost = await measure(limit.inside({ program, ...up(place, route) })).catch((error: unknown) => {
      if (limit.ended() > before) return null;
      throw error;
    });
    if (cost !== null) await assertApplied(site, "bench_limited", name, size);
    console.log(`within ${limitMb} MiB ${size} ${name}: ${cost === null ? "failed" : `${cost.peakMb} MiB`}`);
    bench.record({
      kind: "postgres-limited",
      tool: name,
      migrations: size,
      bytesEach: limitedBytesEach,
      limitMb,
      cost: cost && { ms: cost.ms, peakMb: cost.peakMb },
    });
  }
}

/** Gives each tool its runs, all of them taking turns, so that whatever else the machine does hits all alike. */
async function inTurns(
  { bench, plan, contestants }: Scenario,
  run: (tool: Tool) => Promise<number>,
): Promise<void> {
  const firsts = new Map<Tool, number>();
  const runsOf = (tool: Tool): number => {
    const first = firsts.get(tool) ?? 0;
    return plan.longRuns.find(({ fromMs }) => first >= fromMs)?.runs ?? plan.runs;
  };
  for (let turn = 0; turn < plan.runs; turn += 1) {
    await bench.canary();
    for (const tool of contestants.filter((tool) => turn < runsOf(tool))) {
      const ms = await run(tool);
      if (turn === 0) firsts.set(tool, ms);
    }
  }
}

async function timed(
  { bench, site, place, size }: Scenario,
  network: Network,
  which: PostgresRun["case"],
  { name, program = "", up }: Tool,
  database: string,
  expected = size,
): Promise<number> {
  const cost = await measure({ program, ...up(place, network.route(database)) });
  await assertApplied(site, database, name, expected);
  bench.record({
    kind: "postgres-run",
    case: which,
    tool: name,
    migrations: size,
    ...network.delays,
    ...cost,
  });
  const { bucketMs, databaseMs } = network.delays;
  console.log(`${which} ${size} ${name}, ${bucketMs} and ${databaseMs} ms: ${cost.ms} ms, load ${cost.load}`);
  return cost.ms;
}

async function counted(
  { bench, site, place, size }: Scenario,
  network: Network,
  which: PostgresRun["case"],
  tool: Tool,
  database: string,
  expected = size,
): Promise<void> {
  network.reset();
  const { ms } = await measure({ program: tool.program ?? "", ...tool.up(place, network.route(database)) });
  const traffic = network.traffic(tool);
  await assertApplied(site, database, tool.name, expected);
  if (traffic === undefined) throw new Error("this network counts nothing");
  bench.record({
    kind: "postgres-traffic",
    case: which,
    tool: tool.name,
    migrations: size,
    ...network.delays,
    ...traffic,
  });
  console.log(`${which} ${size} ${tool.name}, counted: ${traffic.database.exchanges} round trips, ${ms} ms`);
}

async function warmUp({ place, size }: Scenario, network: Network, tool: Tool): Promise<void> {
  const database = databaseOf({ size }, tool);
  await measure({ program: tool.program ?? "", ...tool.up(place, network.route(database)) });
}

async function assertApplied(site: Site, database: string, tool: string, expected: number): Promise<void> {
  const applied = await site.applied(database);
  if (applied !== expected) throw new Error(`${tool} applied ${applied} of ${expected} migrations`);
}

function databaseOf({ size }: Pick<Scenario, "size">, { name }: Tool): string {
  return `bench_${size}_${name.toLowerCase().replaceAll(/[^a-z0-9]+/g, "_")}`;
}
