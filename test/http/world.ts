import { afterAll, expect, onTestFinished } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { createApp, type HttpApp } from "../../src/http/app.ts";
import { createHookVerifier } from "../../src/http/auth/hook-verifier.ts";
import { parseHookSecret } from "../../src/http/auth/hook-secret.ts";
import { parsePolicy } from "../../src/http/auth/policy.ts";
import { createSnsVerifier, type FetchCertificate } from "../../src/http/auth/sns.ts";
import { pinnedKeys } from "../../src/http/auth/key-set.ts";
import { createTokenVerifier } from "../../src/http/auth/token.ts";
import type { HttpDeps } from "../../src/http/context.ts";
import { httpLimits, type HttpLimits } from "../../src/http/limits.ts";
import type { LogRecord } from "../../src/report/log.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Target } from "../../src/runner.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { makeKeys, publishTo, tempFolder, type Files, type TestKey } from "../support/release.ts";
import { createIssuer, testAudience, type TestIssuer } from "../support/token.ts";
import { undescribed } from "./described.ts";

/** Waits that a test does not want to sit through. */
const quickLimits: HttpLimits = {
  ...httpLimits,
  pollMs: 100,
  localPollMs: 10,
  heartbeatMs: 150,
  defaultWaitMs: 50_000,
};

/** A server, its database, its bucket and its callers: all real, but for the socket. */
export interface World {
  readonly app: HttpApp;
  readonly deps: HttpDeps;
  readonly database: TestDatabase;
  readonly target: Target;
  readonly issuer: TestIssuer;
  /** folder that stands for the bucket, and the key that it is published with, PEM */
  readonly bucket: {
    readonly path: string;
    readonly publicKey: string;
    publish(files: Files): Promise<string>;
  };
  readonly log: readonly LogRecord[];
  /** A token of the caller who may do everything on `orders`; `claims` make it another caller's. */
  token(claims?: Readonly<Record<string, unknown>>): Promise<string>;
  /** One request; the answer is held against the OpenAPI document. */
  send(method: string, path: string, options?: SendOptions): Promise<Answer>;
  /** The same server once more, in a process of its own as far as it knows. */
  replica(): Promise<World>;
  stop(): void;
}

/** What a request carries besides its path. */
export interface SendOptions {
  /** default: a fresh one; null sends none */
  readonly token?: string | null;
  readonly body?: unknown;
  /** instead of `body`: exactly this text */
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** Lambda's event, where the server runs behind one */
  readonly event?: unknown;
}

/** Callers of a world besides those of its issuer. */
export interface OtherCallers {
  /** added to the policy */
  readonly issuers?: Readonly<Record<string, unknown>>;
  readonly hooks?: Readonly<Record<string, unknown>>;
  readonly rules?: readonly unknown[];
  /** key sets of the issuers by name, where they are others than the world's own */
  readonly keys?: Readonly<Record<string, string>>;
  /** what is in the secret files that the hooks name */
  readonly secrets?: Readonly<Record<string, string>>;
  /** where the certificates of SNS are; by default nowhere */
  readonly fetch?: FetchCertificate;
}

/** An answer, read. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- answers are picked apart by the tests; their shape is checked by the description
  readonly body: any;
}

/** Two small migrations. */
export const users = {
  "1_users.up.sql": "create table users (id int primary key);",
  "1_users.down.sql": "drop table users;",
} as const;
export const orders = {
  "2_orders.up.sql": "create table orders (id int primary key);",
  "2_orders.down.sql": "drop table orders;",
} as const;

/** A migration that waits until the test lets it go on. */
export interface Barrier {
  readonly migration: Files;
  /** Resolves when the migration is running and waits. */
  reached(): Promise<void>;
  release(): Promise<void>;
}

const waitingAtBarrier = `select from pg_locks where locktype = 'advisory' and objid = 42 and not granted
 and database = (select oid from pg_database where datname = current_database())`;

/** Makes the barrier; version 1, without statements of its own that would stay. */
export async function openBarrier(world: World): Promise<Barrier> {
  const client = await world.database.connect();
  await client.query("select pg_advisory_lock(42)");
  return {
    migration: {
      "1_barrier.up.sql": "select pg_advisory_xact_lock(42); create table behind (id int);",
      "1_barrier.down.sql": "drop table behind;",
    },
    async reached() {
      const waiting = async (): Promise<number | null> => (await client.query(waitingAtBarrier)).rowCount;
      await expect.poll(waiting).toBe(1);
    },
    async release() {
      await client.query("select pg_advisory_unlock(42)");
    },
  };
}

/** Rules of a small company; the claim `role` says who a caller is. */
const rules = [
  ["admin", ["apply", "rollback", "plan", "verify", "status", "cancel", "unlock"], {}],
  ["viewer", ["status"], {}],
  ["deployer", ["apply", "status"], { require: { digest: true } }],
  ["hurried", ["apply", "status"], { limit: { perHour: 2 } }],
] as const;

const atEnd: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const close of atEnd.splice(0).toReversed()) await close();
});

/** At the end of the running test; outside of a test at the end of the file. */
function cleanUp(close: () => Promise<void>): void {
  try {
    onTestFinished(close);
  } catch {
    atEnd.push(close);
  }
}

