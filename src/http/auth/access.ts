import { RunnerError } from "../../error.ts";
import type { Target } from "../../runner.ts";
import type { HttpContext, HttpParts } from "../context.ts";
import { decide } from "./decision.ts";
import { hookActions } from "./hook.ts";
import type { Action, Rule } from "./rule.ts";

/** What a caller was let through to. */
export interface Access {
  readonly target: Target;
  readonly rule: Rule;
}

/**
 * Lets the caller through to a target for one action, or refuses.
 *
 * A caller whose rules say nothing of a target cannot tell whether it exists.
 *
 * @param place.run - the id asked for, where the target is only known from it
 * @throws RunnerError `NOT_ALLOWED`, `DIGEST_REQUIRED`, `UNKNOWN_TARGET`, `UNKNOWN_RUN`
 */
export function authorize(
  c: HttpContext,
  parts: HttpParts,
  question: { readonly action: Action; readonly target: string; readonly hasDigest?: boolean },
  place: { readonly run?: string } = {},
): Access {
  c.get("note")["target"] = question.target;
  const { action, target: name, hasDigest = true } = question;
  const environment = parts.targets.get(name)?.environment;
  const decision = decide(c.get("rules"), { action, target: name, environment, hasDigest });
  c.set("asked", { action, target: name, decision });
  switch (decision.kind) {
    case "stranger":
      throw new RunnerError("NOT_ALLOWED", "no rule of the policy matches this caller", {
        hint: "compare the token's claims with the rules for its issuer; lockkeeper policy check explains",
      });
    case "unseen":
      throw unseen(name, place.run);
    case "denied":
      throw new RunnerError("NOT_ALLOWED", `"${action}" is not allowed on "${name}"`, {
        hint: isBeyondHooks(c.get("rules"), action)
          ? `a webhook can be allowed ${hookActions.join(", ")}, and nothing else: ask with a token`
          : `the rules for this caller and target are ${decision.rules.map((id) => `"${id}"`).join(", ")}; one has to list "${action}"`,
        fields: { action },
      });
    case "digest-required":
      throw new RunnerError(
        "DIGEST_REQUIRED",
        decision.by === "rule"
          ? `rule "${decision.rule.id}" wants the digest of the release to be named`
          : `"${name}" is a production database: name the release's digest`,
        {
          hint: 'send "release":{"digest":"sha256:…"} as `lockkeeper publish` printed it',
        },
      );
    case "allowed": {
      const target = parts.targets.get(name);
      if (target === undefined) throw unseen(name, place.run);
      c.get("note")["rule"] = decision.rule.id;
      return { target, rule: decision.rule };
    }
  }
}

/** Whether no policy could allow it: its reader refuses such a rule for a webhook. */
function isBeyondHooks(rules: readonly Rule[], action: Action): boolean {
  return rules.some(({ from }) => from.kind === "hook") && hookActions.every((one) => one !== action);
}

function unseen(target: string, run: string | undefined): RunnerError {
  return run === undefined
    ? new RunnerError(
        "UNKNOWN_TARGET",
        `no target "${target.slice(0, 100)}", or none that this caller may see`,
      )
    : unknownRun(run);
}

/** That a caller has asked for more than an hour has, and when there is more. */
export function rateLimited(limit: string, seconds: number): RunnerError {
  return new RunnerError("RATE_LIMITED", limit, {
    hint: `try again in ${seconds} s`,
    fields: { retryAfterSeconds: seconds },
  });
}

/** The same answer for a run that is not there and for one that the caller may not see. */
export function unknownRun(id: string): RunnerError {
  return new RunnerError("UNKNOWN_RUN", `no run "${id.slice(0, 140)}", or none that this caller may see`);
}

/** The target's name in a run id `<target>.<ULID>`. */
export function targetOfRun(id: string): string {
  const [, target] = /^(.{1,100})\.[0-9A-HJKMNP-TV-Z]{26}$/.exec(id) ?? [];
  if (target === undefined) throw unknownRun(id);
  return target;
}
