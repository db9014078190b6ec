import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import * as v from "valibot";
import { collectBody } from "./body.ts";
import { type GcsAct, gcsFailure, gcsRefusal } from "./gcs-error.ts";
import { HttpTimeout, makeHttpClient } from "./http.ts";
import type { Patience } from "./retry.ts";

/** How to reach Google Cloud Storage. What is absent, Google's library finds: its environment, the metadata server. */
export interface GcsOptions {
  /** an emulator, or a private endpoint */
  readonly endpoint?: string;
  /** ask without credentials: an emulator, a public bucket; when absent: yes over plain `http:`, else no */
  readonly anonymous?: boolean;
}

/** One call of the JSON API. */
export interface GcsCall {
  readonly method?: "POST";
  /** `/storage/v1/b/bucket/o`, already percent-encoded */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

const google = "https://storage.googleapis.com";

/**
 * Named only so that Google's library looks for none. Before it shows a token, it would run `gcloud`, ask the metadata
 * server and then `cloudresourcemanager.googleapis.com` for the project, without an end where a firewall drops that.
 * Reading and writing objects needs no project.
 */
const projectId = "none";

/** bytes of an answer in JSON or text: a page of 1,000 rows with names of 1,024 bytes stays far below */
const maxAnswerBytes = 8 * 1024 * 1024;

/**
 * Requests to the JSON API of Google Cloud Storage: with credentials, bounded and abortable, and with named errors.
 *
 * `@google-cloud/storage` gives the credentials only. Its own requests cannot be aborted, wait without end for a
 * first byte (its `timeout` is not obeyed on Node.js) and print warnings: nothing for the way to a database.
 */
export function makeGcsRequests(source: string, options: GcsOptions, patience: Patience) {
  const endpoint = (options.endpoint ?? google).replace(/\/+$/, "");
  const send = makeHttpClient();
  const authorize = makeAuthorize(endpoint, options);

  /**
   * The answer, its body still to be read, when it is a success or one of `expected`.
   *
   * @throws RunnerError `SOURCE_UNAVAILABLE`, `SOURCE_DENIED`, `SOURCE_REFUSED` for what any other answer, or none, stands for
   */
  async function open(
    call: GcsCall,
    act: GcsAct,
    expected: readonly number[],
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    const url = new URL(endpoint + call.path);
    url.search = new URLSearchParams(call.query).toString();
    let answer: IncomingMessage;
    try {
      const headers = { ...call.headers, ...(await withinTime(authorize(url), patience.idleMs, signal)) };
      const request = { method: call.method ?? "GET", url, headers } as const;
      answer = await send(
        call.body === undefined ? request : { ...request, body: call.body },
        patience,
        signal,
      );
    } catch (error) {
      throw gcsFailure(error, source, act);
    }
    const status = answer.statusCode ?? 0;
    if ((status >= 200 && status < 300) || expected.includes(status)) return answer;
    throw gcsRefusal(status, answer.headers["retry-after"], await errorText(answer), source, act);
  }

  /** The answer's body as JSON of the given shape. */
  async function json<S extends v.GenericSchema>(
    answer: IncomingMessage,
    schema: S,
    act: GcsAct,
  ): Promise<v.InferOutput<S>> {
    try {
      const parsed: unknown = JSON.parse(await text(answer));
      return v.parse(schema, parsed);
    } catch (error) {
      throw gcsFailure(error, source, act);
    }
  }

  return { open, json };
}

/** What a refusal says about itself; empty where even that cannot be read: the status alone names the error then. */
export function errorText(answer: IncomingMessage): Promise<string> {
  return text(answer).catch(() => "");
}

async function text(answer: IncomingMessage): Promise<string> {
  const expected = { source: "the answer", key: "", maxBytes: maxAnswerBytes, size: undefined };
  return (await collectBody(answer, expected)).toString("utf8");
}

/** Google's library can neither be aborted nor ends by itself: after its time it is left behind. */
async function withinTime<T>(work: Promise<T>, idleMs: number, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const over = AbortSignal.any([signal, AbortSignal.timeout(idleMs)]);
  const end = once(over, "abort").then((): never => {
    signal.throwIfAborted();
    throw new HttpTimeout(`no credentials within ${idleMs} ms`);
  });
  return Promise.race([work, end]);
}

/** Headers that show who asks. Google's library is loaded by the first request that needs it. */
function makeAuthorize(endpoint: string, options: GcsOptions): (url: URL) => Promise<Record<string, string>> {
  if (options.anonymous ?? endpoint.startsWith("http:")) return async () => ({});
  let client: Promise<{ getRequestHeaders(url: URL): Promise<Headers> }> | undefined;
  return async (url) => {
    client ??= import("@google-cloud/storage").then(({ Storage }) => new Storage({ projectId }).authClient);
    return Object.fromEntries(await (await client).getRequestHeaders(url));
  };
}
