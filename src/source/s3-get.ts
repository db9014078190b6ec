import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import aws4 from "aws4";
import { collectBody } from "./body.ts";
import { makeHttpClient } from "./http.ts";
import type { Patience } from "./retry.ts";
import type { S3Access } from "./s3-access.ts";
import type { GetObject } from "./s3-requests.ts";

/** SHA-256 of no body at all, as the signature wants it. */
const noBody = createHash("sha256").digest("hex");

/** bytes of a refusal's XML that are looked at */
const refusalBytes = 64 * 1024;

/** What a store says in place of an object, in the shape of the SDK's own errors. */
class S3Refusal extends Error {
  readonly $metadata: { readonly httpStatusCode: number };
  readonly $response: { readonly headers: Readonly<Record<string, string>> };

  constructor(code: string, { statusCode = 0, headers }: IncomingMessage) {
    super(code);
    this.name = code;
    this.$metadata = { httpStatusCode: statusCode };
    const single = Object.entries(headers).filter(
      (entry): entry is [string, string] => typeof entry[1] === "string",
    );
    this.$response = { headers: Object.fromEntries(single) };
  }
}

/**
 * GETs signed by Signature Version 4 and sent as they are. Loading the SDK takes longer than all else that a run does which
 * finds nothing to do, and its layers cost several times what a request does.
 */
export function signedGet(access: S3Access, patience: Patience): GetObject {
  const send = makeHttpClient();
  return async (name, { ifMatch, ifNoneMatch, versionId }, signal) => {
    const query = versionId === undefined ? "" : `?versionId=${encode(versionId)}`;
    const url = new URL(access.objects + name.split("/").map(encode).join("/") + query);
    const headers = signedHeaders(url, access, {
      "x-amz-checksum-mode": "ENABLED",
      ...(ifMatch === undefined ? {} : { "if-match": ifMatch }),
      ...(ifNoneMatch === undefined ? {} : { "if-none-match": ifNoneMatch }),
    });
    const answer = await send({ method: "GET", url, headers }, patience, signal);
    if (answer.statusCode !== 200) throw new S3Refusal(await codeOf(answer), answer);
    const length = header(answer, "content-length");
    return {
      body: answer,
      size: length === undefined ? undefined : Number(length),
      etag: header(answer, "etag"),
      id: header(answer, "x-amz-version-id"),
      isWhole: (bytes) => isWhole(answer, bytes),
    };
  };
}

function signedHeaders(
  { host, pathname, search }: URL,
  { region, credentials }: S3Access,
  headers: Readonly<Record<string, string>>,
): Record<string, string> {
  const request = aws4.sign(
    {
      method: "GET",
      host,
      path: pathname + search,
      service: "s3",
      region,
      headers: { ...headers, "x-amz-content-sha256": noBody, "user-agent": "lockkeeper" },
    },
    credentials,
  );
  return Object.fromEntries(
    Object.entries(request.headers ?? {}).map(([name, value]) => [name, String(value)]),
  );
}

/** By those of the store's checksums that are of the whole object, not of its parts, and that Node knows. */
function isWhole(answer: IncomingMessage, bytes: Buffer): boolean {
  const sha256 = header(answer, "x-amz-checksum-sha256");
  const crc = header(answer, "x-amz-checksum-crc32");
  const isOfParts = [sha256, crc].some((sum) => sum?.includes("-") === true);
  if (isOfParts || header(answer, "x-amz-checksum-type") === "COMPOSITE") return true;
  return (
    (sha256 === undefined || sha256 === createHash("sha256").update(bytes).digest("base64")) &&
    (crc === undefined || crc === crc32Of(bytes))
  );
}

function crc32Of(bytes: Buffer): string {
  const sum = Buffer.alloc(4);
  // Few stores give one, and Node takes a while to load all that it can compress with.
  sum.writeUInt32BE(process.getBuiltinModule("node:zlib").crc32(bytes));
  return sum.toString("base64");
}

/** The store's own word for a refusal; `Error` where it has none, or cannot be read. */
async function codeOf(answer: IncomingMessage): Promise<string> {
  const expected = { source: "the answer", key: "", maxBytes: refusalBytes, size: undefined };
  const text = await collectBody(answer, expected).catch(() => "");
  return /<Code>(\w{1,100})<\/Code>/.exec(text.toString())?.[1] ?? "Error";
}

function header({ headers }: IncomingMessage, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" ? value : undefined;
}

/** RFC 3986, of which `encodeURIComponent` leaves a few out. */
function encode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
