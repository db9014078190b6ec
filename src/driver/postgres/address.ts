import { readFileSync } from "node:fs";
import type { ConnectionOptions as TlsOptions } from "node:tls";

import { RunnerError } from "../../error.ts";

/** A database URL, taken apart: everything that `pg` needs to connect, and a form that may be shown. */
export interface Address {
  /** without password and parameters */
  readonly shown: string;
  readonly host: string;
  readonly port: number;
  readonly user: string | undefined;
  readonly password: string | undefined;
  readonly database: string;
  readonly tls: TlsMode;
  readonly tlsOptions: TlsOptions;
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
 * Reads `postgres://user:password@host:port/database?sslmode=…`.
 *
 * `sslmode` is libpq's: `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full`. Without one it is `prefer`,
 * on loopback `allow`, on a Unix socket `disable`. `require` with `sslrootcert` verifies the chain, as libpq does.
 *
 * @throws RunnerError `USAGE` when the URL cannot be read; the message never repeats it
 */
export function parseAddress(text: string): Address {
  const url = parseUrl(text);
  const parameter = (name: string): string | undefined => url.searchParams.get(name) ?? undefined;
  for (const name of url.searchParams.keys()) if (!known.has(name)) throw unknownParameter(name);

  const host = parameter("host") ?? decodeURIComponent(url.hostname.replace(/^\[|\]$/g, ""));
  const isSocket = host === "" || host.startsWith("/");
  const effectiveHost = host === "" ? "/var/run/postgresql" : host;
  const user = parameter("user") ?? (url.username === "" ? undefined : decodeURIComponent(url.username));
  const database = parameter("dbname") ?? decodeURIComponent(url.pathname.slice(1));
  const port = Number(parameter("port") ?? (url.port === "" ? "5432" : url.port));
  if (!Number.isInteger(port) || port < 1 || port > 65_535)
    throw unusable("its port is not a number from 1 to 65535");
  if (database === "" && user === undefined) throw unusable("it names no database");

  const { tls, tlsOptions } = readTls(parameter, effectiveHost, isSocket);
  const connectTimeout = parameter("connect_timeout");
  if (connectTimeout !== undefined && !/^\d{1,6}$/.test(connectTimeout))
    throw unusable("connect_timeout is not a number of seconds");
  return {
    shown: `postgres://${user === undefined ? "" : `${user}@`}${isSocket ? effectiveHost : `${host}:${port}`}/${database || user}`,
    host: effectiveHost,
    port,
    user,
    password: parameter("password") ?? (url.password === "" ? undefined : decodeURIComponent(url.password)),
    database: database || (user ?? ""),
    tls,
    tlsOptions,
    connectTimeoutMs:
      connectTimeout === undefined || connectTimeout === "0"
        ? defaultConnectTimeoutMs
        : Number(connectTimeout) * 1000,
    startupOptions: startupOptions(parameter("options"), parameter("search_path")),
    applicationName: parameter("application_name") ?? "lockkeeper",
  };
}

function parseUrl(text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
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

function readTls(
  parameter: (name: string) => string | undefined,
  host: string,
  isSocket: boolean,
): { tls: TlsMode; tlsOptions: TlsOptions } {
  const mode = parameter("sslmode") ?? (isSocket ? "disable" : isLoopback(host) ? "allow" : "prefer");
  const rootPath = parameter("sslrootcert");
  const certificate = readPem(parameter("sslcert"), "sslcert");
  const key = readPem(parameter("sslkey"), "sslkey");
  const root = rootPath === "system" ? undefined : readPem(rootPath, "sslrootcert");
  const base: TlsOptions = {
    ...(certificate === undefined ? {} : { cert: certificate }),
    ...(key === undefined ? {} : { key }),
    ...(root === undefined ? {} : { ca: root }),
  };
  const unverified = { ...base, rejectUnauthorized: false };
  const chainOnly = { ...base, rejectUnauthorized: true, checkServerIdentity: () => undefined };
  switch (mode) {
    case "disable":
    case "allow":
    case "prefer":
      return { tls: mode, tlsOptions: unverified };
    case "require":
      return { tls: "require", tlsOptions: rootPath === undefined ? unverified : chainOnly };
    case "verify-ca":
      return { tls: "require", tlsOptions: chainOnly };
    case "verify-full":
      return { tls: "require", tlsOptions: { ...base, rejectUnauthorized: true } };
    default:
      throw unusable("sslmode is none of disable, allow, prefer, require, verify-ca, verify-full");
  }
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
