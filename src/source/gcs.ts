import { createHash, randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import * as v from "valibot";
import { RunnerError } from "../error.ts";
import { collectBody, truncated } from "./body.ts";
import { changed, writeConditionally } from "./conditional.ts";
import { type GcsAct, gcsFailure, gcsRefusal } from "./gcs-error.ts";
import { errorText, type GcsOptions, makeGcsRequests } from "./gcs-request.ts";
import { HttpTimeout } from "./http.ts";
import { listPages, type Page } from "./listing.ts";
import { assertKey, type BucketLocation } from "./location.ts";
import { type Patience, withRetries } from "./retry.ts";
import { sourceLimits, type StoredObject, type WritableSource } from "./source.ts";

const generation = v.pipe(v.string(), v.regex(/^\d{1,20}$/));

const page = v.object({
  nextPageToken: v.optional(v.string(), ""),
  prefixes: v.optional(v.array(v.string()), []),
  items: v.optional(
    v.array(v.object({ name: v.string(), size: v.pipe(v.string(), v.regex(/^\d{1,15}$/)), generation })),
    [],
  ),
});

const written = v.object({ generation });

/** A bucket on Google Cloud Storage, by its JSON API. A version is the object's generation. */
export function openGcs(
  location: BucketLocation,
  options: GcsOptions = {},
  patience: Patience = sourceLimits,
): WritableSource {
  const { prefix, url: source } = location;
  const objects = `/storage/v1/b/${encodeURIComponent(location.bucket)}/o`;
  const { open, json } = makeGcsRequests(source, options, patience);

  /** One GET with its body; `undefined` when there is no such object or generation, `"unchanged"` where asked for. */
  async function get(
    key: string,
    query: { generation?: string; ifGenerationNotMatch?: string },
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<StoredObject | "unchanged" | undefined> {
    assertKey(key, source);
    const act: GcsAct = { act: "reading", key };
    const path = `${objects}/${encodeURIComponent(prefix + key)}`;
    // Whoever takes gzip gets an object that was stored compressed as it was stored, not decompressed on the way.
    const headers = { "accept-encoding": "gzip", "cache-control": "no-store" };
    return withRetries(patience, signal, async () => {
      const answer = await open(
        { path, query: { alt: "media", ...query }, headers },
        act,
        [304, 404],
        signal,
      );
      if (answer.statusCode === 304) {
        answer.resume();
        return "unchanged";
      }
      if (answer.statusCode === 404) {
        await assertBucket(await errorText(answer), signal);
        return undefined;
      }
      const version = answer.headers["x-goog-generation"];
      if (typeof version !== "string") {
        answer.destroy();
        throw new RunnerError("SOURCE_REFUSED", `${source}: the store gave no generation for "${key}"`, {
          hint: "check the endpoint: it must speak the JSON API of Google Cloud Storage",
          fields: { source, key },
        });
      }
      // fake-gcs-server does not know the condition and sends what we have.
      if (version === query.ifGenerationNotMatch) {
        answer.destroy();
        return "unchanged";
      }
      return { bytes: await body(answer, key, maxBytes), version };
    });
  }

  async function body(answer: IncomingMessage, key: string, maxBytes: number): Promise<Buffer> {
    const length = answer.headers["content-length"];
    const expected = { source, key, maxBytes, size: length === undefined ? undefined : Number(length) };
    let bytes: Buffer;
    try {
      bytes = await collectBody(answer, expected);
    } catch (error) {
      if (error instanceof RunnerError) throw error;
      if (error instanceof HttpTimeout) throw gcsFailure(error, source, { act: "reading", key });
      throw truncated(expected, undefined, error);
    }
    // Of the bytes as stored; objects composed of others have none.
    const md5 = /(?:^|[, ])md5=([A-Za-z0-9+/]{22}==)/.exec(String(answer.headers["x-goog-hash"] ?? ""))?.[1];
    if (md5 !== undefined && md5 !== md5Of(bytes))
      throw truncated(expected, undefined, new Error("the MD5 differs"));
    return bytes;
  }

  /** A 404 tells only by its words whether the object or the bucket is missing; where they are not Google's, the bucket is asked. */
  async function assertBucket(words: string, signal: AbortSignal): Promise<void> {
    if (words.includes("No such object")) return;
    if (!words.includes("bucket does not exist")) {
      const call = { path: objects, query: { maxResults: "1", fields: "nextPageToken" } };
      const answer = await open(call, { act: "listing" }, [404], signal);
      answer.resume();
      if (answer.statusCode !== 404) return;
    }
    throw gcsRefusal(404, undefined, words, source, { act: "listing" });
  }

  return {
    url: source,

    list(listPrefix, signal, onFolder) {
      const act: GcsAct = { act: "listing" };
      const query = {
        prefix: prefix + listPrefix,
        delimiter: "/",
        maxResults: "1000",
        fields: "nextPageToken,prefixes,items(name,size,generation)",
      };
      const fetchPage = (cursor: string | undefined): Promise<Page> =>
        withRetries(patience, signal, async () => {
          const call = {
            path: objects,
            query: cursor === undefined ? query : { ...query, pageToken: cursor },
          };
          const { items, prefixes, nextPageToken } = await json(await open(call, act, [], signal), page, act);
          const rows = items.map((item) => ({
            name: item.name,
            size: Number(item.size),
            version: item.generation,
          }));
          // The JSON API has no other word for the last page.
          return { rows, folders: prefixes, next: nextPageToken === "" ? undefined : nextPageToken };
        });
      return listPages(location, fetchPage, onFolder);
    },

    async read(key, { maxBytes, version }, signal) {
      const object = await get(key, version === undefined ? {} : { generation: version }, maxBytes, signal);
      if (version === undefined) return object === "unchanged" ? undefined : object;
      if (object !== undefined && object !== "unchanged" && object.version === version) return object;
      throw changed(source, key);
    },

    async readIfChanged(key, version, { maxBytes }, signal) {
      return get(key, version === undefined ? {} : { ifGenerationNotMatch: version }, maxBytes, signal);
    },

    async write(key, bytes, condition, signal) {
      assertKey(key, source);
      const act: GcsAct = { act: "writing", key };
      const call = {
        method: "POST",
        path: `/upload${objects}`,
        query: {
          uploadType: "multipart",
          ifGenerationMatch: "absent" in condition ? "0" : condition.version,
          fields: "generation",
        },
        ...multipart(prefix + key, bytes),
      } as const;
      const put = async () => {
        const answer = await open(call, act, [412], signal);
        if (answer.statusCode !== 412) return { version: (await json(answer, written, act)).generation };
        answer.resume();
        return "conflict" as const;
      };
      return writeConditionally(bytes, patience, signal, put, () => get(key, {}, bytes.length, signal));
    },
  };
}

/** RFC 2387 as Google's multipart upload wants it: the metadata, then the bytes, which the server checks by the MD5. */
function multipart(name: string, bytes: Uint8Array): { headers: Record<string, string>; body: Buffer } {
  const boundary = randomUUID();
  const contentType = "application/octet-stream";
  // Without `no-store`, a public object is served from Google's caches for an hour.
  const metadata = JSON.stringify({ name, contentType, cacheControl: "no-store", md5Hash: md5Of(bytes) });
  const head = [
    `--${boundary}`,
    "content-type: application/json; charset=utf-8",
    "",
    metadata,
    `--${boundary}`,
    `content-type: ${contentType}`,
    "",
    "",
  ].join("\r\n");
  return {
    headers: { "content-type": `multipart/related; boundary=${boundary}` },
    body: Buffer.concat([Buffer.from(head), bytes, Buffer.from(`\r\n--${boundary}--\r\n`)]),
  };
}

function md5Of(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("base64");
}
