import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { MongoClient } from "mongodb";
import { startS3 } from "../../test/support/bucket.ts";
import { part } from "../../test/support/parts.ts";
import { serverFolder, startServer, untilReady, withFreePort } from "../../test/support/server.ts";
import { finish, type Command } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import { addMigration, type Layout, writeMigrations } from "./migrations.ts";
import { stream, type Place, type Tool } from "./tool.ts";

/** The servers of the scene, with the migrations that lie on them. */
export interface Site extends AsyncDisposable {
  readonly mongodbPort: number;
  readonly versions: Readonly<Record<string, string>>;
  /** Writes `count` migrations into folders and, as a signed release, into a bucket. */
  place(count: number): Promise<Place>;
  /** Adds the k-th to a place that has all before it. */
  extend(place: Place, k: number): Promise<void>;
  /** The command that brings a database up, its configuration written. */
  command(tool: Tool, place: Place, database: string, port: number): Command;
  dropDatabase(name: string): Promise<void>;
  /** How many migrations took effect there: the indexes that they built. */
  applied(database: string): Promise<number>;
}

const region = "us-east-1";

/** Starts SecantusDB, as a replica set of one, and an S3 server on loopback. */
export async function openSite(ours: Ours): Promise<Site> {
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-bench-mongodb-"));
  const [mongodb, s3] = await Promise.all([startMongodb(), startS3("versitygw")]);
  const client = new MongoClient(urlOf("", mongodb.port));
  const privateKey = path.join(folder, "key");
  await finish(lockkeeper(ours, ["keygen", "--out", privateKey]));
  const access = {
    flags: ["--s3-endpoint", s3.endpoint, "--s3-region", region, "--s3-path-style"],
    env: {
      AWS_REGION: region,
      AWS_ACCESS_KEY_ID: s3.credentials.accessKeyId,
      AWS_SECRET_ACCESS_KEY: s3.credentials.secretAccessKey,
    },
  };
  const publish = async ({ folders, release }: Place): Promise<void> => {
    const signed = ["--stream", stream, "--key", privateKey, ...release.flags];
    await finish(lockkeeper(ours, ["publish", folders.commands, release.url, ...signed], release.env));
  };
  return {
    mongodbPort: mongodb.port,
    versions: versionsOf(),
    async place(count) {
      const folders: Record<Layout, string> = {
        commands: path.join(folder, `commands-${count}`),
        programs: path.join(folder, `programs-${count}`),
      };
      for (const layout of layouts) await writeMigrations(folders[layout], layout, count);
      const url = `${await s3.createBucket()}/release`;
      const place = { folders, release: { url, publicKey: `${privateKey}.pub`, ...access } };
      await publish(place);
      return place;
    },
    async extend(place, k) {
      for (const layout of layouts) await addMigration(place.folders[layout], layout, k);
      await publish(place);
    },
    command(tool, place, database, port) {
      const configFile = path.join(folder, "config.cjs");
      const goal = { place, databaseUrl: urlOf(database, port), database, configFile };
      if (tool.config !== undefined) writeFileSync(configFile, tool.config(goal));
      return tool.up(goal);
    },
    async dropDatabase(name) {
      await client.db(name).dropDatabase();
    },
    async applied(database) {
      const db = client.db(database);
      const collections = await db.listCollections({ name: /^bench_/ }, { nameOnly: true }).toArray();
      const indexes = await Promise.all(collections.map(({ name }) => db.collection(name).indexes()));
      // Each has one of its own.
      return indexes.reduce((sum, { length }) => sum + length - 1, 0);
    },
    async [Symbol.asyncDispose]() {
      await client.close();
      await Promise.all([mongodb.stop(), s3.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const layouts: readonly Layout[] = ["commands", "programs"];

/** Straight to the server: a replica set would tell its own address, past the proxy. */
function urlOf(database: string, port: number): string {
  return `mongodb://127.0.0.1:${port}/${database}?directConnection=true`;
}

async function startMongodb(): Promise<{ readonly port: number; stop(): Promise<void> }> {
  const { port, running } = await withFreePort(async (port) => {
    const folder = serverFolder("mongo");
    const args = ["--host", "127.0.0.1", "--port", `${port}`, "--storage-path", path.join(folder, "data")];
    const running = startServer({ command: part("secantusdb"), args, folder, stopSignal: "KILL" });
    await untilReady("SecantusDB", running, /listening on/);
    return { port, running };
  });
  return { port, stop: () => running.stop() };
}

/** What the scripts that install the other programs ask for. */
function versionsOf(): Readonly<Record<string, string>> {
  const parts = path.join(import.meta.dirname, "..", "..", "test", "parts");
  const read = (...name: readonly string[]): string => readFileSync(path.join(parts, ...name), "utf8");
  return {
    SecantusDB: found(readdirSync(parts).join("\n"), /^secantusdb-([^-]+)-/m),
    "golang-migrate": found(read("go-peers.sh"), /^migrate=(\S+)/m),
    "migrate-mongo": found(read("npm", "package.json"), /"migrate-mongo": "([^"]+)"/),
  };
}

function found(text: string, pattern: RegExp): string {
  const [, version] = pattern.exec(text) ?? [];
  if (version === undefined) throw new Error(`no version by ${pattern.source}`);
  return version;
}
