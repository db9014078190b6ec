import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { GetObjectCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import type { Patience } from "./retry.ts";
import { anyRegion } from "./s3-access.ts";
import type { GetObject, S3Options, S3Requests } from "./s3-requests.ts";
import { sourceLimits } from "./source.ts";

// A little more than `concurrency`, so that a retry never waits for a socket.
const sockets = 2 * sourceLimits.concurrency;

/** The requests by AWS's SDK, which finds credentials, endpoints and regions wherever AWS's tools keep them. */
export function sdkRequests(Bucket: string, options: S3Options, patience: Patience): S3Requests {
  const client = makeClient(options, patience);

  const getObject: GetObject = async (Key, { ifMatch, ifNoneMatch, versionId }, abortSignal) => {
    const command = new GetObjectCommand({
      Bucket,
      Key,
      ChecksumMode: "ENABLED",
      IfMatch: ifMatch,
      IfNoneMatch: ifNoneMatch,
      VersionId: versionId,
    });
    const { Body, ContentLength, ETag, VersionId } = await client.send(command, { abortSignal });
    if (!(Body instanceof Readable)) throw new TypeError("the S3 client gave no Node.js stream");
    // The SDK checks the store's checksum while the body is read.
    return { body: Body, size: ContentLength, etag: ETag, id: VersionId, isWhole: () => true };
  };

  return {
    getObject,

    async listPage(Prefix, ContinuationToken, abortSignal) {
      const command = new ListObjectsV2Command({ Bucket, Prefix, Delimiter: "/", ContinuationToken });
      const { Contents, CommonPrefixes, IsTruncated, NextContinuationToken } = await client.send(command, {
        abortSignal,
      });
      return {
        objects: (Contents ?? []).map(({ Key, Size, ETag }) => ({ name: Key, size: Size, etag: ETag })),
        folders: (CommonPrefixes ?? []).flatMap(({ Prefix: name }) => name ?? []),
        next: IsTruncated === true ? (NextContinuationToken ?? "") : undefined,
      };
    },

    async putObject(Key, bytes, ifMatch, abortSignal) {
      const command = new PutObjectCommand({
        Bucket,
        Key,
        Body: bytes,
        ContentType: "application/octet-stream",
        ChecksumSHA256: createHash("sha256").update(bytes).digest("base64"),
        ...(ifMatch === undefined ? { IfNoneMatch: "*" } : { IfMatch: ifMatch }),
      });
      const { ETag, VersionId } = await client.send(command, { abortSignal });
      return { etag: ETag, id: VersionId };
    },
  };
}

function makeClient(options: S3Options, patience: Patience): S3Client {
  const agent = { keepAlive: true, maxSockets: sockets };
  const region = options.region ?? (options.endpoint === undefined ? undefined : anyRegion);
  return new S3Client({
    ...(region === undefined ? {} : { region }),
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    ...(options.profile === undefined ? {} : { profile: options.profile }),
    forcePathStyle: options.forcePathStyle ?? options.endpoint !== undefined,
    // One retry policy: ours.
    maxAttempts: 1,
    // We send SHA-256 with every write; the CRC trailers that the SDK would add, other servers refuse.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // It would cost each large write a round trip and a new connection.
    expectContinueHeader: false,
    requestHandler: {
      connectionTimeout: patience.connectMs,
      socketTimeout: patience.idleMs,
      httpAgent: agent,
      httpsAgent: agent,
    },
  });
}
