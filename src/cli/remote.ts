import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { RunnerError } from "../error.ts";
import { readAnswer } from "./remote-run.ts";
import type { Answer, RemoteRun } from "./remote-run.ts";
import { readSecretFile } from "./secret-file.ts";

/** What a server is asked for. */
export interface RemoteRequest {
  /** the server, with or without a path */
  readonly url: string;
  /** read anew for each request */
  readonly tokenFile: string;
  readonly target: string;
  readonly release: string | undefined;
  readonly action: "apply" | "rollback";
  readonly to: string | undefined;
  readonly plan: string | undefined;
  readonly onFailure: "keep" | "rollback" | undefined;
  readonly allowsBreaking: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** milliseconds to wait for the end; 0 does not wait */
  readonly waitMs: number;
}

/** How the client waits and speaks; times in milliseconds. */
export interface RemoteOptions {
  readonly signal: AbortSignal;
  onProgress(run: RemoteRun): void;
}

/** Seconds one request asks the server to wait: short, so that progress is seen; the server answers at once when the run ends. */
const pollSeconds = 2;
/** Milliseconds until a request without an answer is given up; more than the server may wait. */
const requestMs = 60_000;
/** Tries of one request in a row. */
const attempts = 5;
/** Milliseconds before the second try; doubles. A server's `Retry-After` wins. */
const backoffMs = 500;
/** Bytes of an answer. */
const maxAnswerBytes = 4 * 1024 * 1024;

/**
 * Asks for a run and follows it to its end, or until `waitMs` is over.
 *
 * All requests of one call carry one idempotency key, so that a repeated one cannot make a second run.
 *
 * @throws RunnerError with the server's own code where it refused; `SERVER_UNAVAILABLE` where it could not be reached;
 *   `CANCELED` where the signal aborted: the run then goes on
 */
export async function triggerRun(request: RemoteRequest, options: RemoteOptions): Promise<RemoteRun> {
  const base = parseServerUrl(request.url);
  const deadline = performance.now() + request.waitMs;
  const key = randomUUID();
  const body = JSON.stringify({
    target: request.target,
    action: request.action,
    release: request.release === undefined ? null : { digest: request.release },
    to: request.to ?? null,
    plan: request.plan ?? null,
    labels: request.labels,
    // an older server does not know these fields
    ...(request.onFailure === undefined ? {} : { onFailure: request.onFailure }),
    ...(request.allowsBreaking ? { allow: ["breaking"] } : {}),
  });
  const patience = (): number =>
    Math.max(0, Math.min(pollSeconds, Math.floor((deadline - performance.now()) / 1_000)));
  const send = (path: string, init: RequestInit): Promise<RemoteRun> =>
    callWithRetry(`${base}${path}`, init, request.tokenFile, options.signal);

  let run: RemoteRun | undefined;
  try {
    run = await send("/v1/runs", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key, prefer: `wait=${patience()}` },
      body,
    });
    options.onProgress(run);
    while (!run.done && performance.now() < deadline) {
      run = await send(`/v1/runs/${encodeURIComponent(run.id)}?wait=${Math.max(1, patience())}`, {
        method: "GET",
      });
      options.onProgress(run);
    }
    return run;
  } catch (error) {
    if (!options.signal.aborted) throw error;
    throw stoppedWaiting(base, run, options.signal.reason, error);
  }
}

function stoppedWaiting(
  base: string,
  run: RemoteRun | undefined,
  reason: unknown,
  cause: unknown,
): RunnerError {
  const fields = reason instanceof RunnerError ? reason.fields : {};
  if (run === undefined) {
    return new RunnerError("CANCELED", "stopped before the server answered; it may have begun the run", {
      hint: "ask again with the same release: a run that goes on is followed",
      fields,
      cause,
    });
  }
  return new RunnerError("CANCELED", `stopped waiting; run ${run.id} goes on at the server`, {
    hint: `to stop it, POST ${base}/v1/runs/${run.id}/cancel`,
    fields: { ...fields, run: run.id },
    cause,
  });
}

/**
 * The server's address without a slash at its end.
 *
 * @throws RunnerError `USAGE`
 */
export function parseServerUrl(text: string): string {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new RunnerError("USAGE", "--url: expected a URL such as https://migrate.example");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new RunnerError("USAGE", "--url: user, password, query and fragment do not belong here", {
      hint: "the token comes from --token-file",
    });
  }
  return `${url.origin}${url.pathname.replace(/\/$/, "")}`;
}

async function callWithRetry(
  url: string,
  init: RequestInit,
  tokenFile: string,
  signal: AbortSignal,
): Promise<RemoteRun> {
  for (let attempt = 1; ; attempt++) {
    const token = await readSecretFile(tokenFile, "--token-file");
    const answer = await call(url, init, token, signal);
    if (answer.kind === "run") return answer.run;
    if (!answer.isWorthRetry || attempt === attempts) throw answer.error;
    await sleep(answer.retryAfterMs ?? backoffMs * 2 ** (attempt - 1), undefined, { signal });
  }
}

async function call(url: string, init: RequestInit, token: string, signal: AbortSignal): Promise<Answer> {
  const told = await fetchText(url, init, token, signal);
  if (told instanceof RunnerError)
    return { kind: "error", error: told, isWorthRetry: true, retryAfterMs: undefined };
  return readAnswer(told.response, told.text, url);
}

/** One request as the token's caller, and its answer whatever it says; an error where none came. */
export async function fetchText(
  url: string,
  init: RequestInit,
  token: string,
  signal: AbortSignal,
): Promise<{ readonly response: Response; readonly text: string } | RunnerError> {
  try {
    const response = await fetch(url, {
      ...init,
      headers: { ...headersOf(init), authorization: `Bearer ${token}`, accept: "application/json" },
      // a token must not follow a redirect to wherever it leads
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
    });
    return { response, text: await readBounded(response) };
  } catch (cause) {
    signal.throwIfAborted();
    return new RunnerError(
      "SERVER_UNAVAILABLE",
      `no answer from ${new URL(url).origin} (${reasonOf(cause)})`,
      {
        hint: "check --url, the network and the server's certificate",
        cause,
      },
    );
  }
}

function headersOf(init: RequestInit): Record<string, string> {
  return Object.fromEntries(new Headers(init.headers).entries());
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

function reasonOf(cause: unknown): string {
  if (!(cause instanceof Error)) return "unknown reason";
  const inner = cause.cause instanceof Error ? cause.cause : cause;
  return "code" in inner && typeof inner.code === "string" ? inner.code : inner.name;
}
