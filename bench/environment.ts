import { readFileSync } from "node:fs";
import { cpus, release, totalmem, type } from "node:os";
import path from "node:path";
import { finish } from "./measure.ts";
import type { Environment } from "./result.ts";
import { postgresSettings } from "./site.ts";
import { lockkeeper, type Ours } from "./tool.ts";

const here = import.meta.dirname;

/** What a reader has to know of the machine and the programs to judge the numbers. */
export async function describeEnvironment(
  ours: Ours,
  postgresVersion: string,
  delays: Environment["delays"],
): Promise<Environment> {
  const processors = cpus();
  const gib = Math.round(totalmem() / 2 ** 30);
  const peers = readFileSync(path.join(here, "..", "test", "parts", "go-peers.sh"), "utf8");
  const parts = readFileSync(path.join(here, "..", "test", "parts", "install.sh"), "utf8");
  return {
    kind: "environment",
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    commit: (await finish({ program: "git", args: ["-C", here, "describe", "--always", "--dirty"] })).trim(),
    machine: `${processors.length} × ${processors[0]?.model ?? "unknown processor"}, ${gib} GiB, ${type()} ${release()}`,
    versions: {
      lockkeeper: (await finish(lockkeeper(ours, ["--version"]))).trim().replace(/^lockkeeper /, ""),
      Node: process.version,
      PostgreSQL: postgresVersion,
      "golang-migrate": pinned(peers, /^migrate=(\S+)/m),
      goose: pinned(peers, /^goose=(\S+)/m),
      versitygw: pinned(parts, /versitygw@(\S+)/),
    },
    settings: Object.entries(postgresSettings)
      .map(([name, value]) => `${name}=${value}`)
      .join(", "),
    delays,
  };
}

function pinned(script: string, pattern: RegExp): string {
  const [, version] = pattern.exec(script) ?? [];
  if (version === undefined) throw new Error(`no version by ${pattern.source}`);
  return version;
}