/** Starts a world for the running test, or for the file when made outside of one. */
export async function createWorld(
  options: {
    readonly environment?: string;
    readonly limits?: Partial<HttpLimits>;
    readonly targetLimits?: Partial<Target["limits"]>;
    readonly target?: Pick<
      Target,
      "onFailure" | "backup" | "dependencies" | "openService" | "isPaused" | "watched" | "observers"
    >;
    readonly callers?: OtherCallers;
  } = {},
): Promise<World> {
  const database = await createDatabase();
  const folder = await tempFolder();
  cleanUp(async () => folder[Symbol.asyncDispose]());
  const { key, trust } = makeKeys();
  const issuer = await createIssuer();
  const environment = options.environment ?? "default";

  const open = async (): Promise<World> => {
    const driver = await openDriver(database.url);
    cleanUp(() => driver.close());
    const target: Target = {
      name: "orders",
      stream: "orders",
      environment,
      releases: signedReleases({
        source: folder.source,
        stream: "orders",
        environment,
        engine: "postgres",
        trust,
      }),
      driver,
      limits: {
        waitMs: 20_000,
        lockTimeoutMs: 2_000,
        statementTimeoutMs: 0,
        deadlineMs: 0,
        ...options.targetLimits,
      },
      ...options.target,
    };
    const { callers = {} } = options;
    const policy = parsePolicy(policyText(issuer, callers), new Set(["orders", "billing"]));
    const now = (): Date => new Date();
    const stopping = new AbortController();
    const log: LogRecord[] = [];
    const deps: HttpDeps = {
      targets: new Map([["orders", target]]),
      policy,
      verifier: createTokenVerifier({
        audience: policy.audience,
        issuers: policy.issuers.map((entry) => ({
          issuer: entry,
          keys: pinnedKeys(options.callers?.keys?.[entry.name] ?? issuer.jwks, "jwks.json"),
        })),
        maxTokenChars: httpLimits.tokenChars,
        now,
      }),
      hooks: createHookVerifier({
        hooks: policy.hooks.map((hook) => ({
          hook,
          keys:
            hook.kind === "sns"
              ? []
              : hook.secretFiles.map((file) =>
                  parseHookSecret(hook.kind, callers.secrets?.[file] ?? "", file),
                ),
        })),
        sns: createSnsVerifier({ fetch: callers.fetch ?? unreachable, now }),
        now,
      }),
      publicUrl: "https://migrate.test/base/",
      limits: { ...quickLimits, ...options.limits },
      version: "0.0.0-test",
      signal: stopping.signal,
      log: (record) => void log.push(record),
      now,
    };
    const app = createApp(deps);
    cleanUp(async () => {
      stopping.abort();
      await app.active.drained();
    });
    const world: World = {
      app,
      deps,
      database,
      target,
      issuer,
      log,
      bucket: {
        path: folder.path,
        publicKey: key.publicPem,
        publish: (files) => publish(folder.source, files, key, environment),
      },
      token: (claims = {}) => issuer.token({ role: "admin", ...claims }),
      send: (method, path, given = {}) => send(world, method, path, given),
      replica: open,
      stop: () => stopping.abort(),
    };
    return world;
  };
  return open();
}

async function publish(
  destination: Parameters<typeof publishTo>[0],
  files: Files,
  key: TestKey,
  environment: string,
): Promise<string> {
  const { digest } = await publishTo(destination, files, { keys: [key], environments: [environment] });
  return digest;
}

const unreachable: FetchCertificate = () => Promise.reject(new Error("nothing is to be fetched here"));

function policyText(issuer: TestIssuer, callers: OtherCallers): string {
  return JSON.stringify({
    schema: "urn:lockkeeper:policy:v1",
    audience: testAudience,
    issuers: { ci: { issuer: issuer.url, jwksFile: "jwks.json", algs: ["ES256"] }, ...callers.issuers },
    hooks: callers.hooks ?? {},
    rules: [
      ...rules.map(([role, actions, more]) => ({
        id: role,
        issuer: "ci",
        match: { role },
        allow: { targets: ["orders"], actions },
        ...more,
      })),
      {
        id: "everywhere",
        issuer: "ci",
        match: { role: "everywhere" },
        allow: { targets: ["*"], actions: ["status"] },
      },
      {
        id: "billing",
        issuer: "ci",
        match: { role: "billing" },
        allow: { targets: ["billing"], actions: ["apply", "status", "cancel"] },
      },
      ...(callers.rules ?? []),
    ],
  });
}

async function send(world: World, method: string, path: string, options: SendOptions): Promise<Answer> {
  const {
    token = await world.token(),
    body,
    text = body === undefined ? undefined : JSON.stringify(body),
    headers,
    signal,
    event,
  } = options;
  const init = {
    method,
    headers: {
      ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      ...(text === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    },
    ...(text === undefined ? {} : { body: text }),
    ...(signal === undefined ? {} : { signal }),
  };
  const response = await world.app.hono.request(path, init, event === undefined ? {} : { event });
  const type = response.headers.get("content-type") ?? "";
  const answer = await response.text();
  const json: unknown =
    type.includes("json") && !type.includes("ndjson") && answer !== "" ? JSON.parse(answer) : undefined;
  if (method !== "HEAD")
    expect(undescribed(method, path.split("?")[0] ?? "", response.status, type, json)).toEqual([]);
  return { status: response.status, headers: response.headers, text: answer, body: json };
}
