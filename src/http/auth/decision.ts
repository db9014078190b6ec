import type { Action, ClaimValue, Policy, Rule } from "./policy.ts";

/** What is asked of the policy. */
export interface Question {
  readonly action: Action;
  readonly target: string;
  /** whether the request names the release's digest */
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
  /** all but the digest is right */
  | { readonly kind: "digest-required"; readonly rule: Rule };

/** The rules whose every match holds for a verified token of `issuer`. */
export function rulesFor(
  policy: Policy,
  issuer: string,
  claims: Readonly<Record<string, unknown>>,
): readonly Rule[] {
  return policy.rules.filter(
    (rule) =>
      rule.issuer === issuer &&
      rule.match.every(({ claim, anyOf }) => matches(claimAt(claims, claim), anyOf)),
  );
}

/** Whether one of the caller's rules allows what is asked; the first that does is the one that is recorded. */
export function decide(rules: readonly Rule[], question: Question): Decision {
  if (rules.length === 0) return { kind: "stranger" };
  const onTarget = rules.filter(
    (rule) => rule.targets.includes("*") || rule.targets.includes(question.target),
  );
  if (onTarget.length === 0) return { kind: "unseen" };
  const allowing = onTarget.filter((rule) => rule.actions.includes(question.action));
  const rule = allowing.find((candidate) => question.hasDigest || !candidate.isDigestRequired);
  if (rule !== undefined) return { kind: "allowed", rule };
  const strict = allowing[0];
  return strict === undefined
    ? { kind: "denied", rules: onTarget.map(({ id }) => id) }
    : { kind: "digest-required", rule: strict };
}

/** Equal in type and value to one of them; `"true"` is not `true`, and what is missing, a list or an object equals nothing. */
function matches(value: unknown, anyOf: readonly ClaimValue[]): boolean {
  return anyOf.some((wanted) => wanted === value);
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
