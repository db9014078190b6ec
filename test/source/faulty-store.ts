import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished, vi } from "vitest";
import { openSource } from "../../src/source/open.ts";
import type { Patience } from "../../src/source/retry.ts";
import type { WritableSource } from "../../src/source/source.ts";

/** What the store does with one request. */
export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** A store that misbehaves as told. */
export interface FaultyStore {
  readonly endpoint: string;
  readonly source: WritableSource;
  /** `METHOD /path?query` of each request, in order */
  readonly requests: readonly { readonly line: string; readonly headers: IncomingMessage["headers"] }[];
  /** settles when the client has closed the connection of the latest answer */
  hungUp(): Promise<void>;
}

/** Three tries with next to no wait between them. */
export const hasty: Patience = {
  attempts: 3,
  backoffMs: 1,
  maxBackoffMs: 4,
  connectMs: 15_000,
  idleMs: 15_000,
};

/** Hasty, and given up soon when silent: for stores that are meant to be, since a busy machine can look like one. */
export const impatient: Patience = { ...hasty, idleMs: 400 };

/** Starts one for the running test. The first request gets the first answer, and so on; the last answer stays. */
export async function startFaultyStore(
  kind: "s3" | "gcs",
  answers: readonly Answer[],
  patience: Patience = hasty,
): Promise<FaultyStore> {
  const requests: { line: string; headers: IncomingMessage["headers"] }[] = [];
  let latest = Promise.withResolvers<void>();
  const server = createServer((request, response) => {
    const answer = answers[Math.min(requests.length, answers.length - 1)];
    requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
    const closed = Promise.withResolvers<void>();
    latest = closed;
    response.once("close", () => closed.resolve());
    // Whoever answers before the upload is read resets the connection: here only on purpose.
    request.resume().once("end", () => answer?.(request, response));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const { port } = server.address() as AddressInfo;
  const endpoint = `http://127.0.0.1:${port}`;
  return {
    source: await openFaulty(kind, endpoint, patience),
    endpoint,
    requests,
    hungUp: () => latest.promise,
  };
}

/** The source of a store at `endpoint`, hasty. */
export function openFaulty(
  kind: "s3" | "gcs",
  endpoint: string,
  patience: Patience = hasty,
): Promise<WritableSource> {
  const given = { credentials: { accessKeyId: "key", secretAccessKey: "secret" } };
  const credentials = process.env["AWS_ACCESS_KEY_ID"] === undefined ? given : {};
  return openSource(`${kind === "s3" ? "s3" : "gs"}://bucket/orders`, {
    s3: { endpoint, ...credentials, region: "us-east-1" },
    gcs: { endpoint },
    patience,
  });
}

/** From now on in this test, nobody names credentials for S3: its SDK has to find them, and reads. */
export function credentialsByTheSdk(): void {
  vi.stubEnv("AWS_ACCESS_KEY_ID", "key");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", "secret");
}

/** How each store says things. */
export const dialects = {
  s3: {
    head: (bytes: Uint8Array) => ({ etag: `"${createHash("md5").update(bytes).digest("hex")}"` }),
    checksum: (bytes: Uint8Array) => ({
      "x-amz-checksum-sha256": createHash("sha256").update(bytes).digest("base64"),
    }),
    version: '"old"',
    error: (status: number, code: string): Answer =>
      send(status, `<Error><Code>${code}</Code></Error>`, "application/xml"),
    noObject: "NoSuchKey",
    noBucket: "NoSuchBucket",
    written: { etag: '"new"' },
    writtenBody: "",
    page: (keys: readonly string[], next: string | undefined): Answer =>
      send(
        200,
        `<ListBucketResult><IsTruncated>${next !== undefined}</IsTruncated>${
          next === undefined ? "" : `<NextContinuationToken>${next}</NextContinuationToken>`
        }${keys
          .map((key) => `<Contents><Key>orders/${key}</Key><Size>1</Size><ETag>"e"</ETag></Contents>`)
          .join("")}</ListBucketResult>`,
        "application/xml",
      ),
  },
  gcs: {
    head: (bytes: Uint8Array) => ({ "x-goog-generation": String(1_000_000 + bytes.length) }),
    checksum: (bytes: Uint8Array) => ({
      "x-goog-hash": `crc32c=AAAAAA==,md5=${createHash("md5").update(bytes).digest("base64")}`,
    }),
    version: "17",
    error: (status: number, reason: string): Answer =>
      send(
        status,
        JSON.stringify({ error: { code: status, message: reason, errors: [{ reason }] } }),
        "application/json",
      ),
    noObject: "No such object: bucket/orders/a.sql",
    noBucket: "The specified bucket does not exist.",
    written: {},
    writtenBody: JSON.stringify({ generation: "18" }),
    page: (keys: readonly string[], next: string | undefined): Answer =>
      send(
        200,
        JSON.stringify({
          ...(next === undefined ? {} : { nextPageToken: next }),
          items: keys.map((key) => ({ name: `orders/${key}`, size: "1", generation: "5" })),
        }),
        "application/json",
      ),
  },
} as const;

/** A whole answer. */
export function send(
  status: number,
  body: string | Uint8Array = "",
  type = "application/octet-stream",
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return (_request, response) => {
    response.writeHead(status, {
      "content-type": type,
      "content-length": Buffer.byteLength(body),
      ...headers,
    });
    response.end(body);
  };
}

/** An object's body as it should come. */
export function object(
  kind: "s3" | "gcs",
  text: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const bytes = Buffer.from(text);
  return send(200, bytes, "application/octet-stream", { ...dialects[kind].head(bytes), ...headers });
}

/** The first half of a body, and then what `then` does to the connection. */
export function halfOf(
  kind: "s3" | "gcs",
  bytes: Buffer,
  framing: "content-length" | "chunked",
  then: (response: ServerResponse) => void,
): Answer {
  return (_request, response) => {
    const length = framing === "content-length" ? { "content-length": bytes.length } : {};
    response.writeHead(200, { ...dialects[kind].head(bytes), ...length });
    response.write(bytes.subarray(0, bytes.length / 2), () => then(response));
  };
}

/** No answer: the connection breaks. */
export const reset: Answer = (request) => request.socket.resetAndDestroy();

/** No answer, ever. */
export const silence: Answer = () => {};
