import { readFileSync } from "node:fs";
import type { ConnectionOptions as TlsOptions } from "node:tls";

import { RunnerError } from "../../error.ts";
import type { LogInToken } from "../access.ts";

/** A database URL, taken apart: everything that `pg` needs to connect, and a form that may be shown. */
export interface Address {
  /** without password and parameters */
  readonly shown: string;
  readonly host: string;
  readonly port: number;
  readonly user: string | undefined;
  readonly password: string | (() => Promise<string>) | undefined;
  readonly database: string;
  readonly tls: TlsMode;
  readonly tlsOptions: TlsOptions;
  /** the server's certificate is to be one that Amazon's authorities for RDS vouch for: they are not in `tlsOptions` yet */
  readonly needsRdsRoots: boolean;
  readonly connectTimeoutMs: number;
  /** `-c name=value …` sent at start-up; a transaction pooler refuses it */
  readonly startupOptions: string | undefined;
  readonly applicationName: string;
}

/** `allow`: plain first, TLS if the server insists; `prefer`: TLS first, plain if the server has none; as libpq means them. */
export type TlsMode = "disable" | "allow" | "prefer" | "require";

const defaultConnectTimeoutMs = 10_000;

/** libpq's parameters that this driver understands; any other is an error, because ignoring one changes what the user asked for. */
const known = new Set([
  "sslmode",
  "sslrootcert",
  "sslcert",
  "sslkey",
  "connect_timeout",
  "application_name",
  "options",
  "search_path",
  "host",
  "port",
  "user",
  "password",
  "dbname",
]);

/**
 * Reads `postgres://user:password@host:port/database?sslmode=…`, for a Unix socket `postgres://user@/database?host=/folder`.
 *
 * `sslmode` is libpq's: `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`. Without one it is `prefer`,
 * on loopback `allow`, on a Unix socket `disable`; with `sslrootcert=system` or `rds`, or a token, `verify-full`.
 * `require` with `sslrootcert` verifies the chain, as libpq does. `sslrootcert=rds` are Amazon's authorities for RDS; they
 * are also meant where a host's name is of RDS and nothing else is said.
 *
 * @param token - stands for the password: it is sent to nobody but the server that it is for
 * @throws RunnerError `USAGE` when the URL cannot be read; the message never repeats it
 */
export function parseAddress(text: string, token?: LogInToken): Address {
  const url = parseUrl(text);
  const parameter = (name: string): string | undefined => url.searchParams.get(name) ?? undefined;
  for (const name of url.searchParams.keys()) if (!known.has(name)) throw unknownParameter(name);

  const named = url.hostname === noHost ? "" : url.hostname;
  const host = parameter("host") ?? decodeURIComponent(named.replace(/^\[|\]$/g, ""));
  const effectiveHost = host === "" ? "/var/run/postgresql" : host;
  const user = parameter("user") ?? (url.username === "" ? undefined : decodeURIComponent(url.username));
  const database = parameter("dbname") ?? decodeURIComponent(url.pathname.slice(1));
  const port = Number(parameter("port") ?? (url.port === "" ? "5432" : url.port));
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw unusable("its port is not a number from 1 to 65535");
  if (database === "" && user === undefined) throw unusable("it names no database");

  const password =
    parameter("password") ?? (url.password === "" ? undefined : decodeURIComponent(url.password));
  const encryption =
    token === undefined ? readTls(parameter, effectiveHost) : tlsFor(token, parameter, effectiveHost);
  const connectTimeout = parameter("connect_timeout");
  if (connectTimeout !== undefined && !/^\d{1,6}$/.test(connectTimeout))
    throw unusable("connect_timeout is not a number of seconds");
  return {
    shown: `postgres://${user === undefined ? "" : `${user}@`}${isSocket(effectiveHost) ? effectiveHost : `${host}:${port}`}/${database || user}`,
    host: effectiveHost,
    port,
    user,
    password: token === undefined ? password : makerOf(token, { host: effectiveHost, port, user, password }),
    database: database || (user ?? ""),
    ...encryption,
    connectTimeoutMs:
      connectTimeout === undefined || connectTimeout === "0"
        ? defaultConnectTimeoutMs
        : Number(connectTimeout) * 1000,
    startupOptions: startupOptions(parameter("options"), parameter("search_path")),
    applicationName: parameter("application_name") ?? "lockkeeper",
  };
}

/** Stands for a host that is not there. */
const noHost = "_";

/** `user:password@/database?host=/folder`, as libpq takes it and Google writes it: to Node, what has a user has a host. */
const withoutHost = /^(postgres(?:ql)?:\/\/[^/?#@]*@)(?=[/?]|$)/i;

function parseUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text.replace(withoutHost, `$1${noHost}`));
  } catch {
    throw unusable("it is not a URL");
  }
  if (!/^postgres(ql)?:$/.test(url.protocol)) {
    throw new RunnerError("USAGE", `no driver for a database URL that starts with "${url.protocol}//"`, {
      hint: "write postgres://user:password@host:5432/database",
    });
  }
  try {
    decodeURIComponent(url.username + url.password + url.pathname + url.hostname);
  } catch {
    throw unusable("it holds a % that does not start an escape");
  }
  return url;
}

/** How a connection is encrypted, and whom the server has to prove to be. */
type Encryption = Pick<Address, "tls" | "tlsOptions" | "needsRdsRoots">;

