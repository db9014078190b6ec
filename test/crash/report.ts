import { readFileSync, writeFileSync } from "node:fs";

import { placeOf } from "./fault.ts";
import type { RoundResult } from "./run-round.ts";

/** What a whole run of the harness came to. */
export interface Report {
  readonly command: string;
  /** what was tried: commit, versions, machine */
  readonly environment: readonly string[];
  readonly rounds: readonly RoundResult[];
  readonly durationMs: number;
}

const begin = "<!-- results: written by npm run crash -->";
const end = "<!-- end of results -->";

/** Before an hour's work: throws where {@link writeReport} could not write it down. */
export function assertReportable(file: string): void {
  splitAtMarks(file);
}

/** Replaces what stands between the two marks of a document by the report. */
export function writeReport(file: string, report: Report): void {
  const { before, after } = splitAtMarks(file);
  writeFileSync(file, `${before}\n\n${describeReport(report)}\n\n${after}`);
}

function splitAtMarks(file: string): { readonly before: string; readonly after: string } {
  const text = readFileSync(file, "utf8");
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`${file} lacks the marks ${begin} and ${end}`);
  return { before: text.slice(0, from + begin.length), after: text.slice(to) };
}

/** The report as Markdown. */
export function describeReport({ command, environment, rounds, durationMs }: Report): string {
  const faults = rounds.flatMap((round) => round.faults);
  const struck = faults.filter(({ isStruck }) => isStruck);
  const seeds = rounds.map(({ seed }) => seed);
  const violated = rounds.filter(({ violations }) => violations.length > 0);
  const sum = (of: (round: RoundResult) => number): number =>
    rounds.reduce((total, round) => total + of(round), 0);
  const takeOvers = struck.flatMap(({ takenOverMs }) => (takenOverMs === undefined ? [] : [takenOverMs]));
  return [
    `\`${command}\``,
    environment.map((line) => `- ${line}`).join("\n"),
    table(
      ["", ""],
      [
        ["faults that struck", `**${struck.length}**`],
        ["violations", `**${sum(({ violations }) => violations.length)}**`],
        ["rounds", `${rounds.length}, seeds ${Math.min(...seeds)} to ${Math.max(...seeds)}`],
        ["runners started", String(sum(({ runners }) => runners))],
        ["migrations in the rounds' releases", String(sum(({ migrations }) => migrations))],
        ["faults whose point no runner came to", String(faults.length - struck.length)],
        [
          "runners that lost a lease of 2.5 s by the machine's slowness alone, and were run again",
          String(sum(({ slow }) => slow)),
        ],
        ["from a holder's death to the next holder's token", spread(takeOvers)],
        ["a round", spread(rounds.map((round) => round.durationMs))],
        ["all", `${Math.round(durationMs / 60_000)} min`],
      ],
    ),
    "Faults by point and kind:",
    faultTable(struck.map(({ fault }) => ({ place: placeOf(fault), kind: fault.kind }))),
    ...(violated.length === 0
      ? []
      : [
          "Violations:",
          violated
            .flatMap(({ seed, violations }) =>
              violations.map(({ rule, detail }) => `- seed ${seed}, ${rule}: ${detail.split("\n")[0]}`),
            )
            .join("\n"),
        ]),
  ].join("\n\n");
}

function faultTable(struck: readonly { readonly place: string; readonly kind: string }[]): string {
  const kinds = [...new Set(struck.map(({ kind }) => kind))].toSorted();
  const places = [...new Set(struck.map(({ place }) => place))].toSorted((a, b) =>
    pointFirst(a).localeCompare(pointFirst(b)),
  );
  const count = (place: string, kind?: string): number =>
    struck.filter((one) => one.place === place && (kind === undefined || one.kind === kind)).length;
  const cell = (n: number): string => (n === 0 ? "" : String(n));
  return table(
    ["", ...kinds, "all"],
    [
      ...places.map((place) => [
        `\`${place}\``,
        ...kinds.map((kind) => cell(count(place, kind))),
        String(count(place)),
      ]),
      [
        "all",
        ...kinds.map((kind) => String(struck.filter((one) => one.kind === kind).length)),
        String(struck.length),
      ],
    ],
  );
}

function pointFirst(place: string): string {
  return place.replace(/^(\w+):(.+)$/, "$2 $1");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

/** Median, and the most, in seconds. */
function spread(times: readonly number[]): string {
  const sorted = times.toSorted((a, b) => a - b);
  const seconds = (ms: number | undefined): string => `${((ms ?? 0) / 1000).toFixed(1)} s`;
  if (sorted.length === 0) return "none";
  return `median ${seconds(sorted[Math.floor(sorted.length / 2)])}, longest ${seconds(sorted.at(-1))}`;
}
