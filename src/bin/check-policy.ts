import { readFile } from "node:fs/promises";
import * as v from "valibot";
import type { PolicyQuestion, PolicyReport, PolicyVerdict } from "../cli/policy-report.ts";
import { RunnerError, type RunnerErrorCode } from "../error.ts";
import { needsDigest, type Decision, type Question } from "../http/auth/decision.ts";
import { explain, type ExplainedCaller } from "../http/auth/explain.ts";
import { actions } from "../http/auth/rule.ts";
import { createTokenVerifier, type IssuerKeys } from "../http/auth/token.ts";
import type { Policy } from "../http/auth/policy.ts";
import { parseStrictJson } from "../http/json.ts";
import { httpLimits } from "../http/limits.ts";
import { loadConfig } from "./config.ts";
import { openIssuers, readPolicy } from "./open-policy.ts";
import { defaultEnvironment } from "./settings.ts";

type Ask = NonNullable<PolicyQuestion["ask"]>;

/**
 * Loads a policy as the server does and, where a request is given, says what it would come to.
 *
 * @throws RunnerError `CONFIG` - what of the policy cannot be used; `USAGE` - what of the question makes no sense
 */
export async function checkPolicy(question: PolicyQuestion): Promise<PolicyReport> {
  const { file, environments } = await placeOf(question);
  const names = environments === undefined ? undefined : new Set(environments.keys());
  const { ask } = question;
  const policy = await readPolicy(file, names);
  // whoever asks about a token need not have the secrets of webhooks
  const issuers = ask?.caller.kind === "token" ? await openIssuers(policy, file) : [];
  return {
    file,
    audience: policy.audience,
    issuers: policy.issuers.length + policy.fronts.length,
    hooks: policy.hooks.length,
    rules: policy.rules.length,
    targetsChecked: names !== undefined,
    warnings: policy.warnings,
    request: ask === undefined ? null : await judge(ask, policy, issuers, environments),
  };
}

/** The policy's file, and the targets that there are with their environments. */
async function placeOf({ policy, config, targets }: PolicyQuestion): Promise<{
  readonly file: string;
  readonly environments: ReadonlyMap<string, string | undefined> | undefined;
}> {
  const named = targets === undefined ? undefined : new Map(targets.map((name) => [name, undefined]));
  if (policy !== undefined && config === undefined) return { file: policy, environments: named };
  const loaded = await loadConfig(config);
  const file = policy ?? loaded.policyFile;
  if (file === undefined)
    throw new RunnerError("USAGE", `${loaded.file} names no policy`, {
      hint: "name one with --policy <file>",
    });
  const environments = new Map(
    [...loaded.targets].map(([name, { environment }]) => [name, environment ?? defaultEnvironment]),
  );
  return { file, environments: named ?? environments };
}

async function judge(
  ask: Ask,
  policy: Policy,
  issuers: readonly IssuerKeys[],
  environments: ReadonlyMap<string, string | undefined> | undefined,
): Promise<PolicyVerdict> {
  const { target } = ask;
  const action = actions.find((one) => one === ask.action);
  if (action === undefined)
    throw new RunnerError("USAGE", `--action: expected ${actions.join(", ")}, got "${ask.action}"`);
  const about = { target, action, rule: null, rules: [], advice: [] };
  const found = await callerOf(ask, policy, issuers);
  if (found.kind === "refused") {
    const { reason, advice, unverified } = found;
    const decision = { allowed: false, decision: "unauthenticated", code: "UNAUTHENTICATED" } as const;
    return { ...about, ...decision, proof: "signature", caller: null, reason, unverified, advice: [advice] };
  }
  const asked: Question = {
    action,
    target,
    environment: environments?.get(target) ?? ask.environment ?? defaultEnvironment,
    hasDigest: ask.hasDigest || !needsDigest(action),
  };
  const { decision, ...explained } = explain(policy, found.caller, asked);
  const isThere = environments === undefined || environments.has(target);
  const advice = isThere ? explained.advice : [`there is no target "${target}"`, ...explained.advice];
  const allowed = decision === "allowed" && isThere;
  return {
    ...about,
    ...explained,
    allowed,
    decision,
    code: allowed ? null : decision === "allowed" ? "UNKNOWN_TARGET" : codes[decision],
    proof: found.proof,
    caller: found.who,
    reason: null,
    unverified: null,
    advice,
  };
}

/** What the server answers. */
const codes: Readonly<Record<Exclude<Decision["kind"], "allowed">, RunnerErrorCode>> = {
  stranger: "NOT_ALLOWED",
  unseen: "UNKNOWN_TARGET",
  denied: "NOT_ALLOWED",
  "digest-required": "DIGEST_REQUIRED",
};

type FoundCaller =
  | {
      readonly kind: "found";
      readonly caller: ExplainedCaller;
      readonly proof: PolicyVerdict["proof"];
      readonly who: NonNullable<PolicyVerdict["caller"]>;
    }
  | {
      readonly kind: "refused";
      readonly reason: string;
      readonly advice: string;
      readonly unverified: Readonly<Record<string, string>>;
    };

