/**
 * Feeds every parser of bytes from outside with inputs that are almost right, and says which it did not get right.
 * `README.md` says what is tried, and what came of it.
 *
 *     npm run fuzz -- --cases 1000000 [--seed N] [--for token,policy] [--workers N] [--report FILE]
 */
import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { parseArgs } from "node:util";

import { describeFinding, describeReport, type Report, writeReport } from "./report.ts";
import { runSubject, type SubjectResult } from "./run-subject.ts";
import type { Subject } from "./subject.ts";
import { subjects } from "./subjects.ts";

const { values: options } = parseArgs({
  options: {
    /** of all parsers together */
    cases: { type: "string", default: "1000000" },
    seed: { type: "string", default: "1" },
    /** names of parsers; all when absent */
    for: { type: "string" },
    workers: { type: "string", default: "1" },
    /** a document with the two marks that the report is written between */
    report: { type: "string" },
  },
});

const names = options.for?.split(",");
const unknown = names?.find((name) => !subjects.some((subject) => subject.name === name));
if (unknown !== undefined)
  throw new Error(`${unknown} is none of ${subjects.map(({ name }) => name).join(", ")}`);
const chosen = subjects.filter(({ name }) => names?.includes(name) ?? true);
const seed = Number(options.seed);
/** of a parser whose case costs as much as an ordinary one */
const each = Number(options.cases) / chosen.reduce((sum, { cost = 1 }) => sum + 1 / cost, 0);
const began = performance.now();
const results: SubjectResult[] = [];
const waiting = [...chosen];

await Promise.all(Array.from({ length: Number(options.workers) }, work));

async function work(): Promise<void> {
  for (let subject = waiting.shift(); subject !== undefined; subject = waiting.shift()) await run(subject);
}

async function run(subject: Subject): Promise<void> {
  const result = await runSubject(subject, { seed, cases: Math.ceil(each / (subject.cost ?? 1)) });
  results.push(result);
  console.log(
    `${subject.name}: ${result.cases} cases, ${result.accepted} accepted, ${Math.round(result.usPerCase)} µs each`,
  );
  for (const finding of result.findings) console.log(describeFinding(finding));
}

const report: Report = {
  command: `npm run fuzz -- ${process.argv.slice(2).join(" ")}`,
  environment: `commit \`${git("rev-parse", "--short", "HEAD")}\`, Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? "?"}, other work on the machine`,
  results: chosen.flatMap(({ name }) => results.find((result) => result.subject === name) ?? []),
  durationMs: performance.now() - began,
};
if (options.report !== undefined) writeReport(options.report, report);
console.log(`\n${describeReport(report)}`);
process.exitCode = results.some(({ findings }) => findings.length > 0) ? 1 : 0;

function git(...words: readonly string[]): string {
  return execFileSync("git", [...words], { cwd: import.meta.dirname, encoding: "utf8" }).trim();
}
