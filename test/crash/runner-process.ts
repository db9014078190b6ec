import { type ChildProcess, execFile, spawn } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";

import { type BucketProxy, startBucketProxy } from "./bucket-proxy.ts";
import { type DatabaseProxy, startDatabaseProxy } from "./database-proxy.ts";
import type { Job, Said } from "./runner.ts";
import type { Injector } from "./fault-injector.ts";

/** Lets Node compile all that runners load, and keep it in `cacheFolder`: half of what starting one costs. */
export async function compileRunner(cacheFolder: string): Promise<void> {
  await promisify(execFile)(process.execPath, [program], { env: environment(cacheFolder) });
}

function environment(cacheFolder: string): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"], NODE_COMPILE_CACHE: cacheFolder };
}

const program = join(import.meta.dirname, "runner.ts");

/**
 * `well`: nothing was done to it, so it must succeed; `struck`: a fault hit what it needs, so it may also fail in a way
 * that running again cures; `frozen`; `woken`: goes on as one that was struck, but is not struck again, because what it
 * still does is chance; `dead`: killed by us.
 */
export type Health = "well" | "struck" | "frozen" | "woken" | "dead";

/** How a runner's process ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** undefined where it was killed before it could say */
  readonly said: Said | undefined;
}

/** A runner under way, with the proxies that only it goes through. */
export interface RunnerProcess {
  /** 1 for the first of a round */
  readonly number: number;
  readonly pid: number;
  readonly database: DatabaseProxy;
  readonly bucket: BucketProxy | undefined;
  health: Health;
  readonly ended: Promise<Ended>;
  hasEnded(): boolean;
  signal(name: "SIGKILL" | "SIGSTOP" | "SIGCONT"): void;
  /** lines that it wrote to standard error */
  output(): string;
  /** Ends the process if need be, and what stands between it and the servers. */
  dispose(): Promise<void>;
}

/** Where a runner's way leads, past its proxies. */
export interface Destinations {
  readonly databasePort: number;
  /** undefined for releases in a folder */
  readonly bucketEndpoint: string | undefined;
  readonly rewrite?: ((text: string) => string) | undefined;
  /** where Node keeps compiled code between the processes */
  readonly cacheFolder: string;
}

/** Starts a runner behind proxies of its own, on which `injector` looks at all that passes. */
export async function startRunner(
  number: number,
  job: Job,
  destinations: Destinations,
  injector: Injector,
): Promise<RunnerProcess> {
  const started = Promise.withResolvers<RunnerProcess>();
  const database = await startDatabaseProxy({
    upstreamPort: destinations.databasePort,
    rewrite: destinations.rewrite,
    watch: async (exchange) => injector.message(await started.promise, exchange),
  });
  const bucket =
    destinations.bucketEndpoint === undefined
      ? undefined
      : await startBucketProxy(destinations.bucketEndpoint, async (download) =>
          injector.download(await started.promise, download),
        );
  const url = new URL(job.databaseUrl);
  url.port = String(database.port);
  const source =
    bucket === undefined
      ? job.source
      : { ...job.source, s3: { ...job.source.s3, endpoint: bucket.endpoint } };
  const child = spawn(
    process.execPath,
    [program, JSON.stringify({ ...job, databaseUrl: url.href, source } satisfies Job)],
    {
      env: environment(destinations.cacheFolder),
      stdio: ["ignore", "pipe", "pipe"],
    },
  );
  const process_ = watch(number, child, database, bucket);
  started.resolve(process_);
  return process_;
}

function watch(
  number: number,
  child: ChildProcess,
  database: DatabaseProxy,
  bucket: BucketProxy | undefined,
): RunnerProcess {
  let out = "";
  let err = "";
  let hasEnded = false;
  child.stdout?.on("data", (text: Buffer) => (out += text.toString()));
  child.stderr?.on("data", (text: Buffer) => (err = (err + text.toString()).slice(-40_000)));
  const ended = new Promise<Ended>((resolve) => {
    child.once("error", (error) => (err += String(error)));
    child.once("close", (code, signal) => {
      hasEnded = true;
      resolve({ code, signal, said: out === "" ? undefined : (JSON.parse(out) as Said) });
    });
  });
  return {
    number,
    pid: child.pid ?? 0,
    database,
    bucket,
    health: "well",
    ended,
    hasEnded: () => hasEnded,
    signal: (name) => void child.kill(name),
    output: () => err,
    async dispose() {
      if (!hasEnded) child.kill("SIGKILL");
      await ended;
      await database[Symbol.asyncDispose]();
      await bucket?.[Symbol.asyncDispose]();
    },
  };
}
