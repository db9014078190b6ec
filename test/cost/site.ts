import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, vi } from "vitest";
import { writeBundle, type Bundle } from "../../infra/bundle/bundle.ts";
import { bundleCli } from "../../infra/bundle/cli.ts";
import { layout } from "../../src/release/layout.ts";
import { startGcs, startS3, type BucketServer } from "../support/bucket.ts";
import { createDatabase } from "../support/database.ts";
import { makeKeys, publishTo, tempFolder } from "../support/release.ts";
import { openWire, type Traffic, type Wire } from "../support/wire.ts";
import { withoutClock } from "./unhurried.ts";

/** The servers that buckets are counted on. */
export type BucketKind = "S3" | "GCS";

/** What one run of the program asked of one server. */
export interface Asked extends Traffic {
  /** what it asked and waited for, less what goes by the clock: a slow machine sees more of that */
  readonly asked: readonly string[];
}

/** What one run of the program cost, and what it said. */
export interface Cost {
  readonly bucket: Asked;
  readonly database: Asked;
  /** its JSON, or null where it said nothing */
  readonly said: unknown;
}

/** One bucket and one database, with a counter before each. */
export interface Site {
  /** of the prefix that releases, or files, are under */
  readonly url: string;
  /** the flags that say which release of which bucket on which database */
  readonly flags: readonly string[];
  /** what reaches the bucket and, as DATABASE_URL, the database */
  readonly variables: Readonly<Record<string, string>>;
  /** holds `key.pub`, whose signatures are to be trusted */
  readonly folder: string;
  /**
   * Publishes the next signed release; of its objects, and those of releases before it, each is put into the bucket once.
   *
   * @param isPut - false for what no run will ask for
   */
  publish(files: Readonly<Record<string, string>>, isPut?: (key: string) => boolean): Promise<void>;
  /** Puts an object into the bucket, as some other program would. */
  put(key: string, text: string): Promise<void>;
  /** What whatever `act` does costs. */
  counted(act: () => Promise<unknown>): Promise<Cost>;
  /** What one run of the program costs. It has to end with 0. */
  cost(argv: readonly string[], flags?: readonly string[]): Promise<Cost>;
}

// Many programs start and end here, on a machine that may be busy: counts do not mind, and time-outs are to end what hangs.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 });

/** What to end when the file ends, newest first. */
const open = new Set<() => Promise<void>>();
afterAll(async () => {
  for (const child of running) child.kill("SIGKILL");
  for (const close of [...open].toReversed()) await close();
});

/** Starts a server of buckets, until the file's end. */
export async function startBuckets(kind: BucketKind): Promise<BucketServer> {
  const server = await (kind === "S3" ? startS3("versitygw") : startGcs());
  open.add(() => server.stop());
  return server;
}

/** A fresh bucket and an empty database, until the file's end. */
export async function openSite(server: BucketServer, hold?: (asked: string) => Promise<void>): Promise<Site> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-cost-"));
  const database = await createDatabase({ endsWith: "file" });
  const bucket = await openWire(Number(new URL(server.endpoint).port), "http", hold && { hold });
  const postgres = await openWire(Number(new URL(database.url).port), "postgres");
  open.add(async () => {
    await Promise.all([bucket[Symbol.asyncDispose](), postgres[Symbol.asyncDispose]()]);
    await rm(folder, { recursive: true, force: true });
  });
  const { key } = makeKeys();
  await writeFile(join(folder, "key.pub"), key.publicPem);
  const url = `${await server.createBucket()}/orders`;
  const local = await tempFolder();
  open.add(async () => local[Symbol.asyncDispose]());
  const seen = new Set<string>();
  const databaseUrl = new URL(database.url);
  databaseUrl.port = String(postgres.port);
  databaseUrl.searchParams.set("sslmode", "disable");
  const flags = ["--source", url, "--stream", "orders", "--trust", join(folder, "key.pub")];
  const variables = {
    ...storageVariables(server, `http://127.0.0.1:${bucket.port}`),
    DATABASE_URL: databaseUrl.href,
    HOME: folder,
  };
  const site: Site = {
    url,
    flags,
    variables,
    folder,
    async publish(files, isPut = () => true) {
      await publishTo(local.source, files, { keys: [key] });
      const keys = (await readdir(local.path, { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map((entry) => relative(local.path, join(entry.parentPath, entry.name)))
        .filter((name) => name === layout.head || !seen.has(name));
      for (const name of keys) {
        if (isPut(name)) await server.put(url, name, await readFile(join(local.path, name)));
        seen.add(name);
      }
    },
    put: (name, content) => server.put(url, name, Buffer.from(content)),
    async counted(act) {
      bucket.reset();
      postgres.reset();
      const said = await act();
      return { said, bucket: taken(bucket), database: taken(postgres) };
    },
    cost: (argv, given = flags) => site.counted(() => lockkeeper([...argv, ...given], variables)),
  };
  return site;
}

function taken(wire: Wire): Asked {
  return { ...wire.traffic(), asked: withoutClock(wire.asked()) };
}

function storageVariables(server: BucketServer, endpoint: string): Record<string, string> {
  const { s3 } = server.options;
  if (s3?.credentials === undefined)
    return { STORAGE_EMULATOR_HOST: endpoint, METADATA_SERVER_DETECTION: "none" };
  return {
    AWS_ACCESS_KEY_ID: s3.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: s3.credentials.secretAccessKey,
    AWS_REGION: "us-east-1",
    AWS_ENDPOINT_URL_S3: endpoint,
  };
}

/** What a test that failed has left. */
const running = new Set<ChildProcess>();

/** The program as it is published. */
export interface Published extends Pick<Bundle, "outputs"> {
  readonly folder: string;
  /** its file that is run */
  readonly cli: string;
}

let made: Promise<Published> | undefined;

/** The program as it is published, made anew for this file. */
export function published(): Promise<Published> {
  made ??= make();
  return made;
}

async function make(): Promise<Published> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-cost-"));
  open.add(() => rm(folder, { recursive: true, force: true }));
  const bundle = await bundleCli();
  writeBundle(folder, bundle);
  // Beside it, as npm would have them: what stays a package.
  await symlink(join(import.meta.dirname, "../../node_modules"), join(folder, "node_modules"));
  return { folder, cli: join(folder, "cli.js"), outputs: bundle.outputs };
}

/** Starts the program with these variables and no others of ours; ended with the file at the latest. */
export async function start(argv: readonly string[], variables: Readonly<Record<string, string>>) {
  const child = spawn(process.execPath, [(await published()).cli, ...argv], {
    env: { PATH: process.env["PATH"], ...variables },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  child.on("close", () => running.delete(child));
  return child;
}

/** Runs the program to a good end; what it says as JSON. */
async function lockkeeper(
  argv: readonly string[],
  variables: Readonly<Record<string, string>>,
): Promise<unknown> {
  const child = await start([...argv, "--output", "json"], variables);
  const ended = new Promise<number | null>((resolve) => child.on("close", resolve));
  const [said, wrong, code] = await Promise.all([text(child.stdout), text(child.stderr), ended]);
  if (code !== 0) throw new Error(`lockkeeper ${argv.join(" ")}: exit ${code}\n${said}\n${wrong}`);
  return said === "" ? null : JSON.parse(said);
}

/** `count` small migrations, the k-th of which makes a table. */
export function migrations(count: number): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => [
      `${String(index + 1).padStart(6, "0")}_t.up.sql`,
      `CREATE TABLE t_${index + 1} (id int);\n`,
    ]),
  );
}
