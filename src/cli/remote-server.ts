import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { RunnerError } from "../error.ts";
import { errorOfAnswer } from "./remote-run.ts";
import type { TokenSource } from "./remote-token.ts";

/** A lockkeeper server, spoken to as its API says. */
export interface RemoteServer {
  /** without a slash at its end */
  readonly url: string;
  /**
   * One request, tried again while that may help.
   *
   * @throws RunnerError with the server's own code where it refused; `SERVER_UNAVAILABLE` where nothing of use came back
   */
  send<T>(request: RemoteRequest<T>, signal: AbortSignal): Promise<T>;
}

/** One request and what its answer has to look like. */
export interface RemoteRequest<T> {
  readonly path: string;
  /** with a body it is a POST */
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly answer: v.GenericSchema<unknown, T>;
  readonly patience: Patience;
}

/** When a request is given up. */
export interface Patience {
  /** tries without an answer of use, in a row */
  readonly attempts: number;
  /** milliseconds from the first to the last of them */
  readonly outageMs: number;
  /** of these tries, how many may have been refused for their token: the next one may be accepted */
  readonly refusals: number;
}

/** Milliseconds until a request without an answer is given up; more than the server may wait. */
const requestMs = 60_000;
/** Milliseconds before the second try, which double, and between two at the most. A server's `Retry-After` wins. */
const backoffMs = 500;
const maxBackoffMs = 15_000;
/** Bytes of an answer. */
const maxAnswerBytes = 4 * 1024 * 1024;
/** What a gateway, or a server that is being replaced, says when another try may help. */
const passing = new Set([408, 425, 429, 502, 503, 504]);

/**
 * A server at a URL.
 *
 * @param onTrouble - told of each try that came to nothing and will be repeated
 * @throws RunnerError `USAGE` — not a URL for this
 */
export function openServer(
  text: string,
  tokens: TokenSource,
  onTrouble: (error: RunnerError, delayMs: number) => void,
): RemoteServer {
  const url = parseServerUrl(text);
  return {
    url,
    async send(request, signal) {
      const { attempts, outageMs, refusals } = request.patience;
      const since = performance.now();
      let refused = 0;
      for (let attempt = 1; ; attempt++) {
        const isFresh = request.body !== undefined || refused > 0;
        const answer = await call(url, request, { tokens, isFresh, signal });
        if (answer.kind === "value") return answer.value;
        const { error } = answer;
        if (answer.isRefusal) refused += 1;
        const mayRetry = answer.isRefusal ? refused < refusals : answer.isWorthRetry;
        const delayMs = answer.retryAfterMs ?? Math.min(backoffMs * 2 ** (attempt - 1), maxBackoffMs);
        const isOver = attempt >= attempts || performance.now() - since + delayMs > outageMs;
        if (!mayRetry || isOver) throw error;
        onTrouble(error, delayMs);
        await sleep(delayMs, undefined, { signal });
      }
    },
  };
}

/** What one request came to. */
export type Answer<T> =
  | { readonly kind: "value"; readonly value: T }
  | {
      readonly kind: "error";
      readonly error: RunnerError;
      readonly isWorthRetry: boolean;
      /** for its token */
      readonly isRefusal: boolean;
      readonly retryAfterMs: number | undefined;
    };

async function call<T>(
  base: string,
  request: RemoteRequest<T>,
  by: { readonly tokens: TokenSource; readonly isFresh: boolean; readonly signal: AbortSignal },
): Promise<Answer<T>> {
  const { signal } = by;
  const token = await nextToken(by);
  if (token instanceof RunnerError)
    return { kind: "error", error: token, isWorthRetry: false, isRefusal: true, retryAfterMs: undefined };
  let response: Response;
  let text: string;
  try {
    response = await fetch(`${base}${request.path}`, {
      method: request.body === undefined ? "GET" : "POST",
      ...(request.body === undefined ? {} : { body: request.body }),
      headers: {
        ...request.headers,
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
        authorization: `Bearer ${token}`,
        accept: "application/json",
      },
      // a token must not follow a redirect to wherever it leads
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
    });
    text = await readBounded(response);
  } catch (cause) {
    signal.throwIfAborted();
    return {
      kind: "error",
      error: unreachable(base, cause),
      isWorthRetry: true,
      isRefusal: false,
      retryAfterMs: undefined,
    };
  }
  return readAnswer(response, text, base, request.answer);
}

/** An answer: what was asked for, or the error that the server names. */
export function readAnswer<T>(
  response: Response,
  text: string,
  base: string,
  wanted: v.GenericSchema<unknown, T>,
): Answer<T> {
  const value = parseJson(text);
  const read = v.safeParse(wanted, value);
  if ((response.status === 200 || response.status === 202) && read.success)
    return { kind: "value", value: read.output };
  return {
    kind: "error",
    error: errorOfAnswer(response.status, value, base),
    isWorthRetry: passing.has(response.status),
    isRefusal: response.status === 401,
    retryAfterMs: readRetryAfter(response),
  };
}

async function nextToken({
  tokens,
  isFresh,
  signal,
}: {
  readonly tokens: TokenSource;
  readonly isFresh: boolean;
  readonly signal: AbortSignal;
}): Promise<string | RunnerError> {
  try {
    return await tokens.next(isFresh, signal);
  } catch (error) {
    // a file that is just being replaced may be empty
    if (error instanceof RunnerError && !signal.aborted) return error;
    throw error;
  }
}

function unreachable(base: string, cause: unknown): RunnerError {
  return new RunnerError(
    "SERVER_UNAVAILABLE",
    `no answer from ${new URL(base).origin} (${reasonOf(cause)})`,
    {
      hint: "check --url, the network and the server's certificate",
      cause,
    },
  );
}

/** Seconds only: a date would need clocks that agree. */
function readRetryAfter(response: Response): number | undefined {
  const seconds = /^\d{1,4}$/.exec(response.headers.get("retry-after") ?? "")?.[0];
  return seconds === undefined ? undefined : Number(seconds) * 1_000;
}

function parseServerUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new RunnerError("USAGE", "--url: expected a URL such as https://migrate.example");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new RunnerError("USAGE", "--url: user, password, query and fragment do not belong here", {
      hint: "a token comes by --token-file or a variable",
    });
  }
  return `${url.origin}${url.pathname.replace(/\/$/, "")}`;
}

async function readBounded(response: Response): Promise<string> {
  if (response.body === null) return "";
  const chunks: Uint8Array[] = [];
  let size = 0;
  const body: AsyncIterable<Uint8Array> = response.body;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > maxAnswerBytes) throw new Error("the answer is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a gateway's HTML page: the status says what there is to say
  }
}

function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return "unknown reason";
  const inner = cause.cause instanceof Error ? cause.cause : cause;
  return "code" in inner && typeof inner.code === "string" ? inner.code : inner.name;
}
