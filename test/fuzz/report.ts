import { readFileSync, writeFileSync } from "node:fs";

import type { SubjectResult } from "./run-subject.ts";
import type { Finding } from "./subject.ts";

/** One run of the fuzzer. */
export interface Report {
  readonly command: string;
  readonly environment: string;
  readonly results: readonly SubjectResult[];
  readonly durationMs: number;
}

const begin = "<!-- report -->";
const end = "<!-- end of report -->";

/** The report as a part of a document. */
export function describeReport({ command, environment, results, durationMs }: Report): string {
  const cases = results.reduce((sum, result) => sum + result.cases, 0);
  const findings = results.flatMap((result) => result.findings);
  return [
    `\`${command}\`: **${cases.toLocaleString("en")} cases, ${findings.length} findings** in ${Math.round(durationMs / 60_000)} minutes.`,
    `${environment}.`,
    "",
    "| parser | cases | accepted | refused | slowest, ms | findings |",
    "| --- | ---: | ---: | --- | ---: | ---: |",
    ...results.map(
      ({ subject, cases: count, accepted, refused, slowestMs, findings: own }) =>
        `| ${subject} | ${count.toLocaleString("en")} | ${accepted.toLocaleString("en")} | ${codesOf(refused)} | ${Math.round(slowestMs)} | ${own.length} |`,
    ),
    ...(findings.length === 0 ? [] : ["", ...findings.map(describeFinding)]),
  ].join("\n");
}

/** A finding with all that makes it happen again. */
export function describeFinding({ subject, fault, what, seed, index, input }: Finding): string {
  const shown =
    input.length > 400
      ? `${input.subarray(0, 400).toString("base64")}… (${input.length} bytes)`
      : input.toString("base64");
  return `- ${subject}: ${fault}: ${what} (seed ${seed}, case ${index}); input in base64: \`${shown}\``;
}

/** Replaces what stands between the document's two marks. */
export function writeReport(file: string, report: Report): void {
  const text = readFileSync(file, "utf8");
  const [from, to] = [text.indexOf(begin), text.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`${file} has no ${begin} … ${end}`);
  writeFileSync(
    file,
    `${text.slice(0, from + begin.length)}\n\n${describeReport(report)}\n\n${text.slice(to)}`,
  );
}

function codesOf(refused: Readonly<Record<string, number>>): string {
  const codes = Object.entries(refused)
    .toSorted(([, a], [, b]) => b - a)
    .map(([code]) => `\`${code}\``);
  return codes.length > 6 ? `${codes.slice(0, 6).join(" ")} and ${codes.length - 6} more` : codes.join(" ");
}
