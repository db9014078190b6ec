import { spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";

import { build } from "esbuild";

const root = join(import.meta.dirname, "../..");

/**
 * The command line in few files, as a container image would hold it: 64 processes that each strip the types of a
 * hundred files are a test of the file system.
 */
export async function bundled(folder: string): Promise<string> {
  await build({
    entryPoints: [join(root, "src/bin/cli.ts")],
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    splitting: true,
    platform: "node",
    format: "esm",
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    logLevel: "error",
  });
  return join(folder, "cli.mjs");
}

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  /** what it said; empty when the code is 0 */
  readonly said: string;
}

/** A process that has been started. */
export interface Started {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

/** `count` processes of the program at once, each with the same arguments. */
export function startMany(
  count: number,
  program: string,
  args: readonly string[],
  cwd: string,
): Promise<readonly Ended[]> {
  return Promise.all(Array.from({ length: count }, () => startOne(program, args, cwd).ended));
}

/** One process of the program. */
export function startOne(program: string, args: readonly string[], cwd: string): Started {
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    env: { PATH: process.env["PATH"] ?? "", HOME: cwd },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (text: Buffer) => (said += text.toString()));
  const ended = new Promise<Ended>((resolve) => {
    child.once("close", (code) => resolve({ code, said: code === 0 ? "" : said }));
  });
  return { child, ended };
}
