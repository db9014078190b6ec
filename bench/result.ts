import { appendFileSync, readFileSync, writeFileSync } from "node:fs";
import * as v from "valibot";

const Environment = v.object({
  kind: v.literal("environment"),
  date: v.string(),
  commit: v.string(),
  machine: v.string(),
  versions: v.record(v.string(), v.string()),
  settings: v.string(),
  delays: v.object({ bucketMs: v.number(), databaseMs: v.number() }),
});

const Measured = v.object({
  kind: v.literal("run"),
  /** `near`: all on loopback; `far`: with the delays */
  distance: v.picklist(["near", "far"]),
  case: v.picklist(["fresh", "noop"]),
  tool: v.string(),
  migrations: v.number(),
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  load: v.number(),
  /** only where the proxies stood between, in `far` */
  bucketRequests: v.optional(v.number()),
  databaseExchanges: v.optional(v.number()),
});

const Floor = v.object({
  kind: v.literal("floor"),
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  load: v.number(),
});

const Limited = v.object({
  kind: v.literal("limited"),
  tool: v.string(),
  migrations: v.number(),
  limitMb: v.number(),
  /** what the run cost; null: it was ended, or gave up */
  cost: v.nullable(v.object({ ms: v.number(), peakMb: v.number() })),
});

const Line = v.variant("kind", [Environment, Measured, Limited, Floor]);

/** Where and with what a benchmark ran: the first line of a file of results. */
export type Environment = v.InferOutput<typeof Environment>;

/** One run of one tool, checked to have applied what it should. */
export type Measured = v.InferOutput<typeof Measured>;

/** One fresh run within a limit of memory. */
export type Limited = v.InferOutput<typeof Limited>;

/** One start of Node that does nothing: what no program on it can be faster than. */
export type Floor = v.InferOutput<typeof Floor>;

/** A whole file of results. */
export interface Results {
  readonly environment: Environment;
  readonly runs: readonly Measured[];
  readonly limited: readonly Limited[];
  readonly floors: readonly Floor[];
}

/** Begins a file of results; what was there is gone. */
export function beginResults(file: string, environment: Environment): void {
  writeFileSync(file, `${JSON.stringify(environment)}\n`);
}

/** Adds a line to a file of results. */
export function addResult(file: string, line: Measured | Limited | Floor): void {
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** Reads a file of results. */
export function readResults(file: string): Results {
  const lines = readFileSync(file, "utf8").trimEnd().split("\n");
  const parsed = lines.map((line) => v.parse(Line, JSON.parse(line)));
  const environment = parsed.find((line) => line.kind === "environment");
  if (environment === undefined) throw new Error(`${file} does not say where it was measured`);
  return {
    environment,
    runs: parsed.filter((line) => line.kind === "run"),
    limited: parsed.filter((line) => line.kind === "limited"),
    floors: parsed.filter((line) => line.kind === "floor"),
  };
}
