import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { startS3 } from "../test/support/bucket.ts";
import { startPostgres } from "../test/support/postgres.ts";
import { ask } from "./database.ts";
import type { StoredObject } from "./floor/signed-get.ts";
import { finish } from "./measure.ts";
import { lockkeeper, type Ours } from "./scene.ts";

/** PostgreSQL as it comes, so a commit waits for the disk. */
const settings = { fsync: "on", full_page_writes: "on" };

/** Name of the stream that the release is of. */
export const stream = "bench";

/** A database server, and a bucket with one signed release: what the scenes without other tools stand on. */
export interface Ground extends AsyncDisposable {
  readonly postgresPort: number;
  readonly bucketPort: number;
  /** `s3://bucket/prefix` */
  readonly source: string;
  /** the release's head */
  readonly head: StoredObject;
  /** file with the key that signed it */
  readonly publicKey: string;
  /** for whoever reads the bucket, through this port of loopback */
  variables(port: number): Readonly<Record<string, string>>;
  /** A database's URL, through this port of loopback. */
  databaseUrl(name: string, port?: number): string;
  /** Makes an empty database, and runs statements in it. */
  createDatabase(name: string, statements?: readonly string[]): Promise<void>;
  /** `PostgreSQL 18.4, fsync=on …` */
  readonly description: string;
}

/** Starts both servers on loopback and publishes a release of `migrations` small migrations. */
export async function openGround(ours: Ours, migrations: number): Promise<Ground> {
  const folder = await mkdtemp(path.join(tmpdir(), "lockkeeper-bench-ground-"));
  const [postgres, s3] = await Promise.all([startPostgres({ settings }), startS3("versitygw")]);
  const source = `${await s3.createBucket()}/release`;
  const { pathname, host } = new URL(source);
  const bucketPort = Number(new URL(s3.endpoint).port);
  const variables = (port: number): Readonly<Record<string, string>> => ({
    AWS_REGION: "us-east-1",
    AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${port}`,
    AWS_ACCESS_KEY_ID: s3.credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: s3.credentials.secretAccessKey,
  });
  const databaseUrl = (name: string, port = postgres.port): string => {
    const url = new URL(postgres.url);
    url.port = String(port);
    url.pathname = name;
    url.search = "sslmode=disable";
    return url.href;
  };
  const written = path.join(folder, "migrations");
  await mkdir(written);
  for (let number = 1; number <= migrations; number += 1) {
    const name = `${String(number).padStart(6, "0")}_m${number}.up.sql`;
    await writeFile(path.join(written, name), `SELECT ${number};\n`);
  }
  const key = path.join(folder, "bench");
  await finish(lockkeeper(ours, ["keygen", "--out", key]));
  const publish = ["publish", written, source, "--stream", stream, "--key", key];
  await finish(lockkeeper(ours, publish, variables(bucketPort)));
  const [row] = await ask(databaseUrl("postgres"), ["SHOW server_version"]);
  return {
    postgresPort: postgres.port,
    bucketPort,
    source,
    head: { endpoint: s3.endpoint, path: `/${host}${pathname}/head.json`, ...s3.credentials },
    publicKey: `${key}.pub`,
    variables,
    databaseUrl,
    async createDatabase(name, statements = []) {
      await ask(databaseUrl("postgres"), [
        `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`,
        `CREATE DATABASE ${name} TEMPLATE template0`,
      ]);
      await ask(databaseUrl(name), statements);
    },
    description: `PostgreSQL ${String(row?.["server_version"])} (${Object.entries(settings)
      .map(([name, value]) => `${name}=${value}`)
      .join(", ")}) and versitygw, both on loopback`,
    async [Symbol.asyncDispose]() {
      await Promise.all([postgres.stop(), s3.stop()]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
