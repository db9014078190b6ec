import { RunnerError } from "../error.ts";
import { createHookVerifier } from "../http/auth/hook-verifier.ts";
import { createSnsVerifier } from "../http/auth/sns.ts";
import { createTokenVerifier } from "../http/auth/token.ts";
import type { HttpDeps } from "../http/context.ts";
import { httpLimits } from "../http/limits.ts";
import type { Config } from "./config.ts";
import { openPolicy } from "./open-policy.ts";

/** What an API needs to know callers, and what each of them may do. */
export type Callers = Pick<HttpDeps, "policy" | "verifier" | "hooks">;

/**
 * Whom an API believes, by the policy that a configuration names. What is doubtful in it is logged.
 *
 * @throws RunnerError `CONFIG` — no policy is named; or what of it, its keys or its secrets cannot be used
 */
export async function openCallers(
  config: Config,
  { log, now }: Pick<HttpDeps, "log" | "now">,
): Promise<Callers> {
  const { policy, issuers, hooks } = await openPolicy(policyFileOf(config), new Set(config.targets.keys()));
  for (const message of policy.warnings) log({ level: "warn", event: "policy.warning", fields: { message } });
  return {
    policy,
    verifier: createTokenVerifier({
      audience: policy.audience,
      issuers,
      maxTokenChars: httpLimits.tokenChars,
      now,
    }),
    hooks: createHookVerifier({ hooks, sns: createSnsVerifier({ fetch, now }), now }),
  };
}

function policyFileOf({ file, policyFile }: Config): string {
  if (policyFile !== undefined) return policyFile;
  throw new RunnerError("CONFIG", `${file}: policy is missing, so nobody could be let in`, {
    hint: "name a policy file with issuers and rules, for instance policy: policy.json",
  });
}
