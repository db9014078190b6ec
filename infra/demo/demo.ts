/**
 * The whole way once, on this machine: a real PostgreSQL, a folder as the bucket, the HTTP server, a caller with a token.
 * `npm run demo` starts everything, shows every command that a person or a pipeline would type, and leaves nothing behind.
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { appendFile, cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

import { exportJWK, SignJWT } from "jose";
import pg from "pg";

import { startPostgres } from "../../test/support/postgres.ts";

const run = promisify(execFile);
const here = import.meta.dirname;
const cli = join(here, "../../src/bin/cli.ts");
const issuer = "https://ci.example";
const audience = "https://migrate.example";

/** What has to end before the demo does, newest first. */
const closing: (() => Promise<unknown>)[] = [];

const bold = (text: string): string => (process.stdout.isTTY ? `\u001B[1m${text}\u001B[0m` : text);
const dim = (text: string): string => (process.stdout.isTTY ? `\u001B[2m${text}\u001B[0m` : text);
const say = (text = ""): void => void process.stdout.write(`${text}\n`);
const step = (title: string): void => say(`\n${bold(title)}`);

async function main(): Promise<void> {
  const work = await mkdtemp(join(tmpdir(), "lockkeeper-demo-"));
  closing.push(() => rm(work, { recursive: true, force: true }));
  process.chdir(work);

  step("1. A real PostgreSQL, just for this demo");
  const database = await startDatabase();
  say(`   ${dim("listening on 127.0.0.1, with an empty database orders")}`);

  step("2. A key to sign releases with, and the first release in a bucket (here: a folder)");
  await lockkeeper("keygen", "--out", "release.key");
  await cp(join(here, "first"), "migrations", { recursive: true });
  await lockkeeper("publish", "migrations", "bucket", "--stream", "orders", "--key", "release.key");

  step("3. The server: it alone knows the database's password");
  const { signToken } = await writeConfiguration(database);
  const url = await startServer();

  step("4. A pipeline asks for the release over HTTP, with nothing but its own token");
  await writeFile("token", await signToken());
  say(
    `   $ curl --fail -X POST ${url}/v1/runs -H "Authorization: Bearer $(cat token)" -H "Content-Type: application/json" \\`,
  );
  say(`       -d '{"target":"orders","action":"apply"}'`);
  const first = await post(url, "/v1/runs", await signToken(), { target: "orders", action: "apply" });
  showRun(first);
  await showEvents(url, first, await signToken());

  step("5. A second release; the same request by the command line, which waits and exits by the outcome");
  await cp(join(here, "second"), "migrations", { recursive: true });
  await lockkeeper("publish", "migrations", "bucket", "--stream", "orders", "--key", "release.key");
  await writeFile("token", await signToken());
  await lockkeeper("trigger", "--url", url, "--token-file", "token", "--target", "orders");
  await lockkeeper("status", "--config", "lockkeeper.yaml", "--target", "orders");

  step("6. Somebody who can write the bucket, but has no key, slips SQL into a third release");
  await writeFile("migrations/000006_audit.up.sql", "CREATE TABLE audit (id bigint, what text);\n");
  await writeFile("migrations/000006_audit.down.sql", "DROP TABLE audit;\n");
  await lockkeeper("publish", "migrations", "bucket", "--stream", "orders", "--key", "release.key");
  await tamper("CREATE TABLE audit");
  const refused = await post(url, "/v1/runs", await signToken(), { target: "orders", action: "apply" });
  say(`   HTTP ${refused.status} ${String(refused.body["code"])}: ${String(refused.body["detail"])}`);
  if (refused.body["code"] !== "BLOB_DIGEST") throw new Error("the tampered release was not refused");
  say("   Nothing ran: every byte is checked before the first statement.");

  step("What to try next");
  say("   npm run -s cli -- --help                 the verbs; each has a --help with examples");
  say("   npm run -s cli -- create add_users       a new pair of migration files");
  say("   npm run -s cli -- up --source ./migrations --unsigned --database postgres://…");
  say("   README.md                                deploying it: HTTP, upload, initContainer, CLI");
}

/** Runs the command line as a user would, showing what it is told and what it answers. */
async function lockkeeper(...args: readonly string[]): Promise<void> {
  say(`   $ lockkeeper ${args.join(" ")}`);
  const { stdout, stderr } = await run(process.execPath, [cli, ...args], { maxBuffer: 1 << 24 });
  for (const line of `${stderr}${stdout}`.split("\n")) if (line.trim() !== "") say(`     ${line}`);
}

/** The server that the tests use: it starts as any user, also as root, whom PostgreSQL itself refuses. */
async function startDatabase(): Promise<string> {
  const server = await startPostgres();
  closing.push(() => server.stop());
  const admin = new pg.Client(server.url);
  await admin.connect();
  await admin.query("CREATE DATABASE orders");
  await admin.end();
  return server.url.replace(/\/postgres$/, "/orders");
}

