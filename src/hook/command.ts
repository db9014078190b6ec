import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../error.ts";
import type { Backup, BackupFacts } from "./backup.ts";

/** lines of its output that are passed on, and characters of one */
const mostLines = 200;
const mostLineChars = 500;
/** milliseconds between asking the command to stop and ending it */
const graceMs = 5_000;
/** milliseconds in which output that is still on its way is read once the command has ended */
const drainMs = 2_000;

/** Program and arguments, as the system is given them. */
export type Argv = readonly [string, ...string[]];

/**
 * A backup by a program, without a shell. It is given `variables` and the facts as `LOCKKEEPER_RUN_…`; exit code 0 is
 * success. The only place that starts a process.
 */
export function commandBackup(
  argv: Argv,
  options: {
    readonly timeoutMs: number;
    /** its environment */
    readonly variables: Readonly<Record<string, string | undefined>>;
  },
): Backup {
  const [program] = argv;
  return {
    by: `command ${program.slice(program.lastIndexOf("/") + 1)}`,
    timeoutMs: options.timeoutMs,
    make: (facts, signal, onLine) =>
      runCommand(argv, { ...options.variables, ...variablesOf(facts) }, signal, onLine),
  };
}

/** Named apart from the flags' own variables, so that the command may itself call lockkeeper. */
function variablesOf(facts: BackupFacts): Readonly<Record<string, string>> {
  return {
    LOCKKEEPER_RUN_ID: facts.run,
    LOCKKEEPER_RUN_TARGET: facts.target,
    LOCKKEEPER_RUN_STREAM: facts.stream,
    LOCKKEEPER_RUN_ENVIRONMENT: facts.environment,
    LOCKKEEPER_RUN_RELEASE: facts.release,
    LOCKKEEPER_RUN_FROM: facts.from ?? "0",
    LOCKKEEPER_RUN_TO: facts.to ?? "0",
  };
}

async function runCommand(
  [program, ...rest]: Argv,
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
  onLine: (line: string) => void,
): Promise<void> {
  signal.throwIfAborted();
  // A group of its own, so that what it starts can be ended with it.
  const child = spawn(program, rest, { env, stdio: ["ignore", "pipe", "pipe"], detached: hasGroups });
  const end = (name: NodeJS.Signals): void => endGroup(child.pid, name);
  const endNow = (): void => end("SIGKILL");
  // A second SIGINT ends this process at once; its backup must not go on without it.
  process.once("exit", endNow);
  const lines = bounded(onLine);
  const read = Promise.all([readLines(child.stdout, lines.take), readLines(child.stderr, lines.take)]);
  const exited = exitOf(child);
  const stopping = new AbortController();
  const stop = (): void => {
    end("SIGTERM");
    sleep(graceMs, undefined, { signal: stopping.signal }).then(endNow, () => undefined);
  };
  signal.addEventListener("abort", stop, { once: true });
  let isMade = false;
  try {
    const ended = await exited;
    signal.throwIfAborted();
    if (ended.kind === "not started") throw notStarted(program, ended.cause);
    // What it left in the background may keep its output open for ever.
    await Promise.race([read, sleep(drainMs, undefined, { signal: stopping.signal }).catch(() => undefined)]);
    if (ended.code !== 0) throw failed(program, ended.code, ended.signal);
    isMade = true;
  } finally {
    stopping.abort();
    signal.removeEventListener("abort", stop);
    process.removeListener("exit", endNow);
    // After a success, what it left in the background is its own business.
    if (!isMade) endNow();
    child.stdout.destroy();
    child.stderr.destroy();
    lines.end();
  }
}

/** Windows has no process groups. */
const hasGroups = process.platform !== "win32";

function endGroup(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(hasGroups ? -pid : pid, name);
  } catch {
    // it has ended by itself
  }
}

type Ended =
  | { readonly kind: "not started"; readonly cause: unknown }
  | { readonly kind: "ended"; readonly code: number | null; readonly signal: NodeJS.Signals | null };

function exitOf(child: ReturnType<typeof spawn>): Promise<Ended> {
  return new Promise((resolve) => {
    child.once("error", (cause) => resolve({ kind: "not started", cause }));
    child.once("exit", (code, signal) => resolve({ kind: "ended", code, signal }));
  });
}

/** Splits at line ends; a line without end is cut, so that no output can fill the memory. */
async function readLines(stream: Readable, take: (line: string) => void): Promise<void> {
  let open = "";
  stream.setEncoding("utf8");
  stream.on("error", () => undefined);
  stream.on("data", (text: string) => {
    const lines = (open + text).split(/\r\n|\n|\r/);
    open = (lines.pop() ?? "").slice(0, mostLineChars);
    for (const line of lines) take(line);
  });
  await once(stream, "close").catch(() => undefined);
  if (open !== "") take(open);
}

/** Passes the first lines on and counts the others. */
function bounded(onLine: (line: string) => void): { take(line: string): void; end(): void } {
  let count = 0;
  return {
    take(line) {
      count += 1;
      // Control characters could draw over a terminal, or forge a line of a log.
      const plain = line.slice(0, mostLineChars).replace(/\p{Cc}/gu, " ");
      if (count <= mostLines && plain.trim() !== "") onLine(plain);
    },
    end() {
      if (count > mostLines) onLine(`${count - mostLines} more lines are not shown`);
    },
  };
}

function notStarted(program: string, cause: unknown): RunnerError {
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
  return new RunnerError("BACKUP_FAILED", `the backup's command "${program}" cannot be started (${code})`, {
    hint: "check that the program is installed, executable and named by a path or found on PATH",
    cause,
  });
}

function failed(program: string, code: number | null, signal: NodeJS.Signals | null): RunnerError {
  const how = code === null ? `was ended by ${signal ?? "a signal"}` : `ended with exit code ${code}`;
  return new RunnerError("BACKUP_FAILED", `the backup's command "${program}" ${how}; nothing was changed`, {
    hint: "its output is in the progress and the log: mend what it says and run again",
    fields: code === null ? { signal: signal ?? "unknown" } : { exitCode: code },
  });
}
