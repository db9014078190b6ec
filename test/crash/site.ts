import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { openSource, type SourceOptions } from "../../src/source/open.ts";
import type { WritableSource } from "../../src/source/source.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { startPostgres } from "../support/postgres.ts";
import { type Files, folderSource, makeKeys, publishTo } from "../support/release.ts";
import { type Control, openControl } from "./control.ts";
import { compileRunner } from "./runner-process.ts";
import type { CrashServer } from "./fault-injector.ts";

/** Where rounds are run: a PostgreSQL that may be crashed, an S3 server, a key that signs. */
export interface Site extends AsyncDisposable {
  readonly server: CrashServer;
  readonly postgresPort: number;
  readonly publicKey: string;
  /** where Node keeps compiled code between the runners */
  readonly cacheFolder: string;
  /** An empty database, and a look into it. */
  createDatabase(name: string): Promise<{ readonly url: string; readonly control: Control }>;
  dropDatabases(names: readonly string[]): Promise<void>;
  /** A place of its own for a stream's releases. */
  createPlace(kind: "s3" | "folder"): Promise<Place>;
}

/** Where a round's releases lie. */
export interface Place extends AsyncDisposable {
  readonly url: string;
  readonly options: SourceOptions;
  /** of the S3 server; undefined for a folder */
  readonly endpoint: string | undefined;
  /** Signs and publishes, and gives the digest. */
  publish(files: Files): Promise<string>;
}

/** Objects are small and near: what does not come within a second does not come. */
const patience = { attempts: 4, backoffMs: 20, maxBackoffMs: 200, connectMs: 5_000, idleMs: 1_500 } as const;

/** Starts the servers of one worker. `s3` is shared by all workers, and somebody else's to stop. */
export async function openSite(s3: S3Server): Promise<Site> {
  const { key, publicKey } = signingKey();
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-crash-"));
  const cacheFolder = join(folder, "compiled");
  const [postgres] = await Promise.all([
    startPostgres({ restarts: true, settings }),
    compileRunner(cacheFolder),
  ]);
  const admin = openControl(postgres.url);
  const at = (name: string): string => {
    const url = new URL(postgres.url);
    url.pathname = name;
    // Asked for, the negotiation would only cost a round trip: this server has no TLS.
    url.searchParams.set("sslmode", "disable");
    return url.href;
  };
  const publish = async (source: WritableSource, files: Files): Promise<string> =>
    (await publishTo(source, files, { keys: [key] })).digest;
  return {
    server: { crash: (downMs) => postgres.crash(downMs), ready: () => ready(admin) },
    postgresPort: postgres.port,
    publicKey,
    cacheFolder,
    async createDatabase(name) {
      await admin.query(`CREATE DATABASE ${name} TEMPLATE template0`);
      return { url: at(name), control: openControl(at(name)) };
    },
    async dropDatabases(names) {
      for (const name of names) await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
    },
    async createPlace(kind) {
      if (kind === "folder") {
        const path = mkdtempSync(join(folder, "releases-"));
        return {
          url: path,
          options: { patience },
          endpoint: undefined,
          publish: (files) => publish(folderSource(path), files),
          [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
        };
      }
      const url = `${await s3.createBucket()}/orders`;
      const source = await openSource(url, s3.options);
      return {
        url,
        options: { ...s3.options, patience },
        endpoint: s3.endpoint,
        publish: (files) => publish(source, files),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      };
    },
    async [Symbol.asyncDispose]() {
      await admin[Symbol.asyncDispose]();
      await postgres.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Starts the S3 server that all sites of a process share. */
export function startStore(): Promise<S3Server> {
  return startS3("versitygw");
}

/**
 * Commits wait for the disk as in production where they are told to: the process is lost in these crashes, and with it
 * what it has not written, but never the machine, so `fsync` itself may be off.
 */
const settings = { synchronous_commit: "on" } as const;

function signingKey(): { readonly key: ReturnType<typeof makeKeys>["key"]; readonly publicKey: string } {
  const { key } = makeKeys();
  return { key, publicKey: key.publicPem };
}

async function ready(admin: Control): Promise<void> {
  await sleep(20);
  await admin.query("SELECT 1");
}