/** The configuration of the server, and an issuer of tokens in place of the CD tool's own. */
async function writeConfiguration(database: string): Promise<{ signToken(): Promise<string> }> {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = { ...(await exportJWK(publicKey)), kid: "demo", alg: "ES256", use: "sig" };
  await writeFile("database-url", `${database}\n`, { mode: 0o600 });
  await writeFile("jwks.json", JSON.stringify({ keys: [jwk] }));
  await writeFile("policy.json", JSON.stringify(policy, undefined, 2));
  await writeFile("lockkeeper.yaml", configuration);
  say("   lockkeeper.yaml:");
  for (const line of configuration.trimEnd().split("\n")) say(`     ${dim(line)}`);
  return {
    signToken: () =>
      new SignJWT({ repository: "acme/orders", environment: "demo" })
        .setProtectedHeader({ alg: "ES256", kid: "demo" })
        .setIssuer(issuer)
        .setSubject("pipeline")
        .setAudience(audience)
        .setIssuedAt()
        .setExpirationTime("5m")
        .setJti(randomUUID())
        .sign(privateKey),
  };
}

const configuration = `version: 1
publicUrl: http://127.0.0.1
listen: 127.0.0.1:0
policy: policy.json
trust:
  demo: { threshold: 1, keys: [release.key.pub] }
targets:
  orders:
    engine: postgres
    stream: orders
    source: ./bucket
    trust: demo
    database: { urlFile: database-url }
`;

const policy = {
  schema: "urn:lockkeeper:policy:v1",
  audience,
  issuers: { ci: { issuer, jwksFile: "jwks.json", algs: ["ES256"], maxTokenAge: "10m" } },
  rules: [
    {
      id: "orders-pipeline",
      issuer: "ci",
      match: { repository: "acme/orders", environment: "demo" },
      allow: { targets: ["orders"], actions: ["apply", "plan", "status"] },
    },
  ],
};

/** Starts `serve` as a process of its own and waits until it says where it listens. */
async function startServer(): Promise<string> {
  say("   $ lockkeeper serve --config lockkeeper.yaml");
  const server = spawn(process.execPath, [cli, "serve", "--config", "lockkeeper.yaml"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  closing.push(() => endProcess(server));
  server.stdout.resume();
  for await (const line of createInterface({ input: server.stderr })) {
    const url = /listens on (http\S+)/.exec(line)?.[1];
    if (url === undefined) continue;
    server.stderr.resume();
    say(`     listening on ${url}`);
    return url;
  }
  throw new Error("the server ended before it listened");
}

function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    child.once("exit", () => resolve());
    child.kill("SIGTERM");
  });
}

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

async function post(url: string, path: string, token: string, body: unknown): Promise<Answer> {
  const response = await fetch(url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: (await response.json()) as Answer["body"] };
}

function showRun({ status, body }: Answer): void {
  const { id, outcome, from, to, progress } = body;
  say(
    `     HTTP ${status} ${JSON.stringify({ id, status: body["status"], outcome, from, to, progress }, undefined, 1).replaceAll(/\n\s*/g, " ")}`,
  );
  if (body["outcome"] !== "applied") throw new Error(`the release was not applied: ${JSON.stringify(body)}`);
}

async function showEvents(url: string, { body }: Answer, token: string): Promise<void> {
  say(`   $ curl -H "Accept: application/x-ndjson" ${url}/v1/runs/${String(body["id"])}/events`);
  const response = await fetch(`${url}/v1/runs/${String(body["id"])}/events`, {
    headers: { authorization: `Bearer ${token}`, accept: "application/x-ndjson" },
  });
  for (const line of (await response.text()).split("\n").filter((text) => text !== "")) {
    const { event, data } = JSON.parse(line) as {
      event: string;
      data: { path?: string; durationMs?: number };
    };
    if (data.path !== undefined)
      say(
        `     ${dim(`{"event":"${event}","data":{"path":"${data.path}","durationMs":${Math.round(data.durationMs ?? 0)}, …}}`)}`,
      );
  }
}

/** Appends a statement to the one object of the bucket that holds `text`. */
async function tamper(text: string): Promise<void> {
  const { stdout } = await run("grep", ["-rl", text, "bucket"]);
  const [file] = stdout.trim().split("\n");
  if (file === undefined) throw new Error("no object of the bucket holds the new migration");
  say(`   $ echo 'DROP TABLE customers;' >> ${file.slice(0, 40)}…`);
  await appendFile(file, "DROP TABLE customers;\n");
}

let closed: Promise<void> | undefined;
function close(): Promise<void> {
  closed ??= (async () => {
    for (const end of closing.toReversed()) await end().catch(() => undefined);
  })();
  return closed;
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => void close().then(() => process.exit(signal === "SIGINT" ? 130 : 143)));
}
try {
  await main();
  await close();
  say(`\n${bold("Done.")} Everything that was started has been stopped.`);
} catch (failure) {
  await close();
  const { stdout, stderr } = failure as { stdout?: string; stderr?: string };
  process.stderr.write(
    `\nThe demo stopped: ${failure instanceof Error ? failure.message : String(failure)}\n${stdout ?? ""}${stderr ?? ""}\n`,
  );
  process.exitCode = 1;
}
