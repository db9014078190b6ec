import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import * as v from "valibot";
import { bundleLambda } from "../../infra/aws/bundle.ts";
import { type Ground, openGround, stream } from "../ground.ts";
import { type Command, measure } from "../measure.ts";
import { type Bench, lockkeeper, type Ours } from "../scene.ts";
import { filesLoaded } from "./loaded.ts";
import type { ColdStart } from "./result.ts";

const rounds = 11;
const migrations = 10;
/** with everything applied, and empty before each run */
const [applied, empty] = ["applied", "empty"];

/** One of the processes that take turns. */
interface Contestant {
  readonly what: ColdStart["what"];
  readonly command: Command;
  /** before each run, not measured */
  prepare?(): Promise<void>;
  /** what it wrote of itself, checked */
  read?(): Pick<ColdStart, "importMs" | "invokeMs">;
}

/** Measures whole processes that have little or nothing to do, in turns with `node -e 0`. */
export async function measureColdStart(bench: Bench): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), "lockkeeper-bench-cold-"));
  try {
    await using ground = await openGround(bench.ours, migrations);
    await ground.createDatabase(applied);
    const all = [...commands(bench.ours, ground), await lambda(bench, ground, folder)];
    await measure(command(bench.ours, ground, "up", applied));
    for (const { what, command, prepare } of all.slice(1)) {
      await prepare?.();
      bench.record({ kind: "cold-start-loaded", what, ...(await filesLoaded(command, folder)) });
    }
    for (let round = bench.isQuick ? 0 : -1; round < (bench.isQuick ? 1 : rounds); round += 1) {
      await bench.canary();
      for (const { what, command, prepare, read } of all) {
        await prepare?.();
        const { ms, cpuMs, peakMb } = await measure(command);
        // The first round fills the caches of the file system.
        if (round >= 0) bench.record({ kind: "cold-start-run", what, ms, cpuMs, peakMb, ...read?.() });
      }
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function commands(ours: Ours, ground: Ground): readonly Contestant[] {
  return [
    { what: "node", command: { program: process.execPath, args: ["-e", "0"] } },
    { what: "--version", command: lockkeeper(ours, ["--version"]) },
    { what: "status", command: command(ours, ground, "status", applied) },
    { what: "up, nothing to do", command: command(ours, ground, "up", applied) },
    {
      what: "init, 10 migrations",
      command: command(ours, ground, "init", empty),
      prepare: () => ground.createDatabase(empty),
    },
    { what: "init, nothing to do", command: command(ours, ground, "init", applied) },
  ];
}

function command(ours: Ours, ground: Ground, verb: string, database: string): Command {
  const args = [verb, "--source", ground.source, "--stream", stream, "--trust", ground.publicKey];
  const url = ground.databaseUrl(database);
  return lockkeeper(ours, [...args, "--database", url], ground.variables(ground.bucketPort));
}

/** The bundle that Lambda runs, with the event that S3 sends for a new release, which the database has already. */
async function lambda(bench: Bench, ground: Ground, folder: string): Promise<Contestant> {
  const out = path.join(folder, "function");
  const { outputs, zipBytes } = await bundleLambda(out);
  const sizes = Object.values(outputs).map(({ bytes }) => bytes);
  bench.record({
    kind: "cold-start-size",
    files: sizes.length,
    bytes: sizes.reduce((sum, bytes) => sum + bytes, 0),
    zipBytes,
    entryBytes: outputs["index.mjs"]?.bytes ?? 0,
  });
  const config = path.join(folder, "lockkeeper.yaml");
  const target = `{ engine: postgres, stream: ${stream}, source: "${ground.source}", trust: team, database: { url: "${ground.databaseUrl(applied)}" } }`;
  await writeFile(
    config,
    `version: 1\ntrust: { team: { keys: ["${ground.publicKey}"] } }\ntargets:\n  bench: ${target}\n`,
  );
  const { host, pathname } = new URL(ground.source);
  const object = { key: `${pathname.slice(1)}/head.json`, eTag: "e", size: 1, sequencer: "00" };
  const record = {
    eventVersion: "2.1",
    eventSource: "aws:s3",
    eventName: "ObjectCreated:Put",
    s3: { bucket: { name: host }, object },
  };
  const report = path.join(folder, "function.json");
  const starter = path.join(import.meta.dirname, "function.mjs");
  return {
    what: "function, first event",
    command: {
      program: process.execPath,
      args: [starter, path.join(out, "index.mjs"), JSON.stringify({ Records: [record] }), report],
      env: { ...ground.variables(ground.bucketPort), LOCKKEEPER_CONFIG: config },
    },
    read() {
      const { importMs, invokeMs } = v.parse(reportSchema, JSON.parse(readFileSync(report, "utf8")));
      return { importMs: Number(importMs.toFixed(1)), invokeMs: Number(invokeMs.toFixed(1)) };
    },
  };
}

const reportSchema = v.object({
  importMs: v.number(),
  invokeMs: v.number(),
  answer: v.object({
    woken: v.tuple([v.object({ target: v.literal("bench"), kind: v.literal("up-to-date") })]),
  }),
});