async function callerOf(
  { caller }: Ask,
  policy: Policy,
  issuers: readonly IssuerKeys[],
): Promise<FoundCaller> {
  switch (caller.kind) {
    case "hook": {
      const { hook } = caller;
      if (!policy.hooks.some(({ name }) => name === hook))
        throw new RunnerError("USAGE", `--hook: no hook of the policy is called "${hook}"`);
      const who = { name: hook, issuer: `urn:lockkeeper:hook:${hook}`, subject: hook };
      return { kind: "found", caller, proof: "hook", who };
    }
    case "claims":
      return readClaims(caller, policy);
    case "token":
      return verifyToken(caller.token, policy, issuers);
  }
}

async function verifyToken(
  token: string,
  { audience }: Policy,
  issuers: readonly IssuerKeys[],
): Promise<FoundCaller> {
  const verifier = createTokenVerifier({
    audience,
    issuers,
    maxTokenChars: httpLimits.tokenChars,
    now: () => new Date(),
  });
  try {
    const { issuerName, issuer, subject, claims } = await verifier.verify(token);
    const who = { name: issuerName, issuer, subject };
    return { kind: "found", caller: { kind: "issuer", issuer: issuerName, claims }, proof: "signature", who };
  } catch (thrown) {
    if (!(thrown instanceof RunnerError) || thrown.code !== "UNAUTHENTICATED") throw thrown;
    const reason = thrown.cause instanceof Error ? thrown.cause.message : thrown.message;
    return {
      kind: "refused",
      reason,
      advice: adviceAbout(thrown.cause, audience),
      unverified: saidBy(token),
    };
  }
}

/** What whoever asks for the token, or writes the policy, would do; `cause` is the library's, known by its code. */
function adviceAbout(cause: unknown, audience: string): string {
  const { code, claim } = v.parse(tokenFault, cause);
  if (code === "ERR_JWS_SIGNATURE_VERIFICATION_FAILED")
    return "the issuer's keys of the policy did not sign it: compare jwksUri or jwksFile with the issuer that made it";
  if (code === "ERR_JWKS_NO_MATCHING_KEY")
    return "the issuer's keys of the policy have none of its kid: take its newest key set, if it is a file";
  switch (claim) {
    case "aud":
      return `ask its issuer for a token for the audience "${audience}"`;
    case "exp":
      return "it has expired: ask for a fresh token for each request, and use it at once";
    case "iat":
      return "it is too old for maxTokenAge of its issuer, or from the future: ask for a fresh one, or compare the clocks";
    default:
      return "get a token of an issuer of the policy, for its audience, and use it at once";
  }
}

const tokenFault = v.fallback(
  v.object({ code: v.optional(v.unknown()), claim: v.optional(v.unknown()) }),
  {},
);

/** What decides whether a token is accepted, as the token has it. */
function saidBy(token: string): Readonly<Record<string, string>> {
  const [header = {}, payload = {}] = token.split(".").slice(0, 2).map(readPart);
  const { alg, kid, typ } = header;
  const { iss, aud, iat, exp } = payload;
  const said = Object.entries({ alg, kid, typ, iss, aud, iat: timeOf(iat), exp: timeOf(exp) });
  return Object.fromEntries(
    said.map(([name, value]) => [name, JSON.stringify(value)?.slice(0, 200) ?? "missing"]),
  );
}

function timeOf(value: unknown): unknown {
  return typeof value === "number" && Math.abs(value) < 8e12 ? new Date(value * 1000).toISOString() : value;
}

function readPart(part: string): Readonly<Record<string, unknown>> {
  try {
    return v.parse(anObject, JSON.parse(Buffer.from(part, "base64url").toString()));
  } catch {
    return {};
  }
}

const anObject = v.record(v.string(), v.unknown());
const maxDepth = 16;

async function readClaims(
  { file, issuer }: Extract<Ask["caller"], { readonly kind: "claims" }>,
  policy: Policy,
): Promise<FoundCaller> {
  const claims = parseClaims(await readText(file), file);
  const names = [...policy.issuers, ...policy.fronts].map(({ name }) => name);
  const name = issuer ?? policy.issuers.find((entry) => entry.issuer === claims["iss"])?.name;
  if (name === undefined || !names.includes(name)) {
    const what = name === undefined ? 'the claim "iss" is of no issuer of the policy' : `no issuer "${name}"`;
    throw new RunnerError("USAGE", `--claims: ${what}`, { hint: `--issuer: ${names.join(", ")}` });
  }
  const text = (claim: unknown): string => (typeof claim === "string" ? claim : "(no subject)");
  const who = { name, issuer: text(claims["iss"] ?? name), subject: text(claims["sub"]) };
  return { kind: "found", caller: { kind: "issuer", issuer: name, claims }, proof: "claims", who };
}

function parseClaims(text: string, file: string): Readonly<Record<string, unknown>> {
  try {
    return v.parse(anObject, parseStrictJson(text, maxDepth));
  } catch (cause) {
    const reason = cause instanceof SyntaxError ? cause.message : "not a JSON object";
    throw new RunnerError("USAGE", `--claims: "${file}": ${reason}`);
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new RunnerError("USAGE", `--claims: "${path}" cannot be read (${code})`, { cause });
  }
}
