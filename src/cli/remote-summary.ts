import type { RunnerError } from "../error.ts";
import { formatDuration } from "../report/duration.ts";
import { redactText } from "../report/redact.ts";
import type { Followed } from "./remote.ts";
import type { RemoteEntry, RemotePlan, RemoteRun } from "./remote-run.ts";

/** Rows of a table: a page that a person reads; GitHub takes 1 MiB. */
const maxRows = 100;

/** A run that was followed, as Markdown for a pipeline's page; `error` is what it ended with. */
export function summarizeRun({ run, entries }: Followed, error: RunnerError | undefined): string {
  const { release, progress } = run;
  const self = run.links.self;
  return document(
    `${escape(run.target)}: ${escape(run.status)}${run.outcome === null ? "" : ` (${escape(run.outcome)})`}`,
    [
      table(
        ["", ""],
        [
          ["run", self === undefined ? escape(run.id) : `[${escape(run.id)}](<${escapeUrl(self)}>)`],
          ["release", release === null ? "" : `${code(release.digest)}${versionOf(release.version)}`],
          ["database", describeWay(run)],
          ["done", `${progress.applied} of ${progress.total}`],
        ],
      ),
      entries.length === 0
        ? ""
        : table(["migration", "", "took"], entries.slice(-maxRows).map(rowOf), entries.length - maxRows),
      error === undefined ? "" : describe(error),
    ],
  );
}

/** What a run would do, as Markdown. */
export function summarizePlan({ target, plan }: RemotePlan): string {
  const rows = plan.steps
    .slice(0, maxRows)
    .map(({ path, direction, tx, locks, breaking }) => [
      code(path),
      direction,
      tx === "one" ? "in a transaction" : "by statement",
      locks.map(code).join(", "),
      breaking ? "breaking" : "",
    ]);
  const steps = `${plan.steps.length} ${plan.steps.length === 1 ? "step" : "steps"}`;
  return document(`${escape(target)}: ${plan.steps.length === 0 ? "nothing to do" : steps}`, [
    table(
      ["", ""],
      [
        ["release", code(plan.release.digest)],
        ["plan", code(plan.digest)],
        ["database", `from ${escape(plan.from ?? "0")} to ${escape(plan.to ?? "0")}`],
      ],
    ),
    rows.length === 0 ? "" : table(["migration", "", "runs", "locks", ""], rows, plan.steps.length - maxRows),
  ]);
}

/** A request that came to no run, as Markdown. */
export function summarizeError(target: string, error: RunnerError): string {
  return document(`${escape(target)}: no run`, [describe(error)]);
}

/** A run that did not succeed says where it was to lead. */
function describeWay({ status, from, to }: RemoteRun): string {
  if (status === "succeeded") return `from ${escape(from ?? "0")} to ${escape(to ?? "0")}`;
  return `was at ${escape(from ?? "0")}, wanted is ${escape(to ?? "the newest")}`;
}

function rowOf({ path, direction, status, durationMs }: RemoteEntry): readonly string[] {
  const did = direction === "up" ? "applied" : "taken back";
  return [code(path), status === "done" ? did : `**${escape(status)}**`, formatDuration(durationMs)];
}

function describe({ code: name, message, hint, fields }: RunnerError): string {
  const { migration, line, column } = fields;
  const place = [migration, line, column].filter((part) => part !== undefined && part !== null);
  const where = typeof migration === "string" ? ` at ${code(place.join(":"))}` : "";
  return [
    `**${escape(name)}**${where}`,
    escape(redactText(message)),
    hint === undefined ? "" : `Next: ${escape(redactText(hint))}`,
  ]
    .filter((part) => part !== "")
    .join("\n\n");
}

function versionOf(version: number | null): string {
  return version === null ? "" : `, version ${version}`;
}

function document(title: string, parts: readonly string[]): string {
  return `${[`### lockkeeper: ${title}`, ...parts.filter((part) => part !== "")].join("\n\n")}\n\n`;
}

function table(head: readonly string[], rows: readonly (readonly string[])[], more = 0): string {
  const lineOf = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  const lines = [lineOf(head), lineOf(head.map(() => "---")), ...rows.map(lineOf)];
  return more > 0 ? `${lines.join("\n")}\n\n${more} more are not shown.` : lines.join("\n");
}

/** Somebody else's text as plain words of a Markdown table: no mark-up, no HTML, no mention, no line end. */
function escape(text: string): string {
  return text.replace(/\s+/g, " ").replace(/[\\`*_{}[\]<>#+!|~@:&]/g, (mark) => `\\${mark}`);
}

/** A name as code, which knows no escapes: whatever could end it, or a cell, becomes a blank. */
function code(text: string): string {
  return `\`${text.replace(/[\s`|]+/g, " ").trim()}\``;
}

function escapeUrl(url: string): string {
  return url.replace(/[\s<>|\\]/g, (mark) => encodeURIComponent(mark));
}
