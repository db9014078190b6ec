import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import * as v from "valibot";

import { RunnerError } from "../../../error.ts";
import type { ErrorFields } from "../../../error.ts";
import { makeHttpClient } from "../../../source/http.ts";
import { parsePublicKey } from "../key.ts";
import type { KeyKind, Signer } from "../key.ts";
import { crc32c } from "./crc32c.ts";
import type { GcpReference } from "./reference.ts";
import { checkedSigner, keyStorePatience, unlessAborted } from "./remote-signer.ts";

/** How to reach Google's Cloud KMS. Credentials are Google's usual ones: its library finds them. */
export interface GcpKmsOptions {
  /** in place of Google's */
  readonly endpoint?: string;
}

const google = "https://cloudkms.googleapis.com";
const scope = "https://www.googleapis.com/auth/cloudkms";

/** Named only so that Google's library looks for none: it would ask `gcloud` and the metadata server first. */
const projectId = "none";

/** bytes of an answer */
const maxAnswerBytes = 65_536;

/** What Cloud KMS calls the two ways of signing that count. */
const algorithms = {
  "ecdsa-p256": "EC_SIGN_P256_SHA256",
  ed25519: "EC_SIGN_ED25519",
} as const satisfies Record<KeyKind, string>;

/** An int64 of JSON: a text. */
const crcText = v.pipe(v.string(), v.regex(/^[0-9]{1,10}$/), v.transform(Number));

const publicKeyAnswer = v.object({
  name: v.string(),
  pem: v.string(),
  algorithm: v.string(),
  pemCrc32c: crcText,
});

const signAnswer = v.object({
  name: v.string(),
  signature: v.pipe(v.string(), v.base64()),
  signatureCrc32c: crcText,
  verifiedDigestCrc32c: v.optional(v.boolean(), false),
  verifiedDataCrc32c: v.optional(v.boolean(), false),
});

/**
 * A key version that Google's Cloud KMS keeps: `EC_SIGN_P256_SHA256` or `EC_SIGN_ED25519`, by its REST API.
 *
 * Checks names and CRC-32C of what went there and came back, as https://cloud.google.com/kms/docs/data-integrity-guidelines asks.
 *
 * @throws RunnerError `KEY_STORE`; `KEY_ALG`
 */
export async function openGcpSigner(
  { name }: GcpReference,
  options: GcpKmsOptions = {},
  signal: AbortSignal,
): Promise<Signer> {
  const what = `"gcpkms://${name}"`;
  const ask = makeRequests(what, options);
  const { pem, algorithm } = await ask(
    `/v1/${name}/publicKey`,
    undefined,
    publicKeyAnswer,
    signal,
    (answer) => answer.name === name && answer.pemCrc32c === crc32c(Buffer.from(answer.pem)),
  );
  const key = parsePublicKey(pem, what);
  if (algorithm !== algorithms[key.kind]) {
    throw new RunnerError("KEY_ALG", `${what} signs as ${algorithm}, not as ${algorithms[key.kind]}`, {
      hint: `make a key version of algorithm ${algorithms["ecdsa-p256"]} or ${algorithms.ed25519}`,
      fields: { algorithm },
    });
  }
  return checkedSigner(key, what, async (message, signal) => {
    const isDigest = key.kind === "ecdsa-p256";
    const sent = isDigest ? createHash("sha256").update(message).digest() : Buffer.from(message);
    const crc = String(crc32c(sent));
    const body = isDigest
      ? { digest: { sha256: sent.toString("base64") }, digestCrc32c: crc }
      : { data: sent.toString("base64"), dataCrc32c: crc };
    const { signature } = await ask(
      `/v1/${name}:asymmetricSign`,
      body,
      signAnswer,
      signal,
      (answer) =>
        answer.name === name &&
        (isDigest ? answer.verifiedDigestCrc32c : answer.verifiedDataCrc32c) &&
        answer.signatureCrc32c === crc32c(Buffer.from(answer.signature, "base64")),
    );
    return Buffer.from(signature, "base64");
  });
}

