/**
 * Kills runners at named points, from seeds, and proves by the database's final state that every migration was applied
 * exactly once and in order. `README.md` says what is tried and how.
 *
 *     npm run crash -- --kills 1000 [--seed N] [--workers N] [--kinds small,index] [--report FILE] [--verbose]
 */
import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { parseArgs } from "node:util";

import { runRound, type RoundResult } from "./run-round.ts";
import { assertReportable, describeReport, type Report, writeReport } from "./report.ts";
import { drawRound } from "./round.ts";
import { openSite, startStore } from "./site.ts";
import { kindWeights, type MigrationKind } from "./workload.ts";

const { values: options } = parseArgs({
  options: {
    /** rounds are run until so many faults have struck */
    kills: { type: "string" },
    /** of the first round; alone, of the only one */
    seed: { type: "string" },
    workers: { type: "string", default: "1" },
    /** kinds of migrations to mix releases from; all when absent */
    kinds: { type: "string" },
    /** a document with the two marks that the report is written between */
    report: { type: "string" },
    /** prints what happened in each round, and not only in those with violations */
    verbose: { type: "boolean", default: false },
  },
});

const kinds = (options.kinds?.split(",") ?? []).map((name): MigrationKind => {
  const known = Object.keys(kindWeights).find((kind) => kind === name);
  if (known === undefined)
    throw new Error(`${name} is no kind of migration: ${Object.keys(kindWeights).join()}`);
  return known as MigrationKind;
});
const isSingle = options.seed !== undefined && options.kills === undefined;
const wanted = Number(options.kills ?? (isSingle ? 1 : 100));
const rounds: RoundResult[] = [];
const began = performance.now();
let next = Number(options.seed ?? 1);
const stop = new AbortController();
process.once("SIGINT", () => stop.abort());

await main();

async function main(): Promise<void> {
  if (options.report !== undefined) assertReportable(options.report);
  await using store = await startStore();
  const workers = isSingle ? 1 : Number(options.workers);
  await Promise.all(
    Array.from({ length: workers }, async () => {
      await using site = await openSite(store);
      while (!stop.signal.aborted && (isSingle ? rounds.length === 0 : kills() < wanted)) {
        const seed = next;
        next += 1;
        const result = await runRound(drawRound(seed, kinds), site);
        rounds.push(result);
        tell(result);
      }
    }),
  );
  const report: Report = {
    command: `npm run crash -- ${process.argv.slice(2).join(" ")}`,
    environment: [
      `commit \`${git("rev-parse", "--short", "HEAD")}\`, Node ${process.version}, PostgreSQL 18`,
      `${cpus().length} × ${cpus()[0]?.model ?? "?"}, ${workers} rounds at once, other work on the machine`,
    ],
    rounds: rounds.toSorted((a, b) => a.seed - b.seed),
    durationMs: performance.now() - began,
  };
  if (options.report !== undefined) writeReport(options.report, report);
  console.log(`\n${describeReport(report)}`);
  process.exitCode = rounds.some(({ violations }) => violations.length > 0) ? 1 : 0;
}

function kills(): number {
  return rounds.flatMap(({ faults }) => faults).filter(({ isStruck }) => isStruck).length;
}

function tell({ seed, faults, violations, durationMs, log }: RoundResult): void {
  const struck = faults.filter(({ isStruck }) => isStruck).length;
  const verdict = violations.length === 0 ? "" : `, ${violations.length} VIOLATIONS`;
  console.log(
    `seed ${seed}: ${struck} faults in ${(durationMs / 1000).toFixed(1)} s${verdict}; ${kills()} of ${wanted}`,
  );
  if (violations.length > 0 || options.verbose || isSingle)
    console.log(log.map((line) => `  ${line}`).join("\n"));
}

function git(...args: readonly string[]): string {
  try {
    return execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  } catch {
    return "unknown";
  }
}
