import { findPart } from "../../test/support/parts.ts";
import { openWire, type Wire } from "../../test/support/wire.ts";
import { measure } from "../measure.ts";
import type { Bench } from "../scene.ts";
import type { MongodbRun } from "./result.ts";
import { openSite, type Site } from "./site.ts";
import { type Place, type Tool, tools } from "./tool.ts";

/** milliseconds to the database and back in the runs from `far`: one in the same zone */
const databaseMs = 5;
/** from here on a fresh run takes seconds, and half a minute with the delay */
const slowFrom = 1_000;

/** lockkeeper beside the tools that bring a MongoDB up, each by its command line. */
export async function measureMongodb(bench: Bench): Promise<void> {
  assertInstalled();
  await using site = await openSite(bench.ours);
  bench.record({ kind: "mongodb-site", versions: site.versions, databaseMs });
  const { isQuick, sizes = isQuick ? [10, 100] : [10, 100, 1_000] } = bench;
  const runs = { fresh: isQuick ? 2 : 5, slow: isQuick ? 1 : 3, far: isQuick ? 1 : 3, noop: isQuick ? 3 : 7 };
  await using wire = await openWire(site.mongodbPort, "mongodb", { roundTripMs: databaseMs });
  for (const size of sizes) {
    const round = { bench, site, size, place: await site.place(size), contestants: tools(bench.ours) };
    await fresh(round, "near", size >= slowFrom ? runs.slow : runs.fresh);
    await again(round, "noop", runs.noop);
    // Times are little; what is shown is how often each tool waits for the database.
    await fresh({ ...round, wire }, "far", size >= slowFrom ? 1 : runs.far);
    await again({ ...round, wire }, "noop", runs.far);
    if (size === sizes.at(-1)) await again({ ...round, wire }, "one", runs.far);
  }
}

/** What is the same for every tool's turn. */
interface Round {
  readonly bench: Bench;
  readonly site: Site;
  readonly size: number;
  readonly place: Place;
  readonly contestants: readonly Tool[];
  /** between the tools and the database, in the runs from `far` */
  readonly wire?: Wire;
}

/** Brings an empty database up, the tools in turns. The databases of the last turn stay. */
async function fresh(round: Round, distance: MongodbRun["distance"], runs: number): Promise<void> {
  for (let turn = 0; turn < runs; turn += 1) {
    await round.bench.canary();
    for (const [index, tool] of round.contestants.entries()) {
      await round.site.dropDatabase(databaseName(index));
      await runOnce(round, { distance, case: "fresh" }, tool, index, { expected: round.size });
    }
  }
}

/** Runs on the databases that are up already, the tools in turns; the first turn is not counted. */
async function again(round: Round, which: "noop" | "one", runs: number): Promise<void> {
  const distance = round.wire === undefined ? "near" : "far";
  for (let turn = 0; turn <= runs; turn += 1) {
    await round.bench.canary();
    const expected = round.size + (which === "one" ? turn + 1 : 0);
    if (which === "one") await round.site.extend(round.place, expected);
    for (const [index, tool] of round.contestants.entries())
      await runOnce(round, { distance, case: which }, tool, index, { expected, counts: turn > 0 });
  }
}

async function runOnce(
  { bench, site, size, place, wire }: Round,
  what: Pick<MongodbRun, "distance" | "case">,
  tool: Tool,
  index: number,
  { expected, counts = true }: { readonly expected: number; readonly counts?: boolean },
): Promise<void> {
  const database = databaseName(index);
  wire?.reset();
  const cost = await measure(site.command(tool, place, database, wire?.port ?? site.mongodbPort));
  const applied = await site.applied(database);
  if (applied !== expected) throw new Error(`${tool.name} applied ${applied} of ${expected} migrations`);
  console.log(
    `${counts ? "" : "(warm-up) "}${what.distance} ${what.case} ${size} ${tool.name}: ${cost.ms} ms, load ${cost.load}`,
  );
  if (!counts) return;
  const commands = wire === undefined ? {} : { commands: wire.traffic().exchanges };
  bench.record({ kind: "mongodb-run", ...what, tool: tool.name, migrations: size, ...cost, ...commands });
}

function databaseName(index: number): string {
  return `bench_${index}`;
}

function assertInstalled(): void {
  const missing = (["secantusdb", "golang-migrate", "migrate-mongo", "versitygw"] as const).filter(
    (name) => findPart(name) === undefined,
  );
  if (missing.length > 0) throw new Error(`first run: npm run parts (${missing.join(", ")} missing)`);
}
