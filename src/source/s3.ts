import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import {
  GetObjectCommand,
  type GetObjectCommandOutput,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { RunnerError } from "../error.ts";
import { collectBody, truncated } from "./body.ts";
import { changed, writeConditionally } from "./conditional.ts";
import { incomplete, listPages, type Page } from "./listing.ts";
import { assertKey, type BucketLocation } from "./location.ts";
import { type Patience, withRetries } from "./retry.ts";
import { isTimeout, s3Failure, s3Status } from "./s3-error.ts";
import { sourceLimits, type StoredObject, type WritableSource } from "./source.ts";

/** How to reach an S3 server. What is absent, the SDK finds in its own environment, files and instance metadata. */
export interface S3Options {
  /** another server than AWS, `http://127.0.0.1:9000` */
  readonly endpoint?: string;
  readonly region?: string;
  /** bucket in the path instead of the host name; when absent: yes with an `endpoint`, no without */
  readonly forcePathStyle?: boolean;
  readonly credentials?: {
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly sessionToken?: string;
  };
  /** a profile of the shared AWS configuration */
  readonly profile?: string;
}

// A little more than `concurrency`, so that a retry never waits for a socket.
const sockets = 2 * sourceLimits.concurrency;

/** Servers other than AWS ask for a region in the signature too, and take any. */
const anyRegion = "us-east-1";

/**
 * A bucket on S3 or on a server that speaks its API.
 *
 * A version is the ETag, and where the bucket keeps old versions also the version id: `"<etag>"` or `"<etag>"@<id>`.
 */
export function openS3(
  location: BucketLocation,
  options: S3Options = {},
  patience: Patience = sourceLimits,
): WritableSource {
  const { bucket: Bucket, prefix, url } = location;
  const client = makeClient(options, patience);
  const Key = (key: string) => {
    assertKey(key, url);
    return prefix + key;
  };

  /** One GET with its body; `undefined` when there is no such object, `"unchanged"` on 304. */
  async function get(
    key: string,
    input: { IfMatch?: string; IfNoneMatch?: string; VersionId?: string },
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<StoredObject | "unchanged" | undefined> {
    const command = new GetObjectCommand({ Bucket, Key: Key(key), ChecksumMode: "ENABLED", ...input });
    return withRetries(patience, signal, async () => {
      let output: GetObjectCommandOutput;
      try {
        output = await client.send(command, { abortSignal: signal });
      } catch (error) {
        if (s3Status(error) === 304) return "unchanged";
        if (isMissing(error)) return undefined;
        throw s3Failure(error, url, { act: "reading", key });
      }
      return { bytes: await body(output, key, maxBytes), version: encodeVersion(output, url, key) };
    });
  }

  async function body(output: GetObjectCommandOutput, key: string, maxBytes: number): Promise<Buffer> {
    if (!(output.Body instanceof Readable)) throw new TypeError("the S3 client gave no Node.js stream");
    const expected = { source: url, key, maxBytes, size: output.ContentLength };
    try {
      return await collectBody(output.Body, expected);
    } catch (error) {
      if (error instanceof RunnerError) throw error;
      // A reset, a premature end, or a checksum of the store that does not fit.
      throw isTimeout(error)
        ? s3Failure(error, url, { act: "reading", key })
        : truncated(expected, undefined, error);
    }
  }

  /** The state that `version` names: by version id where there is one, else only while the ETag still holds. */
  async function readVersion(
    key: string,
    maxBytes: number,
    version: string,
    signal: AbortSignal,
  ): Promise<StoredObject | undefined> {
    const { etag, id } = decodeVersion(version);
    try {
      const input = id === undefined ? { IfMatch: etag } : { VersionId: id };
      const object = await get(key, input, maxBytes, signal);
      if (object !== undefined && object !== "unchanged") return object;
    } catch (error) {
      if (!(error instanceof RunnerError)) throw error;
      // Reading by id is a right of its own (s3:GetObjectVersion), and few roles have it.
      if (error.code === "SOURCE_DENIED" && id !== undefined) return readVersion(key, maxBytes, etag, signal);
      if (error.fields["status"] !== 412) throw error;
    }
    throw changed(url, key);
  }

  return {
    url,

    list(listPrefix, signal, onFolder) {
      const fetchPage = async (cursor: string | undefined): Promise<Page> => {
        const command = new ListObjectsV2Command({
          Bucket,
          Prefix: prefix + listPrefix,
          Delimiter: "/",
          ContinuationToken: cursor,
        });
        const page = await withRetries(patience, signal, async () => {
          try {
            return await client.send(command, { abortSignal: signal });
          } catch (error) {
            throw s3Failure(error, url, { act: "listing" });
          }
        });
        const rows = (page.Contents ?? []).map(({ Key: name, Size: size, ETag: version }) => {
          if (name !== undefined && size !== undefined && version !== undefined)
            return { name, size, version };
          throw incomplete(url, "an object without name, size or ETag");
        });
        const folders = (page.CommonPrefixes ?? []).flatMap(({ Prefix: name }) => name ?? []);
        const next = page.IsTruncated === true ? (page.NextContinuationToken ?? "") : undefined;
        return { rows, folders, next };
      };
      return listPages(location, fetchPage, onFolder);
    },

    async read(key, { maxBytes, version }, signal) {
      if (version !== undefined) return readVersion(key, maxBytes, version, signal);
      const object = await get(key, {}, maxBytes, signal);
      return object === "unchanged" ? undefined : object;
    },

    async readIfChanged(key, version, { maxBytes }, signal) {
      return get(
        key,
        version === undefined ? {} : { IfNoneMatch: decodeVersion(version).etag },
        maxBytes,
        signal,
      );
    },

    async write(key, bytes, condition, signal) {
      const command = new PutObjectCommand({
        Bucket,
        Key: Key(key),
        Body: bytes,
        ContentType: "application/octet-stream",
        ChecksumSHA256: createHash("sha256").update(bytes).digest("base64"),
        ...("absent" in condition
          ? { IfNoneMatch: "*" }
          : { IfMatch: decodeVersion(condition.version).etag }),
      });
      const put = async () => {
        try {
          return { version: encodeVersion(await client.send(command, { abortSignal: signal }), url, key) };
        } catch (error) {
          if (isConflict(error)) return "conflict";
          throw s3Failure(error, url, { act: "writing", key });
        }
      };
      return writeConditionally(bytes, patience, signal, put, () => get(key, {}, bytes.length, signal));
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

function encodeVersion(
  output: { readonly ETag?: string | undefined; readonly VersionId?: string | undefined },
  url: string,
  key: string,
): string {
  if (output.ETag === undefined) {
    throw new RunnerError("SOURCE_REFUSED", `${url}: the store gave no ETag for "${key}"`, {
      hint: "lockkeeper needs a store with ETags and conditional requests",
      fields: { source: url, key },
    });
  }
  // "null" is what a bucket whose versioning is suspended overwrites in place: it pins nothing.
  const isPinned = output.VersionId !== undefined && output.VersionId !== "" && output.VersionId !== "null";
  return isPinned ? `${output.ETag}@${output.VersionId}` : output.ETag;
}

function decodeVersion(version: string): { readonly etag: string; readonly id: string | undefined } {
  const end = version.indexOf('"@');
  return end === -1
    ? { etag: version, id: undefined }
    : { etag: version.slice(0, end + 1), id: version.slice(end + 2) };
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && (error.name === "NoSuchKey" || error.name === "NoSuchVersion");
}

/** 412: the condition did not hold. 404 of a conditional PUT: the object to replace is gone. */
function isConflict(error: unknown): boolean {
  return s3Status(error) === 412 || isMissing(error);
}
