import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { parse } from "yaml";
import { listen } from "../http/front.ts";
import { createWorld, type World } from "../http/world.ts";
import { tempFolder } from "../support/release.ts";
import { createIssuer, testAudience, type TestIssuer } from "../support/token.ts";

/** Folder of what users copy. */
export const infra = join(import.meta.dirname, "../../infra");

/** Claims of a job on GitHub, as `infra/callers.md` shows them. */
const githubClaims = claimsOf("github");
/** Claims of a job on GitLab, from there as well. */
export const gitlabClaims = claimsOf("gitlab");

/** A world whose policy is that of `infra/callers.md` for a platform, for the target `orders`. */
export async function platformWorld(
  platform: "github" | "gitlab",
): Promise<{ readonly world: World; readonly issuer: TestIssuer; token(): Promise<string> }> {
  const { issuers, rules } = JSON.parse(block("policy", platform)) as {
    readonly issuers: Readonly<Record<string, { readonly issuer: string }>>;
    readonly rules: readonly Record<string, unknown>[];
  };
  const claims = platform === "github" ? githubClaims : gitlabClaims;
  const issuer = await createIssuer({ url: String(claims["iss"]), algorithm: "RS256" });
  const world = await createWorld({
    callers: {
      issuers,
      rules: rules.map((rule) => ({
        ...rule,
        allow: { targets: ["orders"], actions: ["plan", "apply", "status", "cancel", "rollback"] },
        limit: undefined,
      })),
      keys: { [platform]: issuer.jwks },
    },
  });
  return { world, issuer, token: () => issuer.token({ ...claims, aud: testAudience }) };
}

/** GitHub's side of a job: its token endpoint, its files, its variables. */
export interface GithubSide {
  readonly folder: string;
  readonly variables: Readonly<Record<string, string>>;
  /** each token that was given out */
  readonly given: readonly string[];
  outputs(): Promise<Readonly<Record<string, string>>>;
  summary(): Promise<string>;
}

/** Plays GitHub for a step of a job. `claims` may differ from one token to the next, counted from 1. */
export async function playGithub(
  issuer: TestIssuer,
  claims: (count: number) => Readonly<Record<string, unknown>> = () => ({}),
): Promise<GithubSide> {
  const given: string[] = [];
  const url = await listen((request, response) => {
    void (async () => {
      const { searchParams } = new URL(request.url ?? "/", "http://localhost");
      if (
        request.headers.authorization !== "Bearer the-job's-secret" ||
        searchParams.get("api-version") !== "2.0"
      ) {
        response.writeHead(401).end("{}");
        return;
      }
      const all = { ...githubClaims, aud: searchParams.get("audience"), ...claims(given.length + 1) };
      const token = await issuer.token(all);
      given.push(token);
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ count: token.length, value: token }));
    })();
  });
  const folder = await tempFolder();
  onTestFinished(async () => folder[Symbol.asyncDispose]());
  const [output, summary] = [join(folder.path, "output"), join(folder.path, "summary")];
  await Promise.all([writeFile(output, ""), writeFile(summary, "")]);
  return {
    folder: folder.path,
    given,
    variables: {
      GITHUB_ACTIONS: "true",
      GITHUB_ACTION_PATH: join(infra, "github-action"),
      GITHUB_OUTPUT: output,
      GITHUB_STEP_SUMMARY: summary,
      GITHUB_SERVER_URL: "https://github.com",
      GITHUB_REPOSITORY: "acme/orders",
      GITHUB_RUN_ID: "4711",
      GITHUB_SHA: "3f2a9b1",
      ACTIONS_ID_TOKEN_REQUEST_URL: `${url}/token?api-version=2.0`,
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: "the-job's-secret",
    },
    outputs: async () => readOutputs(await readFile(output, "utf8")),
    summary: () => readFile(summary, "utf8"),
  };
}

/** What a step said and how it ended. */
export interface Said {
  readonly code: number | null;
  readonly text: string;
}

/** A script that was started. */
export interface Started {
  readonly ended: Promise<Said>;
  interrupt(): void;
}

/** As GitHub's documentation says of `shell: bash`. */
const bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail"] as const;

