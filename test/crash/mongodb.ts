/**
 * Kills runners of MongoDB at commands that a seed decides, and proves by the database's final state that every migration
 * was applied exactly once. It starts the servers itself, one of a replica set and one without transactions.
 *
 *     node test/crash/mongodb.ts --kills 100 [--seed N] [--workers N] [--verbose]
 */
import { parseArgs } from "node:util";

import { part } from "../support/parts.ts";
import { freePort, serverFolder, startServer, untilReady } from "../support/server.ts";
import { runMongoRound, type MongoRoundResult } from "./mongodb-round.ts";

const { values: options } = parseArgs({
  options: {
    /** rounds are run until so many faults have struck */
    kills: { type: "string" },
    /** of the first round; alone, of the only one */
    seed: { type: "string", default: "1" },
    workers: { type: "string", default: "2" },
    verbose: { type: "boolean", default: false },
  },
});

const wanted = Number(options.kills ?? 1);
const rounds: MongoRoundResult[] = [];
let next = Number(options.seed);

await using withTransactions = await startSecantus([]);
await using standalone = await startSecantus(["--standalone"]);
await Promise.all(Array.from({ length: Number(options.workers) }, work));
const byFault = Map.groupBy(
  rounds.flatMap(({ struck }) => struck),
  (struck) => struck.split(" ")[0],
);
console.log([...byFault].map(([fault, all]) => `${fault} ${all.length}`).join(", "));
console.log(
  `${kills()} faults in ${rounds.length} rounds, ${rounds.filter(({ violations }) => violations.length > 0).length} with violations`,
);
process.exitCode = rounds.some(({ violations }) => violations.length > 0) ? 1 : 0;

async function work(): Promise<void> {
  while (kills() < wanted) {
    const seed = next;
    next += 1;
    const hasTransactions = seed % 3 !== 0;
    const { url } = hasTransactions ? withTransactions : standalone;
    const round = await runMongoRound(url, { seed, hasTransactions });
    rounds.push(round);
    const { struck, violations, log, durationMs } = round;
    console.log(
      `seed ${seed}: ${struck.join("; ")} in ${(durationMs / 1000).toFixed(1)} s; ${kills()} of ${wanted}`,
    );
    if (violations.length > 0 || options.verbose) console.log([...violations, ...log].join("\n  "));
  }
}

function kills(): number {
  return rounds.flatMap(({ struck }) => struck).length;
}

async function startSecantus(extra: readonly string[]): Promise<AsyncDisposable & { readonly url: string }> {
  const port = await freePort();
  const args = ["--host", "127.0.0.1", "--port", String(port), "--storage-path", ":memory:", ...extra];
  const server = startServer({ command: part("secantusdb"), args, folder: serverFolder("mongo") });
  await untilReady("SecantusDB", server, /listening on/);
  return {
    url: `mongodb://127.0.0.1:${port}/?directConnection=true`,
    [Symbol.asyncDispose]: () => server.stop(),
  };
}
