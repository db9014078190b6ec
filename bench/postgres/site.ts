import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import pg from "pg";
import { type S3Server, startS3 } from "../../test/support/bucket.ts";
import { startPostgres } from "../../test/support/postgres.ts";
import { finish } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import { appliedTables, listMigrations, writeMigrations } from "./migrations.ts";
import { s3Flags, s3Variables, type Place } from "./tool.ts";

/** PostgreSQL as it comes, so a commit waits for the disk; the same server for every tool. */
export const postgresSettings = { fsync: "on", full_page_writes: "on", max_wal_size: "4GB" };

/** Uploads under way at once. */
const uploads = 16;

/** The servers of one benchmark, with the migrations that lie on them. */
export interface Site extends AsyncDisposable {
  readonly postgresPort: number;
  readonly bucketPort: number;
  readonly description: { readonly versions: Readonly<Record<string, string>>; readonly settings: string };
  /** Writes `count` migrations into folders and the bucket, plain and as a signed release. */
  place(count: number): Promise<Place>;
  /** Makes a database empty, and lets the server finish what the last run left it to do. */
  createDatabase(name: string): Promise<void>;
  /** How many migrations are applied there. */
  applied(database: string): Promise<number>;
  /** A database's URL, through a proxy's port where one is given. */
  databaseUrl(name: string, port?: number): string;
}

/** Starts PostgreSQL and an S3 server of our own on loopback. */
export async function openSite(ours: Ours): Promise<Site> {
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-bench-site-"));
  const [postgres, s3] = await Promise.all([
    startPostgres({ settings: postgresSettings }),
    startS3("versitygw"),
  ]);
  const databaseUrl = (name: string, port = postgres.port): string => {
    const url = new URL(postgres.url);
    url.port = String(port);
    url.pathname = name;
    url.search = "sslmode=disable";
    return url.href;
  };
  const ask = async (
    database: string,
    ...statements: readonly string[]
  ): Promise<readonly pg.QueryResultRow[]> => {
    const client = new pg.Client({ connectionString: databaseUrl(database) });
    await client.connect();
    try {
      let rows: readonly pg.QueryResultRow[] = [];
      for (const statement of statements) rows = (await client.query<pg.QueryResultRow>(statement)).rows;
      return rows;
    } finally {
      await client.end();
    }
  };
  const privateKey = path.join(folder, "bench");
  await finish(lockkeeper(ours, ["keygen", "--out", privateKey]));
  const [server] = await ask("postgres", "SHOW server_version");
  return {
    postgresPort: postgres.port,
    bucketPort: Number(new URL(s3.endpoint).port),
    description: {
      versions: { PostgreSQL: String(server?.["server_version"]), ...pinnedVersions() },
      settings: Object.entries(postgresSettings)
        .map(([name, value]) => `${name}=${value}`)
        .join(", "),
    },
    place: (count) => place(ours, s3, folder, privateKey, count),
    async createDatabase(name) {
      await ask(
        "postgres",
        `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`,
        `CREATE DATABASE ${name} TEMPLATE template0`,
        "CHECKPOINT",
      );
    },
    async applied(database) {
      const [row] = await ask(database, appliedTables);
      return Number(row?.["n"]);
    },
    databaseUrl,
    async [Symbol.asyncDispose]() {
      await Promise.all([postgres.stop(), s3.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function place(
  ours: Ours,
  s3: S3Server,
  folder: string,
  privateKey: string,
  count: number,
): Promise<Place> {
  const folders = {
    "golang-migrate": path.join(folder, `plain-${count}`),
    goose: path.join(folder, `goose-${count}`),
  };
  await writeMigrations(folders["golang-migrate"], "golang-migrate", count);
  await writeMigrations(folders.goose, "goose", count);
  const url = await s3.createBucket();
  const bucket = {
    endpoint: s3.endpoint,
    name: url.replace("s3://", ""),
    plainPrefix: "plain/",
    releasePrefix: "release",
    credentials: s3.credentials,
  };
  await upload(s3, `${url}/plain`, folders["golang-migrate"]);
  const publish = [
    "publish",
    folders["golang-migrate"],
    `${url}/${bucket.releasePrefix}`,
    "--stream",
    "bench",
    "--key",
    privateKey,
  ];
  await finish(lockkeeper(ours, [...publish, ...s3Flags(bucket)], s3Variables(bucket)));
  return { folders, bucket, publicKey: `${privateKey}.pub` };
}

async function upload(s3: S3Server, url: string, folder: string): Promise<void> {
  const names = [...(await listMigrations(folder))];
  const worker = async (): Promise<void> => {
    for (let name = names.pop(); name !== undefined; name = names.pop()) {
      await s3.put(url, name, await readFile(path.join(folder, name)));
    }
  };
  await Promise.all(Array.from({ length: uploads }, worker));
}

/** What the scripts that build the other programs ask for. */
function pinnedVersions(): Readonly<Record<string, string>> {
  const script = (name: string): string =>
    readFileSync(path.join(import.meta.dirname, "..", "..", "test", "parts", name), "utf8");
  return {
    "golang-migrate": pinned(script("go-peers.sh"), /^migrate=(\S+)/m),
    goose: pinned(script("go-peers.sh"), /^goose=(\S+)/m),
    versitygw: pinned(script("install.sh"), /versitygw@(\S+)/),
  };
}

function pinned(script: string, pattern: RegExp): string {
  const [, version] = pattern.exec(script) ?? [];
  if (version === undefined) throw new Error(`no version by ${pattern.source}`);
  return version;
}
