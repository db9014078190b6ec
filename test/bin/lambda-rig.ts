import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { readdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { text } from "node:stream/consumers";
import path from "node:path";
import { onTestFinished, vi } from "vitest";
import { createHandler } from "../../src/bin/lambda/handler.ts";
import { openSource } from "../../src/source/open.ts";
import type { S3Server } from "../support/bucket.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { part } from "../support/parts.ts";
import { makeKeys, publishTo, type Files } from "../support/release.ts";
import { freePort, serverFolder, startServer, untilReady, withFreePort } from "../support/server.ts";

/** Cleans up when the test ends; of tests that run side by side, each has its own. */
type AtEnd = (close: () => Promise<void>) => void;

/** The function's name in every test. */
export const functionArn = "arn:aws:lambda:us-east-1:012345678912:function:lockkeeper:live";

/** A database, a bucket with its releases, and the folder that configures a function for them. */
export interface Deployed {
  readonly database: TestDatabase;
  readonly folder: string;
  readonly bucket: string;
  /** what the function's environment says */
  readonly variables: Readonly<Record<string, string>>;
  publish(files: Files): Promise<string>;
}

/** Callers whom the Function URL has authenticated, by any role of one account. */
const policy = {
  schema: "urn:lockkeeper:policy:v1",
  audience: "https://migrate.test",
  issuers: { aws: { kind: "iam", frontend: "lambda-iam" } },
  rules: [
    {
      id: "deploy",
      issuer: "aws",
      match: { account: "123456789012", role: "deploy" },
      allow: { targets: ["orders"], actions: ["apply", "status"] },
    },
  ],
};

/** A target `orders`, its releases in a new bucket of `s3`. `more` is added to the configuration's targets, `config` to the rest of it. */
export async function deploy(
  s3: S3Server,
  options: { readonly more?: string; readonly config?: string; readonly atEnd?: AtEnd } = {},
): Promise<Deployed> {
  const { atEnd = onTestFinished } = options;
  const database = await createDatabase({ endsWith: "file" });
  atEnd(() => database.drop());
  const { key } = makeKeys();
  const bucket = await s3.createBucket();
  const folder = await mkdtemp(path.join(tmpdir(), "lockkeeper-function-"));
  atEnd(() => rm(folder, { recursive: true, force: true }));
  const files = {
    "policy.json": JSON.stringify(policy),
    "alice.pub": key.publicPem,
    "db-url": database.url,
    "lockkeeper.yaml": `version: 1
policy: policy.json
trust: { team: { keys: [alice.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: "${bucket}/orders", trust: team, database: { urlFile: db-url } }
${options.more ?? ""}
${options.config ?? ""}`,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(path.join(folder, name), text);
  const destination = await openSource(`${bucket}/orders`, s3.options);
  return {
    database,
    folder,
    bucket: bucket.slice("s3://".length),
    variables: { LOCKKEEPER_CONFIG: path.join(folder, "lockkeeper.yaml"), ...environmentOf(s3) },
    async publish(files) {
      return (await publishTo(destination, files, { keys: [key] })).digest;
    },
  };
}

/** What the SDK in a function is told of its servers. */
function environmentOf({ endpoint, credentials }: S3Server): Readonly<Record<string, string>> {
  return {
    AWS_ENDPOINT_URL_S3: endpoint,
    AWS_REGION: "us-east-1",
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    AWS_MAX_ATTEMPTS: "2",
  };
}

/** What S3 sends when the release's head was written. */
export function s3Event({ bucket }: Pick<Deployed, "bucket">, key = "orders/head.json"): object {
  const s3 = { bucket: { name: bucket }, object: { key, eTag: "e", size: 1, sequencer: "00" } };
  return { Records: [{ eventVersion: "2.1", eventSource: "aws:s3", eventName: "ObjectCreated:Put", s3 }] };
}

/** What a Function URL sends for a request that a role of the account has signed. */
export function functionUrlEvent(
  method: string,
  rawPath: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): object {
  return {
    version: "2.0",
    rawPath,
    rawQueryString: "",
    headers: { "content-type": "application/json", ...headers },
    requestContext: {
      requestId: crypto.randomUUID(),
      domainName: "abc.lambda-url.us-east-1.on.aws",
      stage: "$default",
      http: { method, path: rawPath, sourceIp: "192.0.2.7" },
      authorizer: {
        iam: {
          accountId: "123456789012",
          userArn: "arn:aws:sts::123456789012:assumed-role/deploy/ci",
          callerId: "AROAEXAMPLEEXAMPLE000:ci",
          principalOrgId: null,
        },
      },
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body), isBase64Encoded: false }),
  };
}

/** A function in this process. */
export interface LocalFunction {
  invoke(event: unknown, ms?: number): Promise<unknown>;
  readonly log: readonly Readonly<Record<string, unknown>>[];
  /** payloads that it was invoked with by itself, oldest first */
  readonly handedOver: readonly unknown[];
}

