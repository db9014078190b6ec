import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { part } from "./parts.ts";

/** What another tool said, and how it ended. */
export interface PeerResult {
  /** its exit code */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A database and the folder of migrations for it. */
export interface PeerSite {
  /** as the tests' servers give it: password and all, without TLS */
  readonly url: string;
  readonly folder: string;
}

/**
 * Runs golang-migrate's command line: `golangMigrate(site, "up")`, `"down", "-all"`, `"goto", "3"`, `"force", "3"`, `"version"`.
 * PostgreSQL and MongoDB.
 */
export function golangMigrate({ url, folder }: PeerSite, ...args: readonly string[]): Promise<PeerResult> {
  return run(part("golang-migrate"), ["-path", folder, "-database", withoutTls(url), ...args]);
}

/** Runs goose's command line: `goose(site, "up")`, `"down-to", "0"`, `"status"`; `variables` are for ENVSUB. */
export function goose(
  { url, folder, variables }: PeerSite & { readonly variables?: Readonly<Record<string, string>> },
  ...args: readonly string[]
): Promise<PeerResult> {
  const flags = ["-env", "none", "-dir", folder];
  return run(part("goose"), [...flags, "postgres", withoutTls(url), ...args], variables);
}

/** Runs dbmate's command line: `dbmate(site, "migrate")`, `"rollback"`, `"status"`. */
export function dbmate({ url, folder }: PeerSite, ...args: readonly string[]): Promise<PeerResult> {
  const flags = ["--no-dump-schema", "--migrations-dir", folder, "--url", withoutTls(url)];
  return run(part("dbmate"), [...flags, ...args]);
}

/** Runs Flyway's command line: `flyway(site, "migrate")`, `"info"`, `"validate"`, `"-placeholders.who=alice", "migrate"`. */
export function flyway({ url, folder }: PeerSite, ...args: readonly string[]): Promise<PeerResult> {
  const { host, pathname, username, password } = new URL(url);
  const flags = [
    "-skipCheckForUpdate",
    `-url=jdbc:postgresql://${host}${pathname}`,
    `-user=${username}`,
    `-password=${password}`,
    `-locations=filesystem:${folder}`,
  ];
  // For a program that lives a second, half of the compiler is quicker than all of it.
  return run(part("flyway"), [...flags, ...args], { JAVA_ARGS: "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" });
}

/**
 * Does what Atlas's command line does, by Atlas's library (`test/parts/atlas`): `atlas(site, "apply")`, `"apply", "--baseline", "1"`,
 * `"apply", "2"`, `"hash"`. A `search_path` in the URL says where its table of revisions is, as with Atlas.
 */
export function atlas(
  { url, folder }: PeerSite,
  verb: "apply" | "hash",
  ...args: readonly string[]
): Promise<PeerResult> {
  const database = verb === "apply" ? ["--url", withoutTls(url)] : [];
  return run(part("atlas"), [verb, "--dir", folder, ...database, ...args]);
}

/** Runs node-pg-migrate's command line: `nodePgMigrate(site, "up")`, `"down", "2"`, `"up", "--fake"`. */
export function nodePgMigrate({ url, folder }: PeerSite, ...args: readonly string[]): Promise<PeerResult> {
  return run(part("node-pg-migrate"), [...args, "--migrations-dir", folder], { DATABASE_URL: url });
}

/** Runs umzug by the command line that a project writes for it: `umzug(site, "up")`, `"down", "--to", "0"`. PostgreSQL and MongoDB. */
export function umzug({ url, folder }: PeerSite, ...args: readonly string[]): Promise<PeerResult> {
  return run(process.execPath, [part("umzug"), url, folder, ...args]);
}

/**
 * Runs migrate-mongo's command line: `migrateMongo(site, {}, "up")`, `"down"`, `"status"`.
 *
 * @param settings - of its configuration file, in place of its own defaults: `{ useFileHash: true, lockTtl: 60 }`
 */
export async function migrateMongo(
  { url, folder }: PeerSite,
  settings: Readonly<Record<string, unknown>>,
  ...args: readonly string[]
): Promise<PeerResult> {
  const home = await mkdtemp(path.join(tmpdir(), "migrate-mongo-"));
  const config = path.join(home, "config.cjs");
  const content = {
    mongodb: { url, databaseName: new URL(url).pathname.slice(1), options: {} },
    migrationsDir: folder,
    changelogCollectionName: "changelog",
    lockCollectionName: "changelog_lock",
    lockTtl: 0,
    migrationFileExtension: ".js",
    useFileHash: false,
    moduleSystem: "commonjs",
    ...settings,
  };
  await writeFile(config, `module.exports = ${JSON.stringify(content)};\n`);
  try {
    return await run(part("migrate-mongo"), [...args, "-f", config]);
  } finally {
    await rm(home, { recursive: true });
  }
}

/**
 * A tool's answer, where it is a good one.
 *
 * @throws Error with what it said, where its exit code is not 0
 */
export async function succeeded(answer: Promise<PeerResult>): Promise<PeerResult> {
  const result = await answer;
  if (result.code === 0) return result;
  throw new Error(`exit ${result.code}: ${result.stdout}${result.stderr}`);
}

/** Milliseconds that a run may take on the slowest machine: less than a test may. */
const longest = 50_000;

/** Without the caller's environment, so that no variable, `.env` file or proxy of the machine takes part. */
function run(
  program: string,
  args: readonly string[],
  variables: Readonly<Record<string, string>> = {},
): Promise<PeerResult> {
  const env = {
    PATH: process.env["PATH"],
    JAVA_HOME: process.env["JAVA_HOME"],
    HOME: tmpdir(),
    ...variables,
  };
  // In a group of its own, so that what a shell script has started ends with it.
  const child = spawn(program, args, {
    cwd: tmpdir(),
    env,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const said = { stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said.stderr += text));
  const end = () => {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  };
  const timer = setTimeout(end, longest);
  process.once("exit", end);
  return new Promise((resolve, reject) => {
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      process.off("exit", end);
      if (code === null)
        reject(new Error(`${path.basename(program)} did not end by itself: ${said.stdout}${said.stderr}`));
      else resolve({ code, ...said });
    });
  });
}

/** lib/pq wants TLS unless told otherwise; MongoDB's URLs know no such option. */
function withoutTls(url: string): string {
  const parsed = new URL(url);
  if (parsed.protocol === "postgres:" && !parsed.searchParams.has("sslmode"))
    parsed.searchParams.set("sslmode", "disable");
  return parsed.href;
}
