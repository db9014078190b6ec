import { compare, decide, isFor, rulesFor, rulesForHook, type Decision, type Question } from "./decision.ts";
import type { Policy } from "./policy.ts";
import type { ClaimValue, Rule } from "./rule.ts";

/** Whose request is to be explained. */
export type ExplainedCaller =
  | {
      readonly kind: "issuer";
      /** name of an issuer of the policy */
      readonly issuer: string;
      readonly claims: Readonly<Record<string, unknown>>;
    }
  | { readonly kind: "hook"; readonly hook: string };

/** A decision with all that led to it. */
export interface Explanation {
  readonly decision: Decision["kind"];
  /** rule that allows it */
  readonly rule: string | null;
  /** every rule for this issuer or hook */
  readonly rules: readonly ExplainedRule[];
  /** what would have to change; empty where it is allowed */
  readonly advice: readonly string[];
}

/** A rule held against a caller and a question. */
export interface ExplainedRule {
  readonly id: string;
  /** knows the caller: all its claims are equal */
  readonly matches: boolean;
  readonly claims: readonly ExplainedClaim[];
  readonly isForTarget: boolean;
  readonly allowsAction: boolean;
  readonly isDigestRequired: boolean;
}

/** One claim of a rule. */
export interface ExplainedClaim {
  readonly claim: string;
  readonly wanted: readonly ClaimValue[];
  /** as JSON, shortened; null where the claim is missing */
  readonly found: string | null;
  readonly isEqual: boolean;
}

/** Decides as the server does, and says why. */
export function explain(policy: Policy, caller: ExplainedCaller, question: Question): Explanation {
  const known =
    caller.kind === "hook"
      ? rulesForHook(policy, caller.hook)
      : rulesFor(policy, caller.issuer, caller.claims);
  const decision = decide(known, question);
  const rules = policy.rules
    .filter(({ from }) =>
      from.kind === "issuer"
        ? caller.kind === "issuer" && from.issuer === caller.issuer
        : caller.kind === "hook" && from.hook === caller.hook,
    )
    .map((rule) => explainRule(rule, known.includes(rule), caller, question));
  return {
    decision: decision.kind,
    rule: decision.kind === "allowed" ? decision.rule.id : null,
    rules,
    advice: adviceFor(decision, rules, question),
  };
}

function explainRule(
  rule: Rule,
  matches: boolean,
  caller: ExplainedCaller,
  question: Question,
): ExplainedRule {
  const claims = caller.kind === "issuer" ? caller.claims : {};
  const match = rule.from.kind === "issuer" ? rule.from.match : [];
  return {
    id: rule.id,
    matches,
    claims: match.map((one) => {
      const { found, isEqual } = compare(one, claims);
      return { claim: one.claim, wanted: one.anyOf, found: shown(found), isEqual };
    }),
    isForTarget: isFor(rule, question.target),
    allowsAction: rule.actions.includes(question.action),
    isDigestRequired: rule.isDigestRequired,
  };
}

function shown(found: unknown): string | null {
  const text = JSON.stringify(found);
  if (text === undefined) return null;
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`;
}

function adviceFor(
  decision: Decision,
  rules: readonly ExplainedRule[],
  { action, target }: Question,
): readonly string[] {
  switch (decision.kind) {
    case "allowed":
      return [];
    case "digest-required":
      return [
        decision.by === "environment"
          ? `name the release's digest: "${target}" is a production database`
          : `name the release's digest: rule "${decision.rule.id}" requires it`,
      ];
    case "denied":
      return decision.rules.map((id) => `add "${action}" to the actions of rule "${id}", or ask for another`);
    case "unseen":
      return rules
        .filter(({ matches }) => matches)
        .map(({ id }) => `add "${target}" to the targets of rule "${id}"`);
    case "stranger":
      return strangerAdvice(rules, { action, target });
  }
}

/** Of the rules that would allow it, those that fewest claims are missing from. */
function strangerAdvice(
  rules: readonly ExplainedRule[],
  { action, target }: Pick<Question, "action" | "target">,
): readonly string[] {
  const wanted = rules.filter(({ isForTarget, allowsAction }) => isForTarget && allowsAction);
  if (wanted.length === 0) return [`write a rule for this caller that allows "${action}" on "${target}"`];
  const missing = (rule: ExplainedRule): readonly ExplainedClaim[] =>
    rule.claims.filter(({ isEqual }) => !isEqual);
  const fewest = Math.min(...wanted.map((rule) => missing(rule).length));
  return wanted
    .filter((rule) => missing(rule).length === fewest)
    .flatMap((rule) =>
      missing(rule).map(
        ({ claim, wanted: values, found }) =>
          `for rule "${rule.id}", ${claim} would have to be ${values.map((value) => JSON.stringify(value)).join(" or ")}; it is ${found ?? "missing"}`,
      ),
    );
}
