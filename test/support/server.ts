import { type ChildProcess, spawn } from "node:child_process";
import { chownSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

/** A server program started for tests. */
export interface ServerProcess extends AsyncDisposable {
  /** the end of what it printed, for error messages */
  output(): string;
  /** Calls back with each piece of output until the server has ended. */
  onOutput(listener: (text: string) => void): void;
  /** settles when the server has ended, by itself or by `stop` */
  readonly ended: Promise<void>;
  /** Ends the server and removes its folder; resolves when both are done. Repeated calls are fine. */
  stop(): Promise<void>;
}

/** Which program to start, and as whom. */
export interface ServerCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** removed when the server has ended */
  readonly folder: string;
  /** what the server takes as "end at once"; `TERM` when absent */
  readonly stopSignal?: "INT" | "TERM" | "QUIT" | "KILL";
  /** do not run as root: as {@link plainUser} instead */
  readonly unprivileged?: boolean;
}

/** How much of the output is kept, in characters. */
const keptOutput = 8_000;

/**
 * Runs a server for as long as we live, and no longer: the shell between us waits for the end of its standard input,
 * which the kernel closes even when we are killed by SIGKILL, then ends the server and removes its folder. In a session of
 * its own, so that Ctrl-C reaches us first and we can still talk to the server while cleaning up.
 */
const guard = `
exec 3<&0
folder=$1; signal=$2; shift 2
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -s "$signal" $server 2>/dev/null; } &
waiter=$!
wait $server
code=$?
rm -rf "$folder"
kill $waiter 2>/dev/null
exit $code`;

/** Starts a server; it is not yet ready when this returns. */
export function startServer(options: ServerCommand): ServerProcess {
  const user = options.unprivileged === true ? plainUser() : undefined;
  const child = spawn(
    "/bin/sh",
    ["-c", guard, "sh", options.folder, options.stopSignal ?? "TERM", options.command, ...options.args],
    {
      stdio: ["pipe", "pipe", "pipe"],
      detached: true,
      cwd: options.folder,
      env: { ...process.env, ...options.env },
      ...user,
    },
  );
  let output = "";
  const listeners: ((text: string) => void)[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (text: string) => {
      output = (output + text).slice(-keptOutput);
      for (const listener of listeners) listener(text);
    });
  }
  const ended = endOf(child).then(() => rmSync(options.folder, { recursive: true, force: true }));
  const stop = async () => {
    child.stdin.destroy();
    await ended;
  };
  return {
    output: () => output,
    onOutput: (listener) => listeners.push(listener),
    ended,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function endOf(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once("error", () => resolve());
    child.once("close", () => resolve());
  });
}

/**
 * Waits until the server is ready, by asking `probe` again and again or by waiting for `ready` in its output.
 *
 * @throws Error with the server's output when it ended, or was not ready after `timeoutMs`
 */
export async function untilReady(
  name: string,
  server: ServerProcess,
  ready: RegExp | (() => Promise<boolean>),
  timeoutMs = 60_000,
): Promise<void> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const failure = (what: string) => new Error(`${name} ${what}:\n${server.output()}`);
  let ended = false;
  void server.ended.then(() => (ended = true));
  if (ready instanceof RegExp) {
    await new Promise<void>((resolve, reject) => {
      const look = () => ready.test(server.output()) && resolve();
      server.onOutput(look);
      look();
      void server.ended.then(() => reject(failure("ended before it was ready")));
      deadline.addEventListener("abort", () => reject(failure("was not ready in time")));
    });
    return;
  }
  for (;;) {
    const isReady = await ready().catch(() => false);
    // Looked at afterwards: where the port was taken by another in between, it is that one who answers.
    if (ended) throw failure("ended before it was ready");
    if (isReady) return;
    if (deadline.aborted) throw failure("was not ready in time");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Tries `start` again when the free port it was given was taken by another in between. */
export async function withFreePort<T>(start: (port: number) => Promise<T>): Promise<T> {
  let last: unknown;
  for (let attempt = 0; attempt < 3; attempt += 1) {
    try {
      return await start(await freePort());
    } catch (error) {
      if (!/in use|EADDRINUSE|bind/i.test(String(error))) throw error;
      last = error;
    }
  }
  throw last;
}

/** A port that was free on loopback a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() =>
        address !== null && typeof address === "object"
          ? resolve(address.port)
          : reject(new Error("no port")),
      );
    });
  });
}

/** A new empty folder for a server; owned by {@link plainUser} when we are root and `unprivileged`. */
export function serverFolder(name: string, unprivileged = false): string {
  const folder = mkdtempSync(path.join(tmpdir(), `lockkeeper-${name}-`));
  const user = unprivileged ? plainUser() : undefined;
  if (user !== undefined) chownSync(folder, user.uid, user.gid);
  return folder;
}

/** `nobody`, where we are root: PostgreSQL and PgBouncer refuse to run as root. `undefined` where we are not. */
export function plainUser(): { readonly uid: number; readonly gid: number } | undefined {
  return process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : undefined;
}
