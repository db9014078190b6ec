import { randomBytes } from "node:crypto";
import path from "node:path";
import { MongoClient, type Db } from "mongodb";
import { afterAll, onTestFinished } from "vitest";
import { part } from "./parts.ts";
import { makeCertificates } from "./postgres.ts";
import { type ServerCommand, serverFolder, startServer, untilReady, withFreePort } from "./server.ts";

/** A running server of the MongoDB protocol. */
export interface MongoServer {
  /** `mongodb://127.0.0.1:1234/`, without a database */
  readonly url: string;
  /** certificate of the authority that vouches for it, where it serves TLS */
  readonly caFile: string | undefined;
  /** what it printed last */
  output(): string;
  /** Repeated calls are fine. */
  stop(): Promise<void>;
}

/** An empty database of a test's own, dropped when the test has ended (or the file, when made outside of a test). */
export interface MongoTestDatabase {
  readonly name: string;
  /** with the database's name */
  readonly url: string;
  /** a connection of the test's own */
  readonly db: Db;
  /** of that connection: transactions, other databases */
  readonly client: MongoClient;
  /** Drops it now. Repeated calls are fine. */
  drop(): Promise<void>;
}

/** How a server is started. */
export interface MongoOptions {
  /** no replica set, and so no transactions */
  readonly standalone?: boolean;
  /** serves nothing but TLS, with a certificate for `localhost` */
  readonly tls?: boolean;
  /** knows this user alone, who may do everything */
  readonly user?: { readonly name: string; readonly password: string };
}

/** What to clean up when the file ends, newest first. */
const open = new Set<() => Promise<void>>();
afterAll(async () => {
  for (const close of [...open].toReversed()) await close();
});

let shared: Promise<MongoServer> | undefined;

/**
 * The server of this file: `LOCKKEEPER_TEST_MONGODB` where that is a URL, else SecantusDB as a replica set of one, started
 * with the first call. The file needs `needs("mongodb")`.
 */
export function mongoServer(): Promise<MongoServer> {
  shared ??= start();
  return shared;
}

/** A SecantusDB of its own for this test or file: stand-alone, with TLS, with users. The file needs `needs("secantusdb")`. */
export async function ownMongo(options: MongoOptions): Promise<MongoServer> {
  const server = await startSecantus(options, part("secantusdb"));
  cleanUp(server.stop);
  return server;
}

/** A fresh, empty database, on the file's server or on another. */
export async function createMongoDatabase(
  options: { readonly server?: MongoServer; readonly endsWith?: "test" | "file" } = {},
): Promise<MongoTestDatabase> {
  const server = options.server ?? (await mongoServer());
  const name = `test_${randomBytes(8).toString("hex")}`;
  const url = withDatabase(server.url, name);
  const client = new MongoClient(url);
  const drop = async () => {
    if (!open.delete(drop)) return;
    await client
      .db(name)
      .dropDatabase()
      .catch(() => undefined);
    await client.close();
  };
  if (options.endsWith === "file") open.add(drop);
  else cleanUp(drop);
  return { name, url, db: client.db(name), client, drop };
}

/** The URL with another database: its hosts may be many, so it is no URL to Node. */
export function withDatabase(url: string, database: string): string {
  const found = /^(mongodb(?:\+srv)?:\/\/[^/?]+)(?:\/[^?]*)?(\?.*)?$/.exec(url);
  return `${found?.[1]}/${database}${found?.[2] ?? ""}`;
}

async function start(): Promise<MongoServer> {
  const given = part("mongodb");
  if (isUrl(given)) return { url: given, caFile: undefined, output: () => "", stop: () => Promise.resolve() };
  const server = await startSecantus({}, given);
  open.add(server.stop);
  return server;
}

function isUrl(text: string): boolean {
  return /^mongodb(\+srv)?:\/\//.test(text);
}

async function startSecantus(options: MongoOptions, program: string): Promise<MongoServer> {
  const { user } = options;
  const server = await withFreePort(async (port) => {
    const folder = serverFolder("mongo");
    const caFile = options.tls === true ? await makeCertificates(folder) : undefined;
    const at = (name: string) => path.join(folder, name);
    const args = ["--host", "127.0.0.1", "--port", `${port}`, "--storage-path", at("data")];
    args.push("--enable-test-commands");
    if (options.standalone === true) args.push("--standalone");
    if (user !== undefined) {
      await addUser({ command: program, args, folder: serverFolder("mongo-user") }, port, user);
      args.push("--auth");
    }
    if (caFile !== undefined) {
      args.push("--tls-cert-file", at("server.crt"), "--tls-key-file", at("server.key"));
    }
    // What it keeps goes with its folder: there is nothing to say goodbye to.
    const running = startServer({ command: program, args, folder, stopSignal: "KILL" });
    await untilReady("SecantusDB", running, /listening on/);
    return { port, caFile, running };
  });
  const stop = async () => {
    open.delete(stop);
    await server.running.stop();
  };
  const who =
    user === undefined ? "" : `${encodeURIComponent(user.name)}:${encodeURIComponent(user.password)}@`;
  const parameters = [
    ...(user === undefined ? [] : ["authSource=admin"]),
    ...(server.caFile === undefined ? [] : [`tls=true&tlsCAFile=${encodeURIComponent(server.caFile)}`]),
  ];
  return {
    url: `mongodb://${who}127.0.0.1:${server.port}/${parameters.length === 0 ? "" : `?${parameters.join("&")}`}`,
    caFile: server.caFile,
    output: () => server.running.output(),
    stop,
  };
}

/** A server that asks for passwords knows only users that were made while it did not. */
async function addUser(
  command: ServerCommand,
  port: number,
  user: { readonly name: string; readonly password: string },
): Promise<void> {
  await using server = startServer(command);
  await untilReady("SecantusDB", server, /listening on/);
  const client = new MongoClient(`mongodb://127.0.0.1:${port}/?directConnection=true`);
  await client.db("admin").command({ createUser: user.name, pwd: user.password, roles: ["root"] });
  await client.close();
}

/** At the end of the running test; outside of a test (top level, beforeAll) at the end of the file. */
function cleanUp(close: () => Promise<void>): void {
  open.add(close);
  try {
    onTestFinished(close);
  } catch {
    // Not in a test: the file's afterAll does it.
  }
}
