import { cpus, release, totalmem, type } from "node:os";
import { finish } from "./measure.ts";
import type { Environment } from "./result.ts";
import { lockkeeper, type Ours } from "./scene.ts";

/** What a reader has to know of the machine and the program to judge a scene's numbers. */
export async function describeEnvironment(ours: Ours, scene: string): Promise<Environment> {
  const processors = cpus();
  const gib = Math.round(totalmem() / 2 ** 30);
  const git = ["-C", import.meta.dirname, "describe", "--always", "--dirty"];
  return {
    kind: "environment",
    scene,
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    commit: (await finish({ program: "git", args: git })).trim(),
    machine: `${processors.length} × ${processors[0]?.model ?? "unknown processor"}, ${gib} GiB, ${type()} ${release()}`,
    versions: {
      lockkeeper: (await finish(lockkeeper(ours, ["--version"]))).trim().replace(/^lockkeeper /, ""),
      Node: process.version,
    },
  };
}