/** The handler in this process, whose invocations of itself go to it. */
export async function localFunction(
  variables: Readonly<Record<string, string>>,
  options: {
    /** HTTP status of Lambda's answer; default 202 */
    readonly answersHandOver?: number;
    /** how many of its invocations of itself Lambda loses */
    readonly loses?: number;
  } = {},
): Promise<LocalFunction> {
  const log: Readonly<Record<string, unknown>>[] = [];
  const handedOver: unknown[] = [];
  const relay = await startRelay(
    async (payload) => {
      handedOver.push(payload);
      if (handedOver.length <= (options.loses ?? 0)) return;
      await invoke(payload).catch(() => undefined);
    },
    onTestFinished,
    options.answersHandOver,
  );
  // the SDK reads these by itself
  const all = { ...variables, AWS_ENDPOINT_URL_LAMBDA: relay };
  for (const [name, value] of Object.entries(all)) if (name.startsWith("AWS_")) vi.stubEnv(name, value);
  const handler = createHandler(all, {
    write: (line) => log.push(JSON.parse(line) as Readonly<Record<string, unknown>>),
  });
  const invoke = (event: unknown, ms = 60_000): Promise<unknown> => {
    const endsAt = performance.now() + ms;
    return handler(event, {
      awsRequestId: crypto.randomUUID(),
      invokedFunctionArn: functionArn,
      getRemainingTimeInMillis: () => endsAt - performance.now(),
    });
  };
  return { invoke, log, handedOver };
}

/**
 * Lambda's own API, of which a function asks one thing: that it is invoked without being waited for. Payloads are
 * delivered one after the other, as to a function of which one instance may run.
 */
async function startRelay(
  deliver: (payload: unknown) => Promise<void>,
  atEnd: AtEnd,
  status = 202,
): Promise<string> {
  let last = Promise.resolve();
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      const isRight =
        request.method === "POST" &&
        /^\/2015-03-31\/functions\/[^/]+\/invocations$/.test(request.url ?? "") &&
        request.headers["x-amz-invocation-type"] === "Event" &&
        request.headers.authorization?.startsWith("AWS4-HMAC-SHA256 ") === true;
      response.writeHead(isRight ? status : 400, { "content-type": "application/json" });
      response.end(isRight && status === 202 ? "" : '{"Type":"User","message":"no"}');
      if (isRight && status === 202) last = last.then(() => deliver(JSON.parse(body)));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    server.close();
    await last;
  };
  atEnd(close);
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The bundle under Amazon's own emulator and runtime. */
export interface EmulatedFunction {
  invoke(event: unknown): Promise<unknown>;
  /** everything it has printed */
  output(): string;
  /** payloads that it was invoked with by itself */
  readonly handedOver: readonly unknown[];
}

/** Starts the bundle in `folder` under Lambda's runtime interface emulator. The file needs `sam` and `lambda-ric`. */
export async function emulatedFunction(
  folder: string,
  variables: Readonly<Record<string, string>>,
  timeoutSeconds: number,
  atEnd: AtEnd,
): Promise<EmulatedFunction> {
  const handedOver: unknown[] = [];
  let url = "";
  let before = Promise.resolve<unknown>(undefined);
  // The emulator has one instance, and ends when it is asked for two.
  const invoke = (event: unknown): Promise<unknown> => {
    const answer = before.then(() => send(event));
    before = answer.catch(() => undefined);
    return answer;
  };
  const send = async (event: unknown): Promise<unknown> => {
    const headers = { connection: "close" };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(event) });
    const answer = await response.text();
    return answer === "" ? null : (JSON.parse(answer) as unknown);
  };
  const relay = await startRelay(async (payload) => {
    handedOver.push(payload);
    await invoke(payload).catch(() => undefined);
  }, atEnd);
  let output = "";
  await withFreePort(async (port) => {
    const own = serverFolder("rie");
    const address = `127.0.0.1:${port}`;
    const ric = path.join(part("lambda-ric"), "index.mjs");
    const server = startServer({
      command: emulator(),
      args: [
        "--runtime-interface-emulator-address",
        address,
        "--runtime-api-address",
        `127.0.0.1:${await freePort()}`,
        "--log-level",
        "error",
        process.execPath,
        ric,
        "index.handler",
      ],
      folder: own,
      env: {
        ...variables,
        AWS_ENDPOINT_URL_LAMBDA: relay,
        LAMBDA_TASK_ROOT: folder,
        AWS_LAMBDA_FUNCTION_TIMEOUT: String(timeoutSeconds),
        AWS_LAMBDA_FUNCTION_MEMORY_SIZE: "512",
      },
    });
    server.onOutput((text) => (output += text));
    url = `http://${address}/2015-03-31/functions/function/invocations`;
    await untilReady("the emulator", server, async () => (await fetch(`http://${address}/`)).status > 0);
    atEnd(() => server.stop());
  });
  return { invoke, output: () => output, handedOver };
}

/** It is in the wheel of AWS's tools, beside their own code. */
function emulator(): string {
  const lib = path.join(part("sam"), "../../lib");
  const [python = ""] = readdirSync(lib);
  const name = `aws-lambda-rie-${process.arch === "arm64" ? "arm64" : "x86_64"}`;
  return path.join(lib, python, "site-packages/samcli/local/rapid", name);
}