/** Requests to Cloud KMS: with credentials, bounded and abortable, tried again where that may help. */
function makeRequests(what: string, { endpoint = google }: GcpKmsOptions) {
  const send = makeHttpClient();
  const authorize = makeAuthorize();

  async function once(path: string, body: object | undefined, signal: AbortSignal): Promise<Answer> {
    const url = new URL(endpoint.replace(/\/+$/, "") + path);
    const over = AbortSignal.any([signal, AbortSignal.timeout(keyStorePatience.idleMs)]);
    const credentials = await unlessAborted(authorize(url), over).catch((error: unknown) => {
      signal.throwIfAborted();
      throw failed(what, "no Google credentials were found, or Google did not take them", {
        hint: "set GOOGLE_APPLICATION_CREDENTIALS, or run gcloud auth application-default login",
        cause: error,
      });
    });
    const headers = {
      ...credentials,
      ...(body === undefined ? {} : { "content-type": "application/json" }),
    };
    const request = { method: body === undefined ? "GET" : "POST", url, headers } as const;
    const answer = await send(
      body === undefined ? request : { ...request, body: Buffer.from(JSON.stringify(body)) },
      keyStorePatience,
      signal,
    );
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxAnswerBytes) throw new Error("the answer is too long");
      chunks.push(chunk);
    }
    return { status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString("utf8") };
  }

  return async function ask<S extends v.GenericSchema>(
    path: string,
    body: object | undefined,
    schema: S,
    signal: AbortSignal,
    isIntact: (answer: v.InferOutput<S>) => boolean,
  ): Promise<v.InferOutput<S>> {
    for (let tries = 1; ; tries++) {
      signal.throwIfAborted();
      let failure: RunnerError;
      let isCurable = true;
      try {
        const { status, text } = await once(path, body, signal);
        if (status === 200) {
          const parsed = v.safeParse(schema, parseJson(text));
          if (parsed.success && isIntact(parsed.output)) return parsed.output;
          failure = failed(what, "the request or the answer was damaged on the way", { hint: "try again" });
        } else {
          failure = refusal(status, text, what);
          isCurable = status === 429 || status >= 500;
        }
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof RunnerError) throw error;
        failure = failed(what, "Cloud KMS cannot be reached", {
          hint: "check the network; then try again",
          cause: error,
        });
      }
      if (!isCurable || tries >= keyStorePatience.attempts) throw failure;
      await sleep(100 * 2 ** tries * Math.random(), undefined, { signal }).catch(() =>
        signal.throwIfAborted(),
      );
    }
  };
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Headers that show who asks. Google's library is loaded by the first request. */
function makeAuthorize(): (url: URL) => Promise<Record<string, string>> {
  let auth: Promise<{ getRequestHeaders(url: URL): Promise<Headers> }> | undefined;
  return async (url) => {
    auth ??= import("google-auth-library").then(
      ({ GoogleAuth }) => new GoogleAuth({ scopes: [scope], projectId }),
    );
    return Object.fromEntries(await (await auth).getRequestHeaders(url));
  };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What Google says in words may name accounts: of it only the status is kept. */
const errorAnswer = v.object({ error: v.object({ status: v.optional(v.string(), "") }) });

function refusal(status: number, text: string, what: string): RunnerError {
  const parsed = v.safeParse(errorAnswer, parseJson(text));
  const reason = parsed.success ? parsed.output.error.status : "";
  const fields = { status, ...(reason === "" ? {} : { reason }) };
  switch (status) {
    case 401:
    case 403:
      return failed(what, "the request was denied", {
        hint: "grant roles/cloudkms.signerVerifier on this key to whoever signs, and see that the credentials are current",
        fields,
      });
    case 404:
      return failed(what, "there is no such key version", {
        hint: "check the project, the location and the names",
        fields,
      });
    case 429:
      return failed(what, "Cloud KMS turned the request away, too many come", {
        hint: "try again in a minute",
        fields,
      });
    case 400:
      return failed(what, `the request was refused${reason === "" ? "" : ` (${reason})`}`, {
        hint: "see that the key version is enabled, and that its purpose is ASYMMETRIC_SIGN",
        fields,
      });
    default:
      return failed(what, `Cloud KMS did not answer as it should (${status})`, {
        hint: "try again later",
        fields,
      });
  }
}

function failed(
  what: string,
  text: string,
  options: { readonly hint: string; readonly fields?: ErrorFields; readonly cause?: unknown },
): RunnerError {
  return new RunnerError("KEY_STORE", `${what}: ${text}`, options);
}
