import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { RunnerError, traits } from "../error.ts";
import type { ErrorFields, RunnerErrorCode } from "../error.ts";
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
  readonly labels: Readonly<Record<string, string>>;
  /** milliseconds to wait for the end; 0 does not wait */
  readonly waitMs: number;
}

/** How the client waits and speaks; times in milliseconds. */
export interface RemoteOptions {
  readonly signal: AbortSignal;
  onProgress(run: RemoteRun): void;
}

const errorSchema = v.object({
  code: v.string(),
  message: v.optional(v.string(), ""),
  hint: v.optional(v.nullable(v.string()), null),
  fields: v.optional(v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])), {}),
});

const runSchema = v.object({
  id: v.string(),
  target: v.string(),
  status: v.string(),
  done: v.boolean(),
  outcome: v.nullable(v.string()),
  release: v.nullable(v.object({ digest: v.string(), version: v.nullable(v.number()) })),
  from: v.nullable(v.string()),
  to: v.nullable(v.string()),
  progress: v.object({
    applied: v.number(),
    total: v.number(),
    current: v.nullable(v.string()),
    message: v.optional(v.string(), ""),
  }),
  error: v.nullable(errorSchema),
});

/** A run as the server shows it: the part that the command line reads. */
export type RemoteRun = v.InferOutput<typeof runSchema>;

const problemSchema = v.object({
  code: v.string(),
  detail: v.optional(v.string()),
  title: v.optional(v.string()),
  hint: v.optional(v.string()),
  run: v.optional(v.string()),
  fields: v.optional(v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])), {}),
});

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
  });
  const patience = (): number => Math.max(0, Math.min(pollSeconds, Math.floor((deadline - performance.now()) / 1_000)));
  const send = (path: string, init: RequestInit): Promise<RemoteRun> => callWithRetry(`${base}${path}`, init, request.tokenFile, options.signal);

  let run: RemoteRun | undefined;
  try {
    run = await send("/v1/runs", {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key, prefer: `wait=${patience()}` },
      body,
    });
    options.onProgress(run);
    while (!run.done && performance.now() < deadline) {
      run = await send(`/v1/runs/${encodeURIComponent(run.id)}?wait=${Math.max(1, patience())}`, { method: "GET" });
      options.onProgress(run);
    }
    return run;
  } catch (error) {
    if (!options.signal.aborted) throw error;
    throw stoppedWaiting(base, run, error);
  }
}

function stoppedWaiting(base: string, run: RemoteRun | undefined, cause: unknown): RunnerError {
  if (run === undefined) {
    return new RunnerError("CANCELED", "stopped before the server answered; it may have begun the run", {
      hint: "ask again with the same release: a run that goes on is followed",
      cause,
    });
  }
  return new RunnerError("CANCELED", `stopped waiting; run ${run.id} goes on at the server`, {
    hint: `to stop it, POST ${base}/v1/runs/${run.id}/cancel`,
    fields: { run: run.id },
    cause,
  });
}

/** The error that a run ended with, as one of ours; undefined when it succeeded. */
export function errorOfRun(run: RemoteRun): RunnerError | undefined {
  if (!run.done) {
    return new RunnerError("DEADLINE", `run ${run.id} is still ${run.status}; it goes on at the server`, {
      hint: "ask again with the same release: the same run is followed",
      fields: { run: run.id },
    });
  }
  if (run.status === "succeeded") return undefined;
  const fields: ErrorFields = { ...run.error?.fields, run: run.id };
  if (run.error === null) {
    const code = run.status === "canceled" ? "CANCELED" : "MIGRATION_FAILED";
    return new RunnerError(code, `run ${run.id} ended as ${run.status}`, { fields });
  }
  return new RunnerError(knownCode(run.error.code, 409), run.error.message, {
    ...(run.error.hint === null ? {} : { hint: run.error.hint }),
    fields,
  });
}

function parseServerUrl(text: string): string {
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

async function callWithRetry(url: string, init: RequestInit, tokenFile: string, signal: AbortSignal): Promise<RemoteRun> {
  for (let attempt = 1; ; attempt++) {
    const token = await readSecretFile(tokenFile, "--token-file");
    const answer = await call(url, init, token, signal);
    if (answer.kind === "run") return answer.run;
    if (!answer.isWorthRetry || attempt === attempts) throw answer.error;
    await sleep(answer.retryAfterMs ?? backoffMs * 2 ** (attempt - 1), undefined, { signal });
  }
}

type Answer =
  | { readonly kind: "run"; readonly run: RemoteRun }
  | { readonly kind: "error"; readonly error: RunnerError; readonly isWorthRetry: boolean; readonly retryAfterMs: number | undefined };

async function call(url: string, init: RequestInit, token: string, signal: AbortSignal): Promise<Answer> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, {
      ...init,
      headers: { ...headersOf(init), authorization: `Bearer ${token}`, accept: "application/json" },
      // a token must not follow a redirect to wherever it leads
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
    });
    text = await readBounded(response);
  } catch (cause) {
    signal.throwIfAborted();
    const error = new RunnerError("SERVER_UNAVAILABLE", `no answer from ${new URL(url).origin} (${reasonOf(cause)})`, {
      hint: "check --url, the network and the server's certificate",
      cause,
    });
    return { kind: "error", error, isWorthRetry: true, retryAfterMs: undefined };
  }
  return readAnswer(response, text, url);
}

function readAnswer(response: Response, text: string, url: string): Answer {
  const value = parseJson(text);
  const run = v.safeParse(runSchema, value);
  if ((response.status === 200 || response.status === 202) && run.success) return { kind: "run", run: run.output };
  const problem = v.safeParse(problemSchema, value);
  const retryAfter = /^\d{1,4}$/.exec(response.headers.get("retry-after") ?? "")?.[0];
  const retryAfterMs = retryAfter === undefined ? undefined : Math.min(60, Number(retryAfter)) * 1_000;
  const isWorthRetry = [429, 502, 503, 504].includes(response.status);
  if (!problem.success) {
    const error = new RunnerError("SERVER_UNAVAILABLE", `${new URL(url).origin} answered ${response.status} and nothing that lockkeeper says`, {
      hint: "check --url: it must be a lockkeeper server, or a gateway that passes its answers through",
      fields: { status: response.status },
    });
    return { kind: "error", error, isWorthRetry, retryAfterMs };
  }
  const { code, detail, title, hint, fields, run: runId } = problem.output;
  const error = new RunnerError(knownCode(code, response.status), detail ?? title ?? `the server answered ${response.status}`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { ...fields, status: response.status, ...(runId === undefined ? {} : { run: runId }) },
  });
  return { kind: "error", error, isWorthRetry, retryAfterMs };
}

/** The server may be newer than this client and know more codes. */
function knownCode(code: string, status: number): RunnerErrorCode {
  if (isCode(code)) return code;
  if (status === 401 || status === 403) return "NOT_ALLOWED";
  return status >= 500 ? "SERVER_UNAVAILABLE" : "INVALID_REQUEST";
}

function isCode(code: string): code is RunnerErrorCode {
  return Object.hasOwn(traits, code);
}

function headersOf(init: RequestInit): Record<string, string> {
  return Object.fromEntries(new Headers(init.headers).entries());
}

async function readBounded(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
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
