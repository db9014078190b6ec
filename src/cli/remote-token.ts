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
   * @throws RunnerError `USAGE`; `SERVER_UNAVAILABLE` where GitHub gives none
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
/** Milliseconds that a token of GitHub's is shown for looks; it lives for five minutes, and a server may want it younger. */
const reuseMs = 60_000;
/** Milliseconds for one answer of GitHub's, and tries. */
const requestMs = 10_000;
const attempts = 4;
/** Milliseconds before the second try; doubles. */
const backoffMs = 500;
/** Characters of an answer: more than any token. */
const maxAnswerChars = 64 * 1024;

/**
 * The first of: a file, a named variable, `LOCKKEEPER_TOKEN`, and a job on GitHub that may ask for tokens.
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
  const url = variables["ACTIONS_ID_TOKEN_REQUEST_URL"];
  const secret = variables["ACTIONS_ID_TOKEN_REQUEST_TOKEN"];
  if (isSet(url) && isSet(secret)) return githubTokens(url, secret, audience);
  throw new RunnerError("USAGE", "no token: nothing says who is asking", {
    hint:
      variables["GITHUB_ACTIONS"] === "true"
        ? "give the job `permissions: id-token: write`; then a token is asked for by itself"
        : `give --token-file or --token-env, or put the token into ${usualVariable}`,
  });
}

function tokenOfVariable(name: string, variables: Variables): TokenSource {
  const token = variables[name]?.trim();
  if (!isSet(token)) throw new RunnerError("USAGE", `--token-env: the variable ${name} is not set, or empty`);
  if (!/^[\x21-\x7e]+$/.test(token))
    throw new RunnerError("USAGE", `--token-env: what the variable ${name} holds is not a token`);
  return { next: () => Promise.resolve(token) };
}

/**
 * Tokens of a job on GitHub, asked for as its documentation says.
 * https://docs.github.com/actions/security-for-github-actions/security-hardening-your-deployments/configuring-openid-connect-in-cloud-providers
 */
function githubTokens(url: string, secret: string, audience: string): TokenSource {
  const asked = URL.parse(url);
  if (asked === null) throw new RunnerError("USAGE", "ACTIONS_ID_TOKEN_REQUEST_URL is not a URL");
  asked.searchParams.set("audience", audience);
  let last: { readonly token: string; readonly at: number } | undefined;
  return {
    async next(isFresh, signal) {
      if (!isFresh && last !== undefined && performance.now() - last.at < reuseMs) return last.token;
      const token = await askGithub(asked, secret, signal);
      last = { token, at: performance.now() };
      return token;
    },
  };
}

async function askGithub(url: URL, secret: string, signal: AbortSignal): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    const answer = await askOnce(url, secret, signal);
    if (answer.kind === "token") return answer.token;
    if (!answer.isWorthRetry || attempt === attempts) {
      throw new RunnerError("SERVER_UNAVAILABLE", `GitHub gave no token (${answer.why})`, {
        hint: "check that the job has `permissions: id-token: write`",
      });
    }
    await sleep(backoffMs * 2 ** (attempt - 1), undefined, { signal });
  }
}

const answerSchema = v.object({ value: v.pipe(v.string(), v.regex(/^[\x21-\x7e]+$/)) });

type Asked =
  | { readonly kind: "token"; readonly token: string }
  | { readonly kind: "none"; readonly why: string; readonly isWorthRetry: boolean };

async function askOnce(url: URL, secret: string, signal: AbortSignal): Promise<Asked> {
  try {
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${secret}`, accept: "application/json" },
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(requestMs)]),
    });
    const text = await response.text();
    const read = v.safeParse(answerSchema, text.length > maxAnswerChars ? undefined : parseJson(text));
    if (response.ok && read.success) return { kind: "token", token: read.output.value };
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
