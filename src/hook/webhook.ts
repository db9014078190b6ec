import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../error.ts";
import type { Backup, BackupFacts } from "./backup.ts";
import { parseHookUrl } from "./url.ts";

/** milliseconds for one answer; Node's `fetch` itself gives up after five minutes */
const answerMs = 240_000;
/** seconds between two looks at a backup that goes on, where the service does not say, and at most */
const pollSeconds = { usual: 5, most: 60 };

/** Header's name and value, such as `Authorization` with a token. */
export type Header = readonly [name: string, value: string];

/**
 * A backup by an HTTP service: a POST of the facts as JSON. 2xx says that it is made; 202 with a `Location` on the same
 * origin that it goes on, and then that address is asked (GET) until it answers with another 2xx. No redirect is followed.
 *
 * @param options.header - read anew for each backup; holds the secret
 * @throws RunnerError `CONFIG` for a URL that is not https (http only to this machine), or that holds a password
 */
export function webhookBackup(
  text: string,
  options: { readonly timeoutMs: number; header?(): Promise<Header> },
): Backup {
  const url = parseHookUrl(text, "the backup's URL");
  return {
    by: `webhook ${url.origin}`,
    timeoutMs: options.timeoutMs,
    async make(facts, signal) {
      const headers = new Headers({ "user-agent": "lockkeeper" });
      const secret = await options.header?.();
      if (secret !== undefined) headers.set(...secret);
      await callHook(url, facts, headers, signal);
    },
  };
}

/** The first line of a header's file, `Authorization: Bearer …`. */
export function parseHeader(text: string): Header | undefined {
  const [, name, value] = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x20-\x7e]+)$/.exec(text.trim()) ?? [];
  return name === undefined || value === undefined ? undefined : [name, value];
}

async function callHook(url: URL, facts: BackupFacts, headers: Headers, signal: AbortSignal): Promise<void> {
  const posted = new Headers(headers);
  posted.set("content-type", "application/json");
  // The service can tell a repeated request by the run.
  posted.set("idempotency-key", facts.run);
  const body = JSON.stringify({ schema: "urn:lockkeeper:backup:v1", ...facts });
  let answer = await ask(url, { method: "POST", headers: posted, body }, signal);
  let at = url;
  if (answer.status === 202) at = locationOf(answer, url);
  while (answer.status === 202) {
    await sleep(untilNextMs(answer), undefined, { signal }).catch(() => signal.throwIfAborted());
    answer = await ask(at, { method: "GET", headers }, signal);
  }
  if (answer.status < 200 || answer.status > 299) throw refused(url, answer.status);
}

interface HookAnswer {
  readonly status: number;
  readonly location: string | null;
  readonly retryAfter: string | null;
}

async function ask(url: URL, init: RequestInit, signal: AbortSignal): Promise<HookAnswer> {
  const patience = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
  try {
    const response = await fetch(url, { ...init, redirect: "manual", signal: patience });
    // What it says is not for us, and may be long.
    await response.body?.cancel();
    const { status, headers } = response;
    return { status, location: headers.get("location"), retryAfter: headers.get("retry-after") };
  } catch (cause) {
    signal.throwIfAborted();
    throw new RunnerError("BACKUP_FAILED", `the backup's webhook at ${url.origin} ${reasonOf(cause)}`, {
      hint: "nothing was changed; check that the service can be reached from here, and run again",
      cause,
    });
  }
}

function reasonOf(cause: unknown): string {
  if (cause instanceof Error && cause.name === "TimeoutError")
    return `gave no answer within ${answerMs / 1000} s; one that takes longer has to answer 202 with a Location`;
  const inner = cause instanceof Error ? cause.cause : undefined;
  const code = inner instanceof Error && "code" in inner ? ` (${String(inner.code)})` : "";
  return `cannot be reached${code}`;
}

/** Where to ask on; only at the same origin, because the secret header goes there too. */
function locationOf({ location }: HookAnswer, url: URL): URL {
  const at = location === null ? null : URL.parse(location, url.href);
  if (at?.origin === url.origin) return at;
  const what = location === null ? "without a Location" : "with a Location at another place";
  throw new RunnerError(
    "BACKUP_FAILED",
    `the backup's webhook at ${url.origin} answered 202 ${what}; nothing was changed`,
    { hint: "202 says that the backup goes on; its Location, on the same origin, is asked until it is made" },
  );
}

function untilNextMs({ retryAfter }: HookAnswer): number {
  const seconds = /^\d{1,4}$/.test(retryAfter ?? "") ? Number(retryAfter) : pollSeconds.usual;
  return Math.min(Math.max(seconds, 1), pollSeconds.most) * 1000;
}

function refused(url: URL, status: number): RunnerError {
  const what =
    status >= 300 && status < 400 ? `${status}, a redirect, which is not followed` : String(status);
  return new RunnerError(
    "BACKUP_FAILED",
    `the backup's webhook at ${url.origin} answered ${what}; nothing was changed`,
    { hint: "look into that service's log, and run again", fields: { status } },
  );
}
