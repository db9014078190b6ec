import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { startGcs, startS3 } from "../../test/support/bucket.ts";
import { startPostgres } from "../../test/support/postgres.ts";
import { ask } from "../database.ts";
import { finish } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import { appliedTables } from "./migrations.ts";
import { extendPlace, type Printer, writePlace } from "./place.ts";
import type { Place } from "./tool.ts";

/** PostgreSQL as it comes, so a commit waits for the disk; the same server for every tool. */
export const postgresSettings = { fsync: "on", full_page_writes: "on", max_wal_size: "4GB" };

/** The servers of one benchmark, with the migrations that lie on them. */
export interface Site extends AsyncDisposable {
  readonly description: {
    readonly versions: Readonly<Record<string, string>>;
    readonly settings: string;
  };
  readonly postgresPort: number;
  /** of the S3 server */
  readonly bucketPort: number;
  readonly gcsPort: number;
  /** Writes `count` migrations, of at least so many bytes each, into folders and buckets, plain and as a signed release. */
  place(count: number, bytesEach?: number): Promise<Place>;
  /** Adds the `count`-th migration to a place. */
  extend(place: Place, count: number): Promise<void>;
  /** Makes an empty database, which has this name from now on, and lets the server finish what the last run left it to do. */
  createDatabase(name: string): Promise<void>;
  /** How many migrations are applied there. */
  applied(database: string): Promise<number>;
  /** A database's URL, through a proxy's port where one is given. */
  databaseUrl(name: string, port?: number): string;
}

/** Starts PostgreSQL, an S3 server and a GCS server of our own on loopback. */
export async function openSite(ours: Ours): Promise<Site> {
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-bench-site-"));
  const [postgres, s3, gcs] = await Promise.all([
    startPostgres({ settings: postgresSettings }),
    startS3("versitygw"),
    startGcs(),
  ]);
  await answerAtAnyPort(gcs.endpoint);
  /** how often each was made */
  const made = new Map<string, number>();
  const databaseUrl = (name: string, port = postgres.port): string => {
    const url = new URL(postgres.url);
    url.port = String(port);
    url.pathname = made.has(name) ? `${name}_${made.get(name)}` : name;
    url.search = "sslmode=disable";
    return url.href;
  };
  const privateKey = path.join(folder, "bench");
  await finish(lockkeeper(ours, ["keygen", "--out", privateKey]));
  const printer: Printer = { ours, s3, gcs, folder, privateKey };
  const [server] = await ask(databaseUrl("postgres"), ["SHOW server_version"]);
  const port = (endpoint: string): number => Number(new URL(endpoint).port);
  return {
    description: {
      versions: { PostgreSQL: String(server?.["server_version"]), ...pinnedVersions() },
      settings: Object.entries(postgresSettings)
        .map(([name, value]) => `${name}=${value}`)
        .join(", "),
    },
    postgresPort: postgres.port,
    bucketPort: port(s3.endpoint),
    gcsPort: port(gcs.endpoint),
    place: (count, bytesEach) => writePlace(printer, count, bytesEach),
    extend: (place, count) => extendPlace(printer, place, count),
    async createDatabase(name) {
      const times = (made.get(name) ?? 0) + 1;
      // The one before stays: while a file system forgets thousands of files, every commit waits for that as well.
      await ask(databaseUrl("postgres"), [
        `CREATE DATABASE ${name}_${times} TEMPLATE template0`,
        "CHECKPOINT",
      ]);
      made.set(name, times);
    },
    async applied(database) {
      const [row] = await ask(databaseUrl(database), [appliedTables]);
      return Number(row?.["n"]);
    },
    databaseUrl,
    async [Symbol.asyncDispose]() {
      await Promise.all([postgres.stop(), s3.stop(), gcs.stop()]);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** fake-gcs-server answers Google's Go client only under the name that it was told, port and all: a proxy has another port. */
async function answerAtAnyPort(endpoint: string): Promise<void> {
  const body = JSON.stringify({ publicHost: new URL(endpoint).hostname });
  const answer = await fetch(`${endpoint}/_internal/config`, { method: "PUT", body });
  if (!answer.ok) throw new Error(`fake-gcs-server: ${answer.status} ${await answer.text()}`);
}

/** What the scripts that build the other programs ask for. */
function pinnedVersions(): Readonly<Record<string, string>> {
  const script = (name: string): string =>
    readFileSync(path.join(import.meta.dirname, "..", "..", "test", "parts", name), "utf8");
  const peers = script("go-peers.sh");
  const parts = script("install.sh");
  return {
    "golang-migrate": pinned(peers, /^migrate=(\S+)/m),
    goose: pinned(peers, /^goose=(\S+)/m),
    dbmate: pinned(script("npm/package.json"), /"dbmate": "(\S+)"/),
    "Atlas's library": pinned(script("atlas/go.mod"), /ariga\.io\/atlas (\S+)/),
    Flyway: pinned(parts, /^flyway=(\S+)/m),
    versitygw: pinned(parts, /versitygw@(\S+)/),
    "fake-gcs-server": pinned(parts, /fake-gcs-server@(\S+)/),
  };
}

function pinned(script: string, pattern: RegExp): string {
  const [, version] = pattern.exec(script) ?? [];
  if (version === undefined) throw new Error(`no version by ${pattern.source}`);
  return version;
}
