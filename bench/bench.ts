/**
 * Compares lockkeeper with golang-migrate and goose on this machine, writes `bench/results.jsonl` and from it the tables
 * in `bench/README.md`, which says what is measured and how.
 *
 *     npm run bench [-- --sizes 10,1000,10000 --runs 7 --slow-runs 3 --noop-runs 9 --out FILE --cli FILE]
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { findPart, partsFolder } from "../test/support/parts.ts";
import { describeEnvironment } from "./environment.ts";
import { measure } from "./measure.ts";
import { openMemoryLimit } from "./memory-limit.ts";
import { startProxy, type Proxy } from "./proxy.ts";
import { writeTables } from "./readme.ts";
import { addResult, beginResults, type Measured, readResults } from "./result.ts";
import { openSite, type Site } from "./site.ts";
import { peer, type Place, type Tool, tools } from "./tool.ts";

const here = import.meta.dirname;
const { values: options } = parseArgs({
  options: {
    sizes: { type: "string", default: "10,1000,10000" },
    /** of fresh runs, each tool and size */
    runs: { type: "string", default: "7" },
    /** the same where one takes a minute: from 10,000 migrations on, and with delays */
    "slow-runs": { type: "string", default: "3" },
    "noop-runs": { type: "string", default: "9" },
    out: { type: "string", default: path.join(here, "results.jsonl") },
    readme: { type: "string", default: path.join(here, "README.md") },
    cli: { type: "string", default: path.join(here, "..", "dist", "bin", "cli.js") },
    /** only tools whose name contains this */
    only: { type: "string", default: "" },
  },
});

/** The network of the `far` runs: a bucket in the same region, a database in the same zone. */
const delays = { bucketMs: 20, databaseMs: 5 };
/** How many migrations the fresh `far` runs have: golang-migrate takes more than a minute for these. */
const farSize = 1_000;
const slowFrom = 10_000;
/** A usual limit of an initContainer. */
const containerMb = 128;

await main();

async function main(): Promise<void> {
  assertInstalled();
  const ours = { cli: path.resolve(options.cli) };
  const contestants = tools(ours).filter(({ name }) => name.includes(options.only));
  await using site = await openSite(ours);
  beginResults(options.out, await describeEnvironment(ours, site.postgresVersion, delays));

  const sizes = options.sizes.split(",").map(Number);
  const places = new Map<number, Place>();
  for (const size of sizes) {
    const place = await site.place(size);
    places.set(size, place);
    const runs = Number(size >= slowFrom ? options["slow-runs"] : options.runs);
    await fresh({ site, place, size, distance: "near", contestants }, runs);
    await noop({ site, place, size, distance: "near", contestants }, Number(options["noop-runs"]));
    if (size >= slowFrom) await limited({ site, place, size, distance: "near", contestants });
  }
  {
    await using database = await startProxy(site.postgresPort, "postgres", delays.databaseMs);
    await using bucket = await startProxy(site.bucketPort, "http", delays.bucketMs);
    for (const [size, nearPlace] of places) {
      const place = {
        ...nearPlace,
        bucket: { ...nearPlace.bucket, endpoint: `http://127.0.0.1:${bucket.port}` },
      };
      const round: Round = { site, place, size, distance: "far", contestants, proxies: { database, bucket } };
      if (size === farSize) await fresh(round, Number(options["slow-runs"]));
      await noop(round, Number(options["noop-runs"]));
    }
  }
  for (let i = 0; i < Number(options["noop-runs"]); i += 1) {
    const cost = await measure({ program: process.execPath, args: ["-e", "0"] });
    addResult(options.out, { kind: "floor", ...cost });
  }
  writeTables(options.readme, readResults(options.out));
}

/** What is the same for every tool's turn. */
interface Round {
  readonly site: Site;
  readonly place: Place;
  readonly size: number;
  readonly distance: Measured["distance"];
  readonly contestants: readonly Tool[];
  readonly proxies?: { readonly database: Proxy; readonly bucket: Proxy };
}

/** Brings an empty database up, the tools in turns. The databases of the last turn stay. */
async function fresh(round: Round, runs: number): Promise<void> {
  for (let turn = 0; turn < runs; turn += 1) {
    for (const [index, tool] of round.contestants.entries()) {
      await round.site.createDatabase(databaseName(round, index));
      await runOnce(round, "fresh", tool, index);
    }
  }
}

/** Runs on the databases that are up already, the tools in turns; the first turn is not counted. */
async function noop(round: Round, runs: number): Promise<void> {
  for (let turn = -1; turn < runs; turn += 1) {
    for (const [index, tool] of round.contestants.entries())
      await runOnce(round, "noop", tool, index, turn >= 0);
  }
}

/** Brings an empty database up once within a container's memory; whether that is enough is the result. */
async function limited(round: Round): Promise<void> {
  using limit = openMemoryLimit(containerMb);
  if (limit === undefined)
    return console.log("not run: a limit of memory needs Linux, control groups and root");
  const { site, place, size: migrations } = round;
  const database = "bench_limited";
  // The others take a fraction of it.
  for (const { name: tool, up } of round.contestants.filter(({ name }) => name.startsWith("lockkeeper"))) {
    await site.createDatabase(database);
    const cost = await measure(limit.inside(up(place, site.databaseUrl(database)))).catch(() => null);
    if (cost !== null) await assertApplied(round, tool, database);
    console.log(
      `within ${containerMb} MiB ${migrations} ${tool}: ${cost === null ? "failed" : `${cost.peakMb} MiB`}`,
    );
    addResult(options.out, {
      kind: "limited",
      tool,
      migrations,
      limitMb: containerMb,
      cost: cost && { ms: cost.ms, peakMb: cost.peakMb },
    });
  }
}

async function runOnce(
  round: Round,
  which: Measured["case"],
  tool: Tool,
  index: number,
  counts = true,
): Promise<void> {
  const { site, place, size, distance, proxies } = round;
  const database = databaseName(round, index);
  proxies?.bucket.reset();
  proxies?.database.reset();
  const cost = await measure(tool.up(place, site.databaseUrl(database, proxies?.database.port)));
  await assertApplied(round, tool.name, database);
  const line: Measured = {
    kind: "run",
    distance,
    case: which,
    tool: tool.name,
    migrations: size,
    ...cost,
    ...(proxies === undefined ? {} : { databaseExchanges: proxies.database.traffic().exchanges }),
    ...(proxies === undefined || tool.source === "folder"
      ? {}
      : { bucketRequests: proxies.bucket.traffic().exchanges }),
  };
  console.log(
    `${counts ? "" : "(warm-up) "}${distance} ${which} ${size} ${tool.name}: ${cost.ms} ms, load ${cost.load}`,
  );
  if (counts) addResult(options.out, line);
}

async function assertApplied({ site, size }: Round, tool: string, database: string): Promise<void> {
  const applied = await site.applied(database);
  if (applied !== size) throw new Error(`${tool} applied ${applied} of ${size} migrations`);
}

function databaseName({ size }: Round, index: number): string {
  return `bench_${size}_${index}`;
}

function assertInstalled(): void {
  const missing: string[] = [];
  if (!["migrate", "goose", "golang-migrate-s3"].every((name) => existsSync(peer(name))))
    missing.push("bench/peers/install.sh");
  if (findPart("versitygw") === undefined) missing.push("npm run parts");
  if (!existsSync(options.cli)) missing.push("npm run build");
  if (missing.length > 0)
    throw new Error(`first run: ${missing.join("; ")} (parts are looked for in ${partsFolder})`);
}
