import { setTimeout as sleep } from "node:timers/promises";
import * as v from "valibot";
import { RunnerError } from "../error.ts";
import type { Variables } from "./context.ts";
import { readSecretFile } from "./secret-file.ts";

/** Where the bearer tokens of requests come from. */
export interface TokenSource {
  /**
   * A token for one request.
   *
   * @param isFresh - one that was never shown before: for a request that changes something, or after a refusal
   * @throws RunnerError `USAGE`; `SERVER_UNAVAILABLE` where a platform gives none
   */
  next(isFresh: boolean, signal: AbortSignal): Promise<string>;
}

/** Where a caller said that its tokens are. */
export interface TokenChoice {
  readonly file: string | undefined;
  /** name of the variable */
  readonly variable: string | undefined;
  /** whom a token that is asked for is made for */
  readonly audience: string;
}

/** The variable that is looked at when nothing was said; GitLab fills it, when a job's `id_tokens` names it. */
const usualVariable = "LOCKKEEPER_TOKEN";
/** Milliseconds that a token is shown for looks; GitHub's and Codefresh's live for five minutes, and a server may want them younger. */
const reuseMs = 60_000;
/** Milliseconds for one answer of a platform's, and tries. */
const requestMs = 10_000;
const attempts = 4;
/** Milliseconds before the second try; doubles. */
const backoffMs = 500;
/** Characters of an answer: more than any token. */
const maxAnswerChars = 64 * 1024;

/** A platform that gives the jobs on it tokens, one for each time that they ask. */
interface Platform {
  readonly name: string;
  /** variables with where to ask, and with what to show there */
  readonly url: string;
  readonly secret: string;
  authorization(secret: string): string;
  /** name of the token in the answer */
  readonly field: string;
  /** what a job needs in order to be given any */
  readonly hint: string;
}

/**
 * https://docs.github.com/actions/reference/security/oidc and
 * https://codefresh.io/docs/docs/integrations/oidc-pipelines/
 */
const platforms: readonly Platform[] = [
  {
    name: "GitHub",
    url: "ACTIONS_ID_TOKEN_REQUEST_URL",
    secret: "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    authorization: (secret) => `Bearer ${secret}`,
    field: "value",
    hint: "check that the job has `permissions: id-token: write`",
  },
  {
    name: "Codefresh",
    url: "CF_OIDC_REQUEST_URL",
    secret: "CF_OIDC_REQUEST_TOKEN",
    authorization: (secret) => secret,
    field: "id_token",
    hint: "use the step obtain-oidc-id-token and --token-env ID_TOKEN",
  },
];

/**
 * The first of: a file, a named variable, `LOCKKEEPER_TOKEN`, and a platform that gives its jobs tokens.
 *
 * @throws RunnerError `USAGE` — none of them is there
 */
export function chooseTokens(choice: TokenChoice, variables: Variables): TokenSource {
  const { file, variable, audience } = choice;
  if (file !== undefined && variable !== undefined)
    throw new RunnerError("USAGE", "--token-file and --token-env do not go together");
  if (file !== undefined) return { next: () => readSecretFile(file, "--token-file") };
  const named = variable ?? (isSet(variables[usualVariable]) ? usualVariable : undefined);
  if (named !== undefined) return tokenOfVariable(named, variables);
  for (const platform of platforms) {
    const [url, secret] = [variables[platform.url], variables[platform.secret]];
    if (isSet(url) && isSet(secret)) return tokensOf(platform, url, secret, audience);
  }
  throw new RunnerError("USAGE", "no token: nothing says who is asking", {
    hint:
      variables["GITHUB_ACTIONS"] === "true"
        ? "give the job `permissions: id-token: write`; then a token is asked for by itself"
        : `give --token-file, or put the token into ${usualVariable}`,
  });
}

function tokenOfVariable(name: string, variables: Variables): TokenSource {
  const token = variables[name]?.trim();
  if (!isSet(token)) throw new RunnerError("USAGE", `--token-env: the variable ${name} is not set, or empty`);
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new RunnerError("USAGE", `--token-env: what the variable ${name} holds is not a token`);
  return { next: () => Promise.resolve(token) };
}

function tokensOf(platform: Platform, url: string, secret: string, audience: string): TokenSource {
  const asked = URL.parse(url);
  if (asked === null) throw new RunnerError("USAGE", `${platform.url} is not a URL`);
  asked.searchParams.set("audience", audience);
  let last: { readonly token: string; readonly at: number } | undefined;
  return {
    async next(isFresh, signal) {
      if (!isFresh && last !== undefined && performance.now() - last.at < reuseMs) return last.token;
      const token = await ask(platform, asked, secret, signal);
      last = { token, at: performance.now() };
      return token;
    },
  };
}

async function ask(platform: Platform, url: URL, secret: string, signal: AbortSignal): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const answer = await askOnce(platform, url, secret, signal);
    if (answer.kind === "token") return answer.token;
    if (!answer.isWorthRetry || attempt === attempts) {
      throw new RunnerError("SERVER_UNAVAILABLE", `${platform.name} gave no token (${answer.why})`, {
        hint: platform.hint,
      });
    }
    await sleep(backoffMs * 2 ** (attempt - 1), undefined, { signal });
  }
}

const tokenSchema = v.pipe(v.string(), v.regex(/^[\x21-\x7e]+$/));

type Asked =
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "none"; readonly why: string; readonly isWorthRetry: boolean };

async function askOnce(
  { authorization, field }: Platform,
  url: URL,
  secret: string,
  signal: AbortSignal,
): Promise<Asked> {
  try {
    const response = await fetch(url, {
      headers: { authorization: authorization(secret), accept: "application/json" },
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
    });
    const text = await response.text();
    const answerSchema = v.record(v.string(), v.unknown());
    const read = v.safeParse(answerSchema, text.length > maxAnswerChars ? undefined : parseJson(text));
    const token = v.safeParse(tokenSchema, read.success ? read.output[field] : undefined);
    if (response.ok && token.success) return { kind: "token", token: token.output };
    const isWorthRetry = response.status === 429 || response.status >= 500;
    return { kind: "none", why: `its answer was ${response.status}`, isWorthRetry };
  } catch (cause) {
    signal.throwIfAborted();
    const why = cause instanceof Error ? cause.name : "unknown reason";
    return { kind: "none", why: `no answer, ${why}`, isWorthRetry: true };
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isSet(text: string | undefined): text is string {
  return text !== undefined && text !== "";
}
