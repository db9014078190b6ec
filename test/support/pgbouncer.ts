import { writeFileSync } from "node:fs";
import path from "node:path";
import { onTestFinished } from "vitest";
import { part } from "./parts.ts";
import { serverFolder, startServer, untilReady, withFreePort } from "./server.ts";

/** A PgBouncer in front of a PostgreSQL server. */
export interface Pooler extends AsyncDisposable {
  /** the database's URL, through the pooler */
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
 */
export async function startPgBouncer(
  url: string,
  options: { readonly poolSize?: number } = {},
): Promise<Pooler> {
  const upstream = new URL(url);
  const pooler = await withFreePort(async (port) => {
    const folder = serverFolder("pgbouncer", true);
    const server = startServer({
      command: part("pgbouncer"),
      args: [writeSettings(folder, upstream, port, options.poolSize ?? 2)],
      folder,
      unprivileged: true,
    });
    await untilReady("PgBouncer", server, /process up/);
    const through = new URL(url);
    through.port = String(port);
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

function writeSettings(folder: string, upstream: URL, port: number, poolSize: number): string {
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
      "",
    ].join("\n"),
  );
  return settings;
}
