import { spawn } from "node:child_process";
import type { ChildProcessByStdio } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { onTestFinished } from "vitest";

/** The program as a checkout starts it. */
export const program = join(import.meta.dirname, "../../src/bin/cli.ts");

/** A started program. */
export interface Running {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  /** everything said so far */
  said(): { readonly stdout: string; readonly stderr: string };
  readonly ended: Promise<number>;
}

/** Starts the program in a folder, with these variables and no others of ours; killed when the test ends. */
export function start(
  argv: readonly string[],
  cwd: string,
  variables: Readonly<Record<string, string>> = {},
): Running {
  const child = spawn(process.execPath, [program, ...argv], {
    cwd,
    env: { PATH: process.env["PATH"], HOME: cwd, ...variables },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<number>((resolve) => {
    child.on("close", (code, signal) => resolve(code ?? (signal === null ? -1 : -2)));
  });
  return { child, ended, said: () => ({ stdout, stderr }) };
}

/** Runs the program to its end. */
export async function run(
  argv: readonly string[],
  cwd: string,
  variables: Readonly<Record<string, string>> = {},
) {
  const running = start(argv, cwd, variables);
  const code = await running.ended;
  return { code, ...running.said() };
}

/** A folder with these files in it, gone when the test ends. */
export async function folderWith(files: Readonly<Record<string, string>>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-cli-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  return folder;
}
