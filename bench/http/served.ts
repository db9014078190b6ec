import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { createIssuer, type TestIssuer } from "../../test/support/token.ts";
import { type Ground, stream } from "../ground.ts";
import { lockkeeper, type Ours } from "../scene.ts";

/** `lockkeeper serve` in a process of its own, with callers' tokens for it. */
export interface Served extends AsyncDisposable {
  /** user and system time so far, in milliseconds */
  cpuMs(): number;
  /** Tokens of an issuer that it trusts; each is good for one change. */
  tokens(count: number): Promise<readonly string[]>;
  /** Asks for a run that finds nothing to do, as a CD tool does: one request, which waits for the end. */
  noop(target: string, token: string): Promise<void>;
  /** Asks where a target stands; all of it is applied. */
  status(target: string, token: string): Promise<void>;
  /** Applies everything. */
  apply(target: string): Promise<void>;
}

/** What it is to serve. */
export interface ServedOptions {
  readonly ground: Ground;
  /** port of the bucket's server, or of a proxy before it; default: the server's */
  readonly bucketPort?: number;
  /** database URLs by name of their target */
  readonly targets: ReadonlyMap<string, string>;
  /** requests at once */
  readonly clients: number;
  /** for Node itself, such as `--cpu-prof` */
  readonly nodeFlags?: readonly string[];
}

/** Starts a server of the compiled program, as installed, with a configuration file and a policy. */
export async function serve(ours: Ours, options: ServedOptions): Promise<Served> {
  const folder = await mkdtemp(path.join(tmpdir(), "lockkeeper-bench-serve-"));
  const issuer = await createIssuer();
  const config = await configure(folder, issuer, options);
  const command = lockkeeper(ours, ["serve", "--config", config, "--listen", "127.0.0.1:0"]);
  const child = spawn(command.program, [...(options.nodeFlags ?? []), ...command.args], {
    stdio: ["ignore", "pipe", "inherit"],
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      ...options.ground.variables(options.bucketPort ?? options.ground.bucketPort),
    },
  });
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const { hostname, port } = new URL(await started(child));
  const agent = new Agent({ keepAlive: true, maxSockets: options.clients });
  const ask = (method: string, path: string, token: string, body?: object): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const headers = {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { "content-type": "application/json", prefer: "wait=25" }),
      };
      const asking = request({ hostname, port, agent, method, path, headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          if (response.statusCode === 200) resolve(JSON.parse(text));
          else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
        });
      });
      asking.on("error", reject);
      asking.end(body === undefined ? undefined : JSON.stringify(body));
    });
  const run = async (target: string, token: string, outcome: string): Promise<void> => {
    v.parse(
      v.object({ status: v.literal("succeeded"), outcome: v.literal(outcome) }),
      await ask("POST", "/v1/runs", token, { target, action: "apply" }),
    );
  };
  return {
    cpuMs: () => cpuMsOf(child),
    tokens: (count) => Promise.all(Array.from({ length: count }, () => issuer.token())),
    noop: (target, token) => run(target, token, "noop"),
    async status(target, token) {
      const isWhole = v.object({
        pending: v.object({ total: v.literal(0) }),
        release: v.object({}),
        problem: v.null(),
      });
      v.parse(isWhole, await ask("GET", `/v1/targets/${target}`, token));
    },
    apply: async (target) => run(target, await issuer.token(), "applied"),
    async [Symbol.asyncDispose]() {
      agent.destroy();
      child.kill("SIGTERM");
      await exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function configure(
  folder: string,
  issuer: TestIssuer,
  { ground, targets }: ServedOptions,
): Promise<string> {
  const lines = [...targets.keys()].map(
    (name) =>
      `  ${name}: { engine: postgres, stream: ${stream}, source: "${ground.source}", trust: team, database: { urlFile: ${name}.url } }`,
  );
  const files: readonly (readonly [string, string])[] = [
    ["jwks.json", issuer.jwks],
    ["policy.json", issuer.policy("*")],
    [
      "lockkeeper.yaml",
      `version: 1\npolicy: policy.json\ntrust: { team: { keys: ["${ground.publicKey}"] } }\ntargets:\n${lines.join("\n")}\n`,
    ],
    ...[...targets].map(([name, url]) => [`${name}.url`, url] as const),
  ];
  for (const [name, text] of files) await writeFile(path.join(folder, name), text);
  return path.join(folder, "lockkeeper.yaml");
}

/** Its URL, once it says that it listens; its log is read to the end, as a container's would be. */
function started(child: ChildProcess): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const { stdout } = child;
  if (stdout === null) throw new Error("the server has no output");
  createInterface({ input: stdout }).once("line", (line) => {
    resolve(v.parse(v.object({ url: v.string() }), JSON.parse(line)).url);
    stdout.resume();
  });
  child.once("close", () => reject(new Error("the server has ended")));
  return promise;
}

/** Linux counts it in hundredths of a second, whatever the kernel's clock is. */
const tickMs = 10;

function cpuMsOf({ pid }: ChildProcess): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // After the name, which may hold anything, the 12th and 13th field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}
