import { writeFileSync } from "node:fs";
import path from "node:path";
import { onTestFinished } from "vitest";
import { part } from "./parts.ts";
import { makeCertificates } from "./postgres.ts";
import { serverFolder, startServer, untilReady, withFreePort } from "./server.ts";

/** A PgBouncer in front of a PostgreSQL server. */
export interface Pooler extends AsyncDisposable {
  /** the database's URL, through the pooler; with TLS it names the CA and asks for all that can be verified */
  readonly url: string;
  output(): string;
  stop(): Promise<void>;
}

/**
 * Starts PgBouncer in front of the database that `url` names: transaction mode, where no session state survives.
 *
 * Ends with the running test, or by `stop` when started outside of one. The file needs `needs("pgbouncer")`.
 *
 * @param options.poolSize - connections to PostgreSQL, 2 when absent: few enough that clients share them
 * @param options.serverCa - file with the CA of a PostgreSQL that serves TLS; then TLS is asked for on both sides
 */
export async function startPgBouncer(
  url: string,
  options: { readonly poolSize?: number; readonly serverCa?: string | undefined } = {},
): Promise<Pooler> {
  const upstream = new URL(url);
  const pooler = await withFreePort(async (port) => {
    const folder = serverFolder("pgbouncer", true);
    const secured = options.serverCa === undefined ? undefined : await tlsSettings(folder, options.serverCa);
    const server = startServer({
      command: part("pgbouncer"),
      args: [writeSettings(folder, upstream, port, options.poolSize ?? 2, secured?.settings ?? [])],
      folder,
      unprivileged: true,
    });
    await untilReady("PgBouncer", server, /process up/);
    const through = new URL(url);
    through.port = String(port);
    if (secured !== undefined) {
      through.searchParams.set("sslmode", "verify-full");
      through.searchParams.set("sslrootcert", secured.caFile);
    }
    return {
      url: through.href,
      output: () => server.output(),
      stop: () => server.stop(),
      [Symbol.asyncDispose]: () => server.stop(),
    };
  });
  try {
    onTestFinished(() => pooler.stop());
  } catch {
    // Not in a test: whoever started it stops it.
  }
  return pooler;
}

/** TLS with the clients by a certificate made for this, and with the server by the one that its CA vouches for. */
async function tlsSettings(
  folder: string,
  serverCa: string,
): Promise<{ readonly caFile: string; readonly settings: readonly string[] }> {
  const caFile = await makeCertificates(folder);
  return {
    caFile,
    settings: [
      "client_tls_sslmode = require",
      `client_tls_key_file = ${path.join(folder, "server.key")}`,
      `client_tls_cert_file = ${path.join(folder, "server.crt")}`,
      "server_tls_sslmode = verify-full",
      `server_tls_ca_file = ${serverCa}`,
    ],
  };
}

function writeSettings(
  folder: string,
  upstream: URL,
  port: number,
  poolSize: number,
  tls: readonly string[],
): string {
  const user = decodeURIComponent(upstream.username);
  const password = decodeURIComponent(upstream.password);
  const settings = path.join(folder, "pgbouncer.ini");
  const users = path.join(folder, "users.txt");
  // Everybody in this folder is a test: the password is that of a server which lives for seconds.
  writeFileSync(users, `"${user}" "${password}"\n`);
  writeFileSync(
    settings,
    [
      "[databases]",
      `* = host=127.0.0.1 port=${upstream.port}`,
      "[pgbouncer]",
      "listen_addr = 127.0.0.1",
      `listen_port = ${port}`,
      "unix_socket_dir =",
      "auth_type = scram-sha-256",
      `auth_file = ${users}`,
      "pool_mode = transaction",
      `default_pool_size = ${poolSize}`,
      "max_client_conn = 200",
      ...tls,
      "",
    ].join("\n"),
  );
  return settings;
}