function readTls(parameter: (name: string) => string | undefined, host: string): Encryption {
  const rootPath = parameter("sslrootcert") ?? (isOfRds(host) ? "rds" : undefined);
  const isNamed = parameter("sslrootcert") !== undefined && (rootPath === "system" || rootPath === "rds");
  const mode =
    parameter("sslmode") ??
    (isNamed ? "verify-full" : isSocket(host) ? "disable" : isLoopback(host) ? "allow" : "prefer");
  const certificate = readPem(parameter("sslcert"), "sslcert");
  const key = readPem(parameter("sslkey"), "sslkey");
  const isFile = rootPath !== "system" && rootPath !== "rds";
  const root = isFile ? readPem(rootPath, "sslrootcert") : undefined;
  const base: TlsOptions = {
    ...(certificate === undefined ? {} : { cert: certificate }),
    ...(key === undefined ? {} : { key }),
    ...(root === undefined ? {} : { ca: root }),
  };
  const unverified = { ...base, rejectUnauthorized: false };
  const chainOnly = { ...base, rejectUnauthorized: true, checkServerIdentity: () => undefined };
  const needsRdsRoots = rootPath === "rds";
  switch (mode) {
    case "disable":
    case "allow":
    case "prefer":
      if (isNamed) throw unusable(`sslmode=${mode} takes any server, and sslrootcert=${rootPath} does not`);
      return { tls: mode, tlsOptions: unverified, needsRdsRoots: false };
    case "require":
      return parameter("sslrootcert") === undefined
        ? { tls: "require", tlsOptions: unverified, needsRdsRoots: false }
        : { tls: "require", tlsOptions: chainOnly, needsRdsRoots };
    case "verify-ca":
      return { tls: "require", tlsOptions: chainOnly, needsRdsRoots };
    case "verify-full":
      return { tls: "require", tlsOptions: { ...base, rejectUnauthorized: true }, needsRdsRoots };
    default:
      throw unusable("sslmode is none of disable, allow, prefer, require, verify-ca, verify-full");
  }
}

/** Whoever reads a token on its way, or is taken for the server, can log in with it: so it goes over TLS to a proven server. */
function tlsFor(
  token: LogInToken,
  parameter: (name: string) => string | undefined,
  host: string,
): Encryption {
  const mode = parameter("sslmode");
  const isLocal = isSocket(host) || (isLoopback(host) && mode === "disable");
  if (isLocal && token.mayStayLocal) return readTls(parameter, host);
  if (isSocket(host) || (mode !== undefined && mode !== "verify-full" && mode !== "verify-ca"))
    throw unusable(
      "a token is sent over TLS to a server that proves who it is: sslmode=verify-full or verify-ca",
    );
  const { endpoint } = token;
  const named = endpoint?.host ?? host;
  const root = parameter("sslrootcert") ?? (isOfRds(named) ? "rds" : undefined);
  const asked = (name: string): string | undefined =>
    name === "sslmode" ? (mode ?? "verify-full") : name === "sslrootcert" ? root : parameter(name);
  const encryption = readTls(asked, host);
  if (endpoint === undefined || mode === "verify-ca") return encryption;
  const isEndpoint: TlsOptions["checkServerIdentity"] = (_, certificate) =>
    process.getBuiltinModule("node:tls").checkServerIdentity(endpoint.host, certificate);
  return { ...encryption, tlsOptions: { ...encryption.tlsOptions, checkServerIdentity: isEndpoint } };
}

function makerOf(
  token: LogInToken,
  to: {
    readonly host: string;
    readonly port: number;
    readonly user: string | undefined;
    readonly password: string | undefined;
  },
): () => Promise<string> {
  const { user, password } = to;
  if (password !== undefined) throw unusable("it has a password, and a token is to stand for one");
  if (user === undefined) throw unusable("it names no user whom a token could be for");
  const { host, port } = token.endpoint ?? to;
  return () => token.make({ host, port, user });
}

function readPem(path: string | undefined, name: string): string | undefined {
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new RunnerError("CONFIG", `cannot read the file that ${name} names: ${path}`, { cause });
  }
}

function startupOptions(options: string | undefined, searchPath: string | undefined): string | undefined {
  if (searchPath === undefined) return options;
  const escaped = searchPath.replace(/[\\ ]/g, (character) => `\\${character}`);
  return [options, `-c search_path=${escaped}`].filter((part) => part !== undefined).join(" ");
}

function isSocket(host: string): boolean {
  return host.startsWith("/");
}

/** Instances, clusters and proxies of Amazon RDS and Aurora. */
function isOfRds(host: string): boolean {
  return /\.rds\.(?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?$/i.test(host);
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function unknownParameter(name: string): RunnerError {
  const hint = name.startsWith("x-")
    ? "it belongs to golang-migrate; remove it, and use our own flags for time-outs"
    : `known parameters: ${[...known].join(", ")}`;
  // after a password with a `?` that was not encoded, a piece of it stands where a name should
  const shown = /^[a-z][a-z_-]{2,40}$/i.test(name) ? `"${name}"` : "whose name is not shown";
  return new RunnerError("USAGE", `unknown parameter ${shown} in the database URL`, { hint });
}

function unusable(why: string): RunnerError {
  return new RunnerError("USAGE", `cannot use the database URL: ${why}`, {
    hint: "write postgres://user:password@host:5432/database, with special characters of the password percent-encoded",
  });
}
