import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import path from "node:path";

/** One program with its arguments, and what it sees of the environment besides PATH and HOME. */
export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** What one run of a program cost. */
export interface Cost {
  /** from start to exit, as a person with a watch would see it */
  readonly ms: number;
  /** user and system */
  readonly cpuMs: number;
  /** the most memory it had resident, in MiB */
  readonly peakMb: number;
  /** load average of the last minute when it ended: how busy the machine was with other things too */
  readonly load: number;
}

/** GNU time, where Debian and others have it: the only way to a child's exact peak memory. */
const gnuTime = "/usr/bin/time";

/**
 * Runs a program to its end, nothing beside it.
 *
 * @throws Error with the end of its output when it exits with another status than 0
 */
export async function measure(command: Command): Promise<Cost> {
  if (!existsSync(gnuTime)) throw new Error(`needs GNU time at ${gnuTime} (Debian package "time")`);
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-bench-"));
  const report = path.join(folder, "time");
  try {
    const began = performance.now();
    await finish({
      ...command,
      program: gnuTime,
      args: ["-o", report, "-f", "%U %S %M", command.program, ...command.args],
    });
    const ms = performance.now() - began;
    const [user = 0, system = 0, kib = 0] = readFileSync(report, "utf8").trim().split(" ").map(Number);
    return {
      ms: round(ms),
      cpuMs: Math.round((user + system) * 1000),
      peakMb: round(kib / 1024),
      load: Number((loadavg()[0] ?? 0).toFixed(2)),
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Runs a program to its end without measuring; gives what it printed. */
export function finish(command: Command): Promise<string> {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(command.program, command.args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH, HOME, ...command.env },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => (output = (output + text).slice(-2_000)));
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) =>
      status === 0
        ? resolve(output)
        : reject(new Error(`${command.program} ${command.args.join(" ")}: exit ${status}\n${output}`)),
    );
  });
}

function round(value: number): number {
  return Number(value.toFixed(1));
}
