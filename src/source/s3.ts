import { RunnerError } from "../error.ts";
import { collectBody, truncated } from "./body.ts";
import { changed, writeConditionally } from "./conditional.ts";
import { incomplete, listPages, type Page } from "./listing.ts";
import { assertKey, type BucketLocation } from "./location.ts";
import { type Patience, withRetries } from "./retry.ts";
import { s3Access } from "./s3-access.ts";
import { isTimeout, s3Failure, s3Status } from "./s3-error.ts";
import { signedGet } from "./s3-get.ts";
import type { GetObject, S3Answer, S3Condition, S3Options, S3Requests } from "./s3-requests.ts";
import { decodeVersion, encodeVersion } from "./s3-version.ts";
import { sourceLimits, type StoredObject, type WritableSource } from "./source.ts";

/**
 * A bucket on S3 or on a server that speaks its API. The SDK is loaded by the first request that needs it: one that lists or
 * writes, or reads where only the SDK knows how.
 *
 * A version is the ETag, and where the bucket keeps old versions also the version id: `"<etag>"` or `"<etag>"@<id>`.
 */
export function openS3(
  location: BucketLocation,
  options: S3Options = {},
  patience: Patience = sourceLimits,
): WritableSource {
  const { bucket, prefix, url } = location;
  let loaded: Promise<S3Requests> | undefined;
  const sdk = (): Promise<S3Requests> =>
    (loaded ??= import("./s3-sdk.ts").then(({ sdkRequests }) => sdkRequests(bucket, options, patience)));
  const access = s3Access(location, options);
  const getObject: GetObject =
    access === undefined
      ? async (...asked) => (await sdk()).getObject(...asked)
      : signedGet(access, patience);
  const nameOf = (key: string): string => {
    assertKey(key, url);
    return prefix + key;
  };

  /** One GET with its body; `undefined` when there is no such object, `"unchanged"` on 304. */
  async function get(
    key: string,
    condition: S3Condition,
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<StoredObject | "unchanged" | undefined> {
    const name = nameOf(key);
    return withRetries(patience, signal, async () => {
      let answer: S3Answer;
      try {
        answer = await getObject(name, condition, signal);
      } catch (error) {
        if (s3Status(error) === 304) return "unchanged";
        if (isMissing(error)) return undefined;
        throw s3Failure(error, url, { act: "reading", key });
      }
      return { bytes: await bytesOf(answer, key, maxBytes), version: encodeVersion(answer, url, key) };
    });
  }

  async function bytesOf({ body, size, isWhole }: S3Answer, key: string, maxBytes: number): Promise<Buffer> {
    const expected = { source: url, key, maxBytes, size };
    let bytes: Buffer;
    try {
      bytes = await collectBody(body, expected);
    } catch (error) {
      if (error instanceof RunnerError) throw error;
      // A reset, a premature end, or a checksum of the store that does not fit.
      throw isTimeout(error)
        ? s3Failure(error, url, { act: "reading", key })
        : truncated(expected, undefined, error);
    }
    if (!isWhole(bytes))
      throw truncated(expected, undefined, new Error("the store's checksum is of other bytes"));
    return bytes;
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
      const condition = id === undefined ? { ifMatch: etag } : { versionId: id };
      const object = await get(key, condition, maxBytes, signal);
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
        const { listPage } = await sdk();
        const { objects, folders, next } = await withRetries(patience, signal, async () => {
          try {
            return await listPage(prefix + listPrefix, cursor, signal);
          } catch (error) {
            throw s3Failure(error, url, { act: "listing" });
          }
        });
        const rows = objects.map(({ name, size, etag }) => {
          if (name !== undefined && size !== undefined && etag !== undefined)
            return { name, size, version: etag };
          throw incomplete(url, "an object without name, size or ETag");
        });
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
      const condition = version === undefined ? {} : { ifNoneMatch: decodeVersion(version).etag };
      return get(key, condition, maxBytes, signal);
    },

    async write(key, bytes, condition, signal) {
      const name = nameOf(key);
      const { putObject } = await sdk();
      const ifMatch = "absent" in condition ? undefined : decodeVersion(condition.version).etag;
      const put = async () => {
        try {
          return { version: encodeVersion(await putObject(name, bytes, ifMatch, signal), url, key) };
        } catch (error) {
          if (isConflict(error)) return "conflict";
          throw s3Failure(error, url, { act: "writing", key });
        }
      };
      return writeConditionally(bytes, patience, signal, put, () => get(key, {}, bytes.length, signal));
    },
  };
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && (error.name === "NoSuchKey" || error.name === "NoSuchVersion");
}

/** 412: the condition did not hold. 404 of a conditional PUT: the object to replace is gone. */
function isConflict(error: unknown): boolean {
  return s3Status(error) === 412 || isMissing(error);
}
