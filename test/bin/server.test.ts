import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { makeKeys, publishTo, folderSource, tempFolder } from "../support/release.ts";
import { createIssuer, testAudience, type TestIssuer } from "../support/token.ts";

const cli = join(import.meta.dirname, "../../src/bin/cli.ts");

/** One `lockkeeper serve` in a process of its own. */
interface Served {
  readonly process: ChildProcess;
  /** log lines so far */
  readonly lines: Record<string, unknown>[];
  /** Resolves with the log line of an event. */
  line(event: string): Promise<Record<string, unknown>>;
  readonly exited: Promise<number | null>;
  readonly errors: () => string;
}

function start(config: string): Served {
  const child = spawn(process.execPath, [cli, "serve", "--config", config, "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  const lines: Record<string, unknown>[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => lines.push(JSON.parse(line)));
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const exited = once(child, "close").then(([code]: (number | null)[]) => code ?? null);
  return {
    process: child,
    lines,
    exited,
    errors: () => errors,
    async line(event) {
      await expect
        .poll(() => lines.some((line) => line["event"] === event) || (child.exitCode !== null && errors))
        .toBe(true);
      return lines.find((line) => line["event"] === event) ?? {};
    },
  };
}

async function configured(
  changes: { readonly config?: (text: string) => string; readonly policy?: (text: string) => string } = {},
): Promise<{ path: string; config: string; issuer: TestIssuer; url: string }> {
  const database = await createDatabase();
  const folder = await tempFolder();
  onTestFinished(async () => folder[Symbol.asyncDispose]());
  const issuer = await createIssuer();
  const { key } = makeKeys();
  await mkdir(join(folder.path, "bucket"));
  await publishTo(
    folderSource(join(folder.path, "bucket")),
    { "1_users.up.sql": "create table users (id int);" },
    { keys: [key] },
  );
  const policy = JSON.stringify({
    schema: "urn:lockkeeper:policy:v1",
    audience: testAudience,
    issuers: { ci: { issuer: issuer.url, jwksFile: "keys/ci.jwks.json", algs: ["ES256"] } },
    rules: [
      {
        id: "deploy",
        issuer: "ci",
        match: { sub: "ci" },
        allow: { targets: ["orders"], actions: ["apply", "status"] },
      },
    ],
  });
  await mkdir(join(folder.path, "keys"));
  await writeFile(join(folder.path, "keys/ci.jwks.json"), issuer.jwks);
  await writeFile(join(folder.path, "policy.json"), changes.policy?.(policy) ?? policy);
  await writeFile(join(folder.path, "alice.pub"), key.publicPem);
  await writeFile(join(folder.path, "db-url"), `${database.url}\n`);
  const config = join(folder.path, "lockkeeper.yaml");
  const text = `version: 1
policy: policy.json
trust: { team: { keys: [alice.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: ./bucket, trust: team, database: { urlFile: db-url } }
`;
  await writeFile(config, changes.config?.(text) ?? text);
  return { path: folder.path, config, issuer, url: database.url };
}

describe("lockkeeper serve", () => {
  test("serves what its configuration says, logs without secrets, and stops at SIGTERM", async () => {
    const { config, issuer, url: databaseUrl } = await configured();
    const served = start(config);
    const { url } = await served.line("server.started");
    const token = await issuer.token();
    const response = await fetch(`${String(url)}/v1/runs`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify({ target: "orders", action: "apply" }),
    });
    expect(await response.json()).toMatchObject({ status: "succeeded", outcome: "applied", to: "1" });
    const asked = await served.line("http.request");
    expect(asked).toMatchObject({
      level: "info",
      method: "POST",
      path: "/v1/runs",
      status: 200,
      issuer: issuer.url,
      subject: "ci",
      rule: "deploy",
      target: "orders",
    });
    expect(asked["time"]).toMatch(/^\d{4}-\d\d-\d\dT/);
    expect(served.lines.map((line) => line["event"])).toEqual(
      expect.arrayContaining(["run.started", "release.verified", "step.succeeded", "run.done"]),
    );
    served.process.kill("SIGTERM");
    expect(await served.exited).toBe(0);
    expect(served.lines.at(-1)).toMatchObject({ event: "server.stopped" });
    const said = JSON.stringify(served.lines) + served.errors();
    for (const secret of [token, new URL(databaseUrl).password].filter((text) => text !== ""))
      expect(said).not.toContain(secret);
  });

  test.for<[string, Parameters<typeof configured>[0], RegExp]>([
    [
      "without a policy",
      { config: (text) => text.replace("policy: policy.json\n", "") },
      /policy is missing/,
    ],
    [
      "with a policy that names an unknown target",
      { policy: (text) => text.replace('"orders"', '"billing"') },
      /no target is called "billing"/,
    ],
    [
      "with keys that are not there",
      { policy: (text) => text.replace("keys/ci.jwks.json", "keys/none.json") },
      /keys of issuer "ci".*ENOENT/,
    ],
  ])("%s does not start, and says why", async ([, changes, words]) => {
    const { config } = await configured(changes);
    const served = start(config);
    expect(await served.exited).toBe(2);
    expect(served.errors()).toMatch(words);
    expect(served.errors()).not.toMatch(/\n\s+at /);
  });

  test("takes a webhook that is signed by the command of infra/callers.md, and no other one", async () => {
    const secret = "0123456789abcdef0123456789abcdef";
    const { config, path } = await configured({
      policy: (text) => {
        const policy = JSON.parse(text) as { rules: object[] };
        const hooks = {
          flux: { kind: "hmac", header: "X-Signature", prefix: "sha256=", secretFile: "flux.secret" },
        };
        const rule = { id: "flux", hook: "flux", allow: { targets: ["orders"], actions: ["apply"] } };
        return JSON.stringify({ ...policy, hooks, rules: [...policy.rules, rule] });
      },
    });
    await writeFile(join(path, "flux.secret"), `${secret}\n`);
    const served = start(config);
    const { url } = await served.line("server.started");

    const page = readFileSync(join(import.meta.dirname, "../../infra/callers.md"), "utf8");
    const [, command = ""] = /^body='[^']*'\n(curl [\s\S]*?)^```$/m.exec(page) ?? [];
    const run = promisify(execFile);
    const post = async (body: string, key: string): Promise<Record<string, unknown>> => {
      await writeFile(join(path, "flux.secret.sent"), `${key}\n`);
      const line = command
        .replace("https://migrate.example", String(url))
        .replace("flux.secret", "flux.secret.sent");
      const { stdout } = await run("sh", ["-ec", `body='${body}'\n${line}`], { cwd: path });
      return JSON.parse(stdout) as Record<string, unknown>;
    };
    const body = JSON.stringify({ target: "orders", action: "apply" });
    expect(await post(body, "f".repeat(32))).toMatchObject({ status: 401, code: "UNAUTHENTICATED" });
    const accepted = await post(body, secret);
    expect(accepted).toMatchObject({
      target: "orders",
      trigger: { kind: "event", actor: "flux", rule: "flux" },
    });
    expect((await post(body, secret))["id"]).toBe(accepted["id"]);
    expect(JSON.stringify(served.lines)).not.toContain(secret);
  });

  test("on an address that others can reach wants its public address", async () => {
    const { config } = await configured();
    const child = spawn(process.execPath, [cli, "serve", "--config", config, "--listen", "0.0.0.0:0"], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    const [code] = (await once(child, "close")) as [number];
    expect([code, /publicUrl is missing/.test(errors)]).toEqual([2, true]);
  });
});
