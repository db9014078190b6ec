import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import * as v from "valibot";
import { ColdStartLine } from "./cold-start/result.ts";
import { FloorLine } from "./floor/result.ts";
import { HttpLine } from "./http/result.ts";
import { MongodbLine } from "./mongodb/result.ts";
import { PostgresLine } from "./postgres/result.ts";

const Environment = v.object({
  kind: v.literal("environment"),
  scene: v.string(),
  date: v.string(),
  commit: v.string(),
  machine: v.string(),
  /** of lockkeeper and Node */
  versions: v.record(v.string(), v.string()),
});

const Canary = v.object({
  kind: v.literal("canary"),
  scene: v.string(),
  ms: v.number(),
  cpuMs: v.number(),
  peakMb: v.number(),
  load: v.number(),
});

/** A line of any scene: a union member for each `kind`. A new scene adds its schema here. */
const Line = v.variant("kind", [
  Environment,
  Canary,
  PostgresLine,
  MongodbLine,
  HttpLine,
  ColdStartLine,
  FloorLine,
]);

/** Where and when a scene was measured: the first of its lines. */
export type Environment = v.InferOutput<typeof Environment>;

/** One `node -e 0` amid a scene: what no program on Node can be faster than, and how even the machine was. */
export type Canary = v.InferOutput<typeof Canary>;

/** One line of the results. */
export type Line = v.InferOutput<typeof Line>;

/** Takes a scene's lines out of a file of results, before it is measured again. */
export function dropResults(file: string, isOfScene: (line: Line) => boolean): void {
  const kept = readResults(file).filter((line) => !isOfScene(line));
  writeFileSync(file, kept.map((line) => `${JSON.stringify(line)}\n`).join(""));
}

/** Adds a line to a file of results. */
export function addResult(file: string, line: Line): void {
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** Reads a file of results; empty where there is none. */
export function readResults(file: string): readonly Line[] {
  if (!existsSync(file)) return [];
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.filter((line) => line !== "").map((line) => v.parse(Line, JSON.parse(line)));
}
