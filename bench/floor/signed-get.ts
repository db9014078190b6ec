import { createHash, createHmac } from "node:crypto";
import { Agent, request } from "node:http";

/** One object on an S3 server, and who may read it. */
export interface StoredObject {
  readonly endpoint: string;
  /** `/bucket/key` */
  readonly path: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

const region = "us-east-1";
const emptySha256 = createHash("sha256").digest("hex");

/**
 * Reads an object with as little as S3 takes: one signature of version 4 (whose key of the day is made once) and one
 * request on a connection that is kept.
 *
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export function openSignedGet(object: StoredObject, sockets: number): () => Promise<Buffer> {
  const { hostname, port, host } = new URL(object.endpoint);
  const agent = new Agent({ keepAlive: true, maxSockets: sockets });
  let keyOf: { readonly day: string; readonly key: Buffer } = { day: "", key: Buffer.alloc(0) };
  return () => {
    const time = new Date().toISOString().replace(/[-:]|\.\d{3}/g, "");
    const day = time.slice(0, 8);
    if (keyOf.day !== day) keyOf = { day, key: signingKey(object.secretAccessKey, day) };
    const names = "host;x-amz-content-sha256;x-amz-date";
    const canonical = `GET\n${object.path}\n\nhost:${host}\nx-amz-content-sha256:${emptySha256}\nx-amz-date:${time}\n\n${names}\n${emptySha256}`;
    const scope = `${day}/${region}/s3/aws4_request`;
    const text = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${createHash("sha256").update(canonical).digest("hex")}`;
    const signature = createHmac("sha256", keyOf.key).update(text).digest("hex");
    const headers = {
      host,
      "x-amz-content-sha256": emptySha256,
      "x-amz-date": time,
      authorization: `AWS4-HMAC-SHA256 Credential=${object.accessKeyId}/${scope}, SignedHeaders=${names}, Signature=${signature}`,
    };
    return new Promise((resolve, reject) => {
      const asking = request({ hostname, port, path: object.path, headers, agent }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () =>
          response.statusCode === 200
            ? resolve(Buffer.concat(chunks))
            : reject(new Error(`GET ${object.path}: ${response.statusCode}`)),
        );
      });
      asking.on("error", reject);
      asking.end();
    });
  };
}

function signingKey(secret: string, day: string): Buffer {
  return [day, region, "s3", "aws4_request"].reduce<Buffer>(
    (key, part) => createHmac("sha256", key).update(part).digest(),
    Buffer.from(`AWS4${secret}`),
  );
}