/** Starts a script as a runner does: from a file, by a shell, with these variables and none of ours. */
export async function startScript(
  script: string,
  options: {
    readonly variables: Readonly<Record<string, string>>;
    readonly folder: string;
    readonly shell?: readonly [string, ...string[]];
  },
): Promise<Started> {
  const [program, ...args] = options.shell ?? bash;
  const file = join(options.folder, "step.sh");
  await writeFile(file, script);
  const child = spawn(program, [...args, file], {
    cwd: options.folder,
    env: { PATH: process.env["PATH"], HOME: options.folder, ...options.variables },
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (piece: string) => (text += piece));
  const ended = new Promise<Said>((resolve) => child.on("close", (code) => resolve({ code, text })));
  return { ended, interrupt: () => void child.kill("SIGINT") };
}

/** Runs a script to its end. */
export async function runScript(...given: Parameters<typeof startScript>): Promise<Said> {
  return (await startScript(...given)).ended;
}

const action = parse(readFileSync(join(infra, "github-action/action.yml"), "utf8")) as {
  readonly inputs: Readonly<Record<string, { readonly default?: string; readonly required?: boolean }>>;
  readonly runs: {
    readonly steps: readonly { readonly run: string; readonly env: Readonly<Record<string, string>> }[];
  };
};

/** What the composite action takes. */
export const actionInputs = action.inputs;

/** The composite action's step as GitHub runs it: `${{ inputs.… }}` of `env` filled in, defaults included. */
export function stepOfAction(inputs: Readonly<Record<string, string>>): {
  readonly run: string;
  readonly env: Readonly<Record<string, string>>;
} {
  for (const [name, { required }] of Object.entries(action.inputs))
    if (required === true && !(name in inputs)) throw new Error(`the input ${name} is missing`);
  const [step] = action.runs.steps;
  if (step === undefined) throw new Error("the action has no step");
  const fill = (text: string): string =>
    text.replace(/\$\{\{ inputs\.([a-z-]+) \}\}/g, (_, name: string) => {
      const value = inputs[name] ?? action.inputs[name]?.default;
      if (value === undefined) throw new Error(`the action has no input ${name}`);
      return value;
    });
  return {
    run: step.run,
    env: Object.fromEntries(Object.entries(step.env).map(([name, text]) => [name, fill(text)])),
  };
}

/** A folder with `lockkeeper` in it, to be put on PATH: the image's program, as far as a script can tell. */
export async function programFolder(folder: string): Promise<string> {
  const bin = join(folder, ".bin");
  await mkdir(bin);
  const cli = join(import.meta.dirname, "../../src/bin/cli.ts");
  await writeFile(join(bin, "lockkeeper"), `#!/bin/sh\nexec "${process.execPath}" "${cli}" "$@"\n`);
  await chmod(join(bin, "lockkeeper"), 0o755);
  return bin;
}

function claimsOf(platform: string): Readonly<Record<string, unknown>> {
  return JSON.parse(block("claims", platform)) as Record<string, unknown>;
}

function block(kind: string, name: string): string {
  const text = readFileSync(join(infra, "callers.md"), "utf8");
  const found = new RegExp(`^\`\`\`json ${kind} ${name}\\n([\\s\\S]*?)^\`\`\`$`, "m").exec(text)?.[1];
  if (found === undefined) throw new Error(`infra/callers.md has no block ${kind} ${name}`);
  return found;
}

/** `name=value`, and the form of several lines with an end of its own. */
function readOutputs(text: string): Readonly<Record<string, string>> {
  const outputs: Record<string, string> = {};
  const lines = text.split("\n");
  for (let line = lines.shift(); line !== undefined; line = lines.shift()) {
    const [, name = "", end = ""] = /^([^=]+?)<<(.+)$/.exec(line) ?? [];
    if (name !== "") {
      const value = lines.splice(0, lines.indexOf(end));
      lines.shift();
      outputs[name] = value.join("\n");
    } else if (line !== "") {
      outputs[line.slice(0, line.indexOf("="))] = line.slice(line.indexOf("=") + 1);
    }
  }
  return outputs;
}
