import { isProduction } from "../../run/production.ts";
import type { Policy } from "./policy.ts";
import type { Action, ClaimMatch, Rule } from "./rule.ts";

/** What is asked of the policy. */
export interface Question {
  readonly action: Action;
  readonly target: string;
  /** of the target; undefined where there is no such target */
  readonly environment: string | undefined;
  /** whether the request names the release's digest, or is one that needs none */
  readonly hasDigest: boolean;
}

/** Allowed and by which rule, or why not. */
export type Decision =
  | { readonly kind: "allowed"; readonly rule: Rule }
  /** no rule knows this caller */
  | { readonly kind: "stranger" }
  /** the caller's rules say nothing of this target, which need not even exist */
  | { readonly kind: "unseen" }
  /** the target is the caller's, the action is not */
  | { readonly kind: "denied"; readonly rules: readonly string[] }
  /** all but the digest is right; it is wanted by the rule, or by the environment whatever the rule says */
  | { readonly kind: "digest-required"; readonly rule: Rule; readonly by: "rule" | "environment" };

/** Whether a request for this changes a database by a release, and so can be asked to name which. */
export function needsDigest(action: Action): boolean {
  return action === "apply" || action === "rollback";
}

/** The rules whose every match holds for a verified token of `issuer`. */
export function rulesFor(
  policy: Policy,
  issuer: string,
  claims: Readonly<Record<string, unknown>>,
): readonly Rule[] {
  return policy.rules.filter(
    ({ from }) =>
      from.kind === "issuer" &&
      from.issuer === issuer &&
      from.match.every((match) => compare(match, claims).isEqual),
  );
}

/** The rules for a webhook that was authenticated. */
export function rulesForHook(policy: Policy, hook: string): readonly Rule[] {
  return policy.rules.filter(({ from }) => from.kind === "hook" && from.hook === hook);
}

/** Whether one of the caller's rules allows what is asked; the first that does is the one that is recorded. */
export function decide(rules: readonly Rule[], question: Question): Decision {
  if (rules.length === 0) return { kind: "stranger" };
  const onTarget = rules.filter((rule) => isFor(rule, question.target));
  if (onTarget.length === 0) return { kind: "unseen" };
  const allowing = onTarget.filter((rule) => rule.actions.includes(question.action));
  const [first] = allowing;
  if (first === undefined) return { kind: "denied", rules: onTarget.map(({ id }) => id) };
  if (question.hasDigest) return { kind: "allowed", rule: first };
  if (question.environment !== undefined && isProduction(question.environment))
    return { kind: "digest-required", rule: first, by: "environment" };
  const lenient = allowing.find((rule) => !rule.isDigestRequired);
  return lenient === undefined
    ? { kind: "digest-required", rule: first, by: "rule" }
    : { kind: "allowed", rule: lenient };
}

/** Whether a rule says anything about a target. */
export function isFor(rule: Rule, target: string): boolean {
  return rule.targets.includes("*") || rule.targets.includes(target);
}

/**
 * One claim held against a rule. Equal in type and value to one of those wanted; `"true"` is not `true`, and what is
 * missing, a list or an object equals nothing.
 */
export function compare(
  { claim, anyOf }: ClaimMatch,
  claims: Readonly<Record<string, unknown>>,
): { readonly found: unknown; readonly isEqual: boolean } {
  const found = claimAt(claims, claim);
  return { found, isEqual: anyOf.some((wanted) => wanted === found) };
}

/** A claim by name, or by JSON Pointer (RFC 6901) through objects; own properties only. */
function claimAt(claims: Readonly<Record<string, unknown>>, claim: string): unknown {
  if (!claim.startsWith("/")) return own(claims, claim);
  const keys = claim
    .slice(1)
    .split("/")
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
  return keys.reduce<unknown>((at, key) => own(at, key), claims);
}

function own(at: unknown, key: string): unknown {
  if (typeof at !== "object" || at === null || Array.isArray(at) || !Object.hasOwn(at, key)) return undefined;
  return Reflect.get(at, key);
}
