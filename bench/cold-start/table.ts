import type { Goal } from "../goal.ts";
import type { Line } from "../result.ts";
import { duration, markdown, median, ratio, spread, times } from "../table.ts";
import type { ColdStart } from "./result.ts";

/** Times `node -e 0` that a no-op may take. */
const mostTimes = 2.5;
/** bytes of the function's zip, and of its entry */
const [mostZip, mostEntry] = [1.5 * 2 ** 20, 60 * 2 ** 10];

/** Its sections. */
export function coldStartTables(lines: readonly Line[]): string {
  const runs = lines.filter((line) => line.kind === "cold-start-run");
  const loaded = lines.filter((line) => line.kind === "cold-start-loaded");
  const size = lines.find((line) => line.kind === "cold-start-size");
  const bare = msOf(runs, "node");
  const kinds = [...new Set(runs.map(({ what }) => what))];
  const functions = runs.filter(({ what }) => what === "function, first event");
  return [
    "Whole processes from start to exit, in turns, with a signed release of 10 migrations in an S3 server and PostgreSQL on loopback.",
    markdown(
      ["", "time", "÷ `node -e 0`", "processor", "peak MiB", "files loaded", "KiB loaded"],
      kinds.map((what) => {
        const of = runs.filter((run) => run.what === what);
        const files = loaded.find((line) => line.what === what);
        return [
          what === "node" ? "`node -e 0`" : what,
          spread(msOf(runs, what), duration),
          ratio(msOf(runs, what), bare),
          spread(
            of.map(({ cpuMs }) => cpuMs),
            duration,
          ),
          spread(
            of.map(({ peakMb }) => peakMb),
            (mb) => mb.toFixed(0),
          ),
          files === undefined ? "" : String(files.files),
          files === undefined ? "" : (files.bytes / 1024).toFixed(0),
        ];
      }),
    ),
    "The function is the bundle for Lambda with the event that S3 sends; its database has the release already. " +
      `Importing it takes ${spread(
        functions.flatMap(({ importMs }) => importMs ?? []),
        duration,
      )}, its first event ${spread(
        functions.flatMap(({ invokeMs }) => invokeMs ?? []),
        duration,
      )}. ` +
      (size === undefined
        ? ""
        : `Its zip has ${kib(size.zipBytes)}, its ${size.files} files have ${kib(size.bytes)}, and the entry has ${kib(size.entryBytes)}.`),
  ].join("\n\n");
}

/** What is to be reached of starts and sizes; nothing where it was not measured. */
export function coldStartGoals(lines: readonly Line[]): readonly Goal[] {
  const runs = lines.filter((line) => line.kind === "cold-start-run");
  const size = lines.find((line) => line.kind === "cold-start-size");
  const factor = median(msOf(runs, "up, nothing to do")) / median(msOf(runs, "node"));
  return [
    {
      what: "no-op by CLI, whole process, signed release from S3",
      target: `at most ${mostTimes} times \`node -e 0\``,
      measured: `${times(factor)} times`,
      isReached: factor <= mostTimes,
    },
    ...(size === undefined
      ? []
      : [
          {
            what: "Lambda bundle",
            target: "a zip of at most 1,536 KiB, an entry of at most 60 KiB",
            measured: `${kib(size.zipBytes)}, ${kib(size.entryBytes)}`,
            isReached: size.zipBytes <= mostZip && size.entryBytes <= mostEntry,
          },
        ]),
  ];
}

function msOf(runs: readonly ColdStart[], what: ColdStart["what"]): readonly number[] {
  return runs.filter((run) => run.what === what).map(({ ms }) => ms);
}

function kib(bytes: number): string {
  return `${Math.ceil(bytes / 1024).toLocaleString("en")} KiB`;
}
