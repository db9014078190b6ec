import { mkdirSync } from "node:fs";
import path from "node:path";
import {
  CreateBucketCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import type { SourceOptions } from "../../src/source/open.ts";
import { part, type PartName } from "./parts.ts";
import { serverFolder, type ServerProcess, startServer, untilReady, withFreePort } from "./server.ts";

/** The S3 servers that tests use: three programs by different people. */
export type S3ServerName = Extract<PartName, "versitygw" | "ministack" | "localstack">;

/** A running object store, for the tests of one file. Buckets share nothing: take a new one for each test. */
export interface BucketServer extends AsyncDisposable {
  /** `http://127.0.0.1:1234` */
  readonly endpoint: string;
  /** what `openSource` needs to reach it */
  readonly options: SourceOptions;
  /**
   * Makes a bucket with a name of its own.
   *
   * @returns its URL, `s3://…` or `gs://…`, without a prefix
   */
  readonly createBucket: (options?: { readonly versioning?: boolean }) => Promise<string>;
  /** Puts an object as some other program would; `url` is that of a bucket, with or without a prefix. */
  readonly put: (
    url: string,
    key: string,
    bytes: Uint8Array,
    options?: { readonly contentEncoding?: string },
  ) => Promise<void>;
  /** Ends the server. Repeated calls are fine. */
  readonly stop: () => Promise<void>;
}

/** An S3 server, with the keys that it takes. */
export interface S3Server extends BucketServer {
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

const region = "us-east-1";

let buckets = 0;

/**
 * Starts a real S3 server on a free port of loopback. The file needs `needs(name)`, and `stop` in its `afterAll`.
 *
 * @param services - of LocalStack, what it loads in place of S3 alone; MiniStack has all, at once
 */
export async function startS3(name: S3ServerName, services?: string): Promise<S3Server> {
  const { args, env, health } = s3Commands[name];
  const more: Readonly<Record<string, string>> = services === undefined ? {} : { SERVICES: services };
  const { endpoint, stop } = await start(name, {
    args,
    env: (port, folder) => ({ ...env(port, folder), ...more }),
    health,
  });
  const credentials = s3Credentials[name];
  const client = new S3Client({ endpoint, region, credentials, forcePathStyle: true });
  return {
    endpoint,
    credentials,
    options: { s3: { endpoint, region, credentials } },
    async createBucket(options = {}) {
      const Bucket = bucketName();
      await client.send(new CreateBucketCommand({ Bucket }));
      if (options.versioning === true) {
        const VersioningConfiguration = { Status: "Enabled" } as const;
        await client.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration }));
      }
      return `s3://${Bucket}`;
    },
    async put(url, key, bytes, options = {}) {
      const { bucket, name } = objectName(url, key);
      await client.send(
        new PutObjectCommand({
          Bucket: bucket,
          Key: name,
          Body: bytes,
          ...(options.contentEncoding === undefined ? {} : { ContentEncoding: options.contentEncoding }),
        }),
      );
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/**
 * Starts fake-gcs-server on a free port of loopback. The file needs `needs("fake-gcs-server")`, and `stop` in its `afterAll`.
 *
 * @param pubsub - `host:port` of an emulator that takes its notifications
 */
export async function startGcs(pubsub?: string): Promise<BucketServer> {
  const env = (): Readonly<Record<string, string>> =>
    pubsub === undefined ? {} : { PUBSUB_EMULATOR_HOST: pubsub };
  const { endpoint, stop } = await start("fake-gcs-server", { ...gcsCommand, env });
  const call = async (pathAndQuery: string, contentType: string, body: Uint8Array | string) => {
    const headers = { "content-type": contentType };
    const answer = await fetch(endpoint + pathAndQuery, { method: "POST", headers, body });
    if (!answer.ok) throw new Error(`${pathAndQuery}: ${answer.status} ${await answer.text()}`);
    await answer.arrayBuffer();
  };
  return {
    endpoint,
    options: { gcs: { endpoint } },
    async createBucket(options = {}) {
      const name = bucketName();
      const versioning = { enabled: options.versioning === true };
      await call("/storage/v1/b?project=test", "application/json", JSON.stringify({ name, versioning }));
      return `gs://${name}`;
    },
    async put(url, key, bytes, options = {}) {
      const { bucket, name } = objectName(url, key);
      const query = new URLSearchParams({ uploadType: "media", name });
      if (options.contentEncoding !== undefined) query.set("contentEncoding", options.contentEncoding);
      await call(`/upload/storage/v1/b/${bucket}/o?${query.toString()}`, "application/octet-stream", bytes);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** How a server is started on a port, with a folder for what it keeps, and what it answers once it is ready. */
interface Command {
  readonly args: (port: number, folder: string) => readonly string[];
  readonly env: (port: number, folder: string) => Readonly<Record<string, string>>;
  readonly health: string;
}

const s3Credentials = {
  versitygw: { accessKeyId: "lockkeeper", secretAccessKey: "lockkeeper-secret" },
  ministack: { accessKeyId: "test", secretAccessKey: "test" },
  localstack: { accessKeyId: "test", secretAccessKey: "test" },
} as const satisfies Record<S3ServerName, S3Server["credentials"]>;

const s3Commands: Record<S3ServerName, Command> = {
  versitygw: {
    args: (port, folder) => {
      // Old versions must lie outside of the data, and it takes absolute paths only.
      const [data, versions, iam] = ["data", "versions", "iam"].map((name) => path.join(folder, name));
      for (const made of [data, versions, iam]) if (made !== undefined) mkdirSync(made);
      const gateway = ["--port", `127.0.0.1:${port}`, "--quiet", "--keep-alive", "--health", "/healthz"];
      return [...gateway, "--iam-dir", `${iam}`, "posix", "--versioning-dir", `${versions}`, `${data}`];
    },
    env: () => ({
      ROOT_ACCESS_KEY: s3Credentials.versitygw.accessKeyId,
      ROOT_SECRET_KEY: s3Credentials.versitygw.secretAccessKey,
    }),
    health: "/healthz",
  },
  ministack: {
    args: () => [],
    // Without BIND_HOST, and with MQTT, it would listen on every address.
    env: (port) => ({
      GATEWAY_PORT: String(port),
      BIND_HOST: "127.0.0.1",
      MINISTACK_HOST: "127.0.0.1",
      IOT_MTLS_ENABLED: "0",
      AUTH: "false",
    }),
    health: "/health",
  },
  localstack: {
    args: () => ["-m", "localstack.runtime.main"],
    // hypercorn: its other server listens on every address. Eager: the first call would else take seconds.
    env: (port, folder) => ({
      GATEWAY_SERVER: "hypercorn",
      GATEWAY_LISTEN: `127.0.0.1:${port}`,
      LOCALSTACK_HOST: `127.0.0.1:${port}`,
      SERVICES: "s3",
      STRICT_SERVICE_LOADING: "1",
      EAGER_SERVICE_LOADING: "1",
      S3_SKIP_SIGNATURE_VALIDATION: "0",
      DISABLE_EVENTS: "1",
      SKIP_SSL_CERT_DOWNLOAD: "1",
      DNS_ADDRESS: "0",
      OVERRIDE_IN_DOCKER: "0",
      PERSISTENCE: "0",
      LS_LOG: "warn",
      LOCALSTACK_VOLUME_DIR: folder,
      FILESYSTEM_ROOT: folder,
      XDG_CACHE_HOME: path.join(folder, "cache"),
    }),
    health: "/_localstack/health",
  },
};

const gcsCommand: Command = {
  // Its other backend, on disk, has no generations.
  args: (port) => {
    const address = `127.0.0.1:${port}`;
    const listen = ["-scheme", "http", "-host", "127.0.0.1", "-port", String(port)];
    const say = ["-public-host", address, "-external-url", `http://${address}`, "-log-level", "warn"];
    return [...listen, ...say, "-backend", "memory"];
  },
  env: () => ({}),
  health: "/_internal/healthcheck",
};

async function start(
  name: PartName,
  { args, env, health }: Command,
): Promise<Pick<BucketServer, "endpoint" | "stop">> {
  const found = part(name);
  // One that runs already, and is somebody else's to stop.
  if (/^https?:/.test(found)) return { endpoint: found.replace(/\/+$/, ""), stop: () => Promise.resolve() };
  return withFreePort(async (port) => {
    const folder = serverFolder(name);
    const command = { command: found, args: args(port, folder), env: env(port, folder), folder };
    const server: ServerProcess = startServer({ ...command, stopSignal: "KILL" });
    const endpoint = `http://127.0.0.1:${port}`;
    await untilReady(name, server, async () => (await fetch(endpoint + health)).ok);
    return { endpoint, stop: () => server.stop() };
  });
}

function bucketName(): string {
  buckets += 1;
  return `lockkeeper-${process.pid}-${Date.now().toString(36)}-${buckets}`;
}

function objectName(url: string, key: string): { readonly bucket: string; readonly name: string } {
  const [bucket = "", ...segments] = url.replace(/^[a-z0-9]+:\/\//, "").split("/");
  return { bucket, name: [...segments.filter((segment) => segment !== ""), key].join("/") };
}
