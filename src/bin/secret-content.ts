import * as v from "valibot";
import { RunnerError } from "../error.ts";

/** Who logs in. */
export interface Credential {
  /** undefined: whom the URL names */
  readonly user: string | undefined;
  readonly password: string;
}

const name = v.pipe(v.string(), v.minLength(1), v.maxLength(255));

/** What RDS, and those who rotate secrets for it, write: more may be beside it. */
const login = v.object({ username: v.optional(name), password: v.pipe(v.string(), v.minLength(1)) });

const database = v.object({
  ...login.entries,
  username: name,
  host: v.pipe(v.string(), v.regex(/^[A-Za-z0-9.-]{1,253}$/)),
  port: v.optional(v.pipe(v.union([v.string(), v.number()]), v.toNumber(), v.integer(), v.minValue(1))),
  dbname: name,
  engine: v.optional(v.string()),
});

/** Endpoints whose certificate can be proven without anything else being said. */
const ofRds = /\.rds\.(?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?$/i;

/**
 * A database's URL from a secret: its text, or composed of RDS's `{"username", "password", "host", "port", "dbname"}` for
 * PostgreSQL; then with `sslmode=verify-full` where the host is of RDS.
 *
 * @param secret - its name, for errors: never its content
 * @throws RunnerError `CONFIG`
 */
export function urlOfSecret(content: string, secret: string): string {
  const json = jsonOf(content);
  if (json === undefined) return content.trim();
  const read = v.safeParse(database, json);
  if (!read.success) {
    throw new RunnerError("CONFIG", `the secret ${secret} is JSON without ${missing(read.issues)}`, {
      hint: "where it holds only username and password, as those that RDS manages do, name it as passwordSecret beside a url",
    });
  }
  const { username, password, host, port = 5432, dbname, engine = "postgres" } = read.output;
  if (!/^(aurora-)?postgres/.test(engine)) {
    throw new RunnerError("CONFIG", `the secret ${secret} is JSON for another engine than PostgreSQL`, {
      hint: "store the database's URL as its text",
    });
  }
  const mode = ofRds.test(host) ? "?sslmode=verify-full" : "";
  const [user, word, path] = [username, password, dbname].map(encodeURIComponent);
  return `postgres://${user}:${word}@${host}:${port}/${path}${mode}`;
}

/**
 * User and password from a secret: the password as its text, or both in JSON.
 *
 * @param secret - its name, for errors: never its content
 * @throws RunnerError `CONFIG`
 */
export function credentialOf(content: string, secret: string): Credential {
  const json = jsonOf(content);
  if (json === undefined) return { user: undefined, password: content.replace(/\r?\n$/, "") };
  const read = v.safeParse(login, json);
  if (!read.success)
    throw new RunnerError("CONFIG", `the secret ${secret} is JSON without ${missing(read.issues)}`, {
      hint: 'write {"username": "…", "password": "…"}, or the password alone',
    });
  return { user: read.output.username, password: read.output.password };
}

/** What is JSON, and a mapping; a password may begin with a brace. */
function jsonOf(content: string): unknown {
  if (!content.trimStart().startsWith("{")) return undefined;
  try {
    return JSON.parse(content);
  } catch {
    return undefined;
  }
}

/** Names of keys, which are ours: never what stands there. */
function missing(issues: readonly v.BaseIssue<unknown>[]): string {
  return `a usable ${[...new Set(issues.map((issue) => v.getDotPath(issue) ?? "content"))].join(", ")}`;
}
