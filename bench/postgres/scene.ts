import { existsSync } from "node:fs";
import { findPart, partsFolder } from "../../test/support/parts.ts";
import { openWire, type Wire } from "../../test/support/wire.ts";
import { measure } from "../measure.ts";
import { openMemoryLimit } from "../memory-limit.ts";
import type { Bench } from "../scene.ts";
import type { PostgresRun } from "./result.ts";
import { openSite, type Site } from "./site.ts";
import { peer, type Place, type Tool, tools } from "./tool.ts";

/** The network of the `far` runs: a bucket in the same region, a database in the same zone. */
const delays = { bucketMs: 20, databaseMs: 5 };
/** How many migrations the fresh `far` runs have: golang-migrate takes more than a minute for these. */
const farSize = 1_000;
const slowFrom = 10_000;
/** A usual limit of an initContainer. */
const containerMb = 128;

/** lockkeeper beside the tools that read files or buckets, each by its command line. */
export async function measurePostgres(bench: Bench): Promise<void> {
  assertInstalled();
  const contestants = tools(bench.ours);
  await using site = await openSite(bench.ours);
  bench.record({ kind: "postgres-site", ...site.description, delays });

  const { isQuick, sizes = isQuick ? [10, 1_000] : [10, 1_000, 10_000] } = bench;
  const runs = { fresh: isQuick ? 2 : 7, slow: isQuick ? 1 : 3, noop: isQuick ? 3 : 9 };
  const places = new Map<number, Place>();
  for (const size of sizes) {
    const place = await site.place(size);
    places.set(size, place);
    const round: Round = { bench, site, place, size, distance: "near", contestants };
    await fresh(round, size >= slowFrom ? runs.slow : runs.fresh);
    await noop(round, runs.noop);
    if (size >= slowFrom) await limited(round);
  }
  await using database = await openWire(site.postgresPort, "postgres", { roundTripMs: delays.databaseMs });
  await using bucket = await openWire(site.bucketPort, "http", { roundTripMs: delays.bucketMs });
  for (const [size, nearPlace] of places) {
    const place = {
      ...nearPlace,
      bucket: { ...nearPlace.bucket, endpoint: `http://127.0.0.1:${bucket.port}` },
    };
    const proxies = { database, bucket };
    const round: Round = { bench, site, place, size, distance: "far", contestants, proxies };
    if (size === farSize) await fresh(round, runs.slow);
    await noop(round, runs.noop);
  }
}

/** What is the same for every tool's turn. */
interface Round {
  readonly bench: Bench;
  readonly site: Site;
  readonly place: Place;
  readonly size: number;
  readonly distance: PostgresRun["distance"];
  readonly contestants: readonly Tool[];
  readonly proxies?: { readonly database: Wire; readonly bucket: Wire };
}

/** Brings an empty database up, the tools in turns. The databases of the last turn stay. */
async function fresh(round: Round, runs: number): Promise<void> {
  for (let turn = 0; turn < runs; turn += 1) {
    await round.bench.canary();
    for (const [index, tool] of round.contestants.entries()) {
      await round.site.createDatabase(databaseName(round, index));
      await runOnce(round, "fresh", tool, index);
    }
  }
}

/** Runs on the databases that are up already, the tools in turns; the first turn is not counted. */
async function noop(round: Round, runs: number): Promise<void> {
  for (let turn = -1; turn < runs; turn += 1) {
    await round.bench.canary();
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
    round.bench.record({
      kind: "postgres-limited",
      tool,
      migrations,
      limitMb: containerMb,
      cost: cost && { ms: cost.ms, peakMb: cost.peakMb },
    });
  }
}

async function runOnce(
  round: Round,
  which: PostgresRun["case"],
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
  const line: PostgresRun = {
    kind: "postgres-run",
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
  if (counts) round.bench.record(line);
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
  if (missing.length > 0)
    throw new Error(`first run: ${missing.join("; ")} (parts are looked for in ${partsFolder})`);
}
