import { describe, expect, test } from "vitest";
import { decide, rulesFor, type Decision, type Question } from "../../../src/http/auth/decision.ts";
import type { Policy } from "../../../src/http/auth/policy.ts";
import type { ClaimValue, Rule } from "../../../src/http/auth/rule.ts";

function ruleOf(
  change: Partial<Omit<Rule, "from">> & {
    readonly issuer?: string;
    readonly match?: Readonly<Record<string, ClaimValue | readonly ClaimValue[]>>;
  } = {},
): Rule {
  const { issuer = "ci", match = { sub: "ci" }, ...rest } = change;
  return {
    id: "rule",
    targets: ["orders-prod"],
    actions: ["apply", "status"],
    isDigestRequired: false,
    perHour: null,
    ...rest,
    from: {
      kind: "issuer",
      issuer,
      match: Object.entries(match).map(([claim, value]) => ({
        claim,
        anyOf: typeof value === "object" ? value : [value],
      })),
    },
  };
}

function policyOf(...rules: readonly Rule[]): Policy {
  return { audience: "a", issuers: [], fronts: [], hooks: [], rules, warnings: [] };
}

/** Whether a rule that compares `match` knows a token with `claims`. */
function knows(
  match: Readonly<Record<string, ClaimValue | readonly ClaimValue[]>>,
  claims: Readonly<Record<string, unknown>>,
): boolean {
  return rulesFor(policyOf(ruleOf({ match })), "ci", claims).length === 1;
}

describe("a rule's match", () => {
  test.for<
    [
      string,
      Readonly<Record<string, ClaimValue | readonly ClaimValue[]>>,
      Readonly<Record<string, unknown>>,
      boolean,
    ]
  >([
    ["equal text", { ref: "main" }, { ref: "main" }, true],
    ["another text", { ref: "main" }, { ref: "Main" }, false],
    ["a text that begins alike", { ref: "main" }, { ref: "main-evil" }, false],
    ["a pattern, which is only a text", { ref: "*" }, { ref: "main" }, false],
    ["one of a list", { ref: ["main", "release"] }, { ref: "release" }, true],
    ["none of a list", { ref: ["main", "release"] }, { ref: "dev" }, false],
    ["all of several claims", { a: "1", b: "2" }, { a: "1", b: "2" }, true],
    ["one of several claims only", { a: "1", b: "2" }, { a: "1", b: "3" }, false],
    ["true with true", { ok: true }, { ok: true }, true],
    ["an empty text", { ref: "x" }, { ref: "" }, false],
    ["zero and false", { n: 0 }, { n: false }, false],
    [
      "a pointer into an object",
      { "/kubernetes.io/namespace": "orders" },
      { "kubernetes.io": { namespace: "orders" } },
      true,
    ],
    [
      "a pointer with escapes",
      { "/https:~1~1sts.amazonaws.com~1/account": "1" },
      { "https://sts.amazonaws.com/": { account: "1" } },
      true,
    ],
    ["a pointer's tilde", { "/a~01": "x" }, { "a~1": "x" }, true],
    ["a claim whose name has a slash but is no pointer", { "a/b": "x" }, { "a/b": "x", a: { b: "y" } }, true],
    ["a pointer into nothing", { "/a/b/c": "x" }, { a: {} }, false],
    ["a pointer into a text", { "/a/length": 1 }, { a: "x" }, false],
  ])("%s", ([, match, claims, isKnown]) => {
    expect(knows(match, claims)).toBe(isKnown);
  });

  test.for<
    [string, Readonly<Record<string, ClaimValue | readonly ClaimValue[]>>, Readonly<Record<string, unknown>>]
  >([
    ["the text true is not true", { ref_protected: true }, { ref_protected: "true" }],
    ["true is not the text true", { ref_protected: "true" }, { ref_protected: true }],
    ["a number is not its text", { repository_id: "1" }, { repository_id: 1 }],
    ["a list never matches, even one that holds the value", { groups: "admin" }, { groups: ["admin"] }],
    ["a list does not match a list", { groups: ["admin"] }, { groups: ["admin"] }],
    ["an object never matches", { sub: "x" }, { sub: { toString: "x" } }],
    ["a missing claim never matches", { environment: "production" }, {}],
    ["null never matches", { environment: "production" }, { environment: null }],
    ["a pointer does not go into lists", { "/groups/0": "admin" }, { groups: ["admin"] }],
    ["inherited names are no claims", { "/constructor/name": "Object" }, {}],
    ["inherited names are no claims by name either", { toString: "x" }, {}],
    ["nor are those of texts", { "/sub/constructor/name": "String" }, { sub: "x" }],
  ])("attack 44: %s", ([, match, claims]) => {
    expect(knows(match, claims)).toBe(false);
  });

  test("holds only for tokens of the rule's own issuer", () => {
    const policy = policyOf(ruleOf({ issuer: "github" }));
    expect(rulesFor(policy, "gitlab", { sub: "ci" })).toEqual([]);
    expect(rulesFor(policy, "github", { sub: "ci" })).toHaveLength(1);
  });
});

describe("what rules allow", () => {
  const ask = (rules: readonly Rule[], question: Partial<Question> = {}): Decision =>
    decide(rules, {
      action: "apply",
      target: "orders-prod",
      environment: "default",
      hasDigest: true,
      ...question,
    });

  test("nothing, without a rule that knows the caller", () => {
    expect(ask([])).toEqual({ kind: "stranger" });
  });

  test("only the actions listed", () => {
    expect(ask([ruleOf()])).toMatchObject({ kind: "allowed", rule: { id: "rule" } });
    for (const action of [
      "rollback",
      "unlock",
      "cancel",
      "repair",
      "adopt",
      "baseline",
      "retry",
      "verify",
      "plan",
    ] as const) {
      expect(ask([ruleOf()], { action })).toEqual({ kind: "denied", rules: ["rule"] });
    }
  });

  test("only the targets listed, and * for all", () => {
    expect(ask([ruleOf()], { target: "orders-prod-2" })).toEqual({ kind: "unseen" });
    expect(ask([ruleOf({ targets: ["*"] })], { target: "anything" })).toMatchObject({ kind: "allowed" });
  });

  test("a right on one target by one rule does not join an action of another rule", () => {
    const rules = [
      ruleOf({ id: "a", targets: ["orders-prod"], actions: ["status"] }),
      ruleOf({ id: "b", targets: ["orders-staging"], actions: ["apply"] }),
    ];
    expect(ask(rules)).toEqual({ kind: "denied", rules: ["a"] });
  });

  test("no request without a digest where the rule wants one", () => {
    const strict = ruleOf({ id: "strict", isDigestRequired: true });
    expect(ask([strict], { hasDigest: false })).toMatchObject({
      kind: "digest-required",
      rule: { id: "strict" },
    });
    expect(ask([strict])).toMatchObject({ kind: "allowed" });
    expect(ask([strict, ruleOf({ id: "free" })], { hasDigest: false })).toMatchObject({
      kind: "allowed",
      rule: { id: "free" },
    });
  });
});
