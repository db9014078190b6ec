import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { explain } from "../../src/http/auth/explain.ts";
import { parsePolicy, type Policy } from "../../src/http/auth/policy.ts";

const text = readFileSync(join(import.meta.dirname, "../../infra/callers.md"), "utf8");
const targets = new Set(["orders-prod", "orders-dev"]);

/** Blocks of the page by their kind and name: `json policy github`. */
const blocks = [...text.matchAll(/^```json (policy|claims) ([a-z]+)\n([\s\S]*?)^```$/gm)].map(
  ([, kind = "", name = "", body = ""]) => ({
    kind,
    name,
    json: JSON.parse(body) as Record<string, unknown>,
  }),
);
const frame = JSON.parse(/^```json\n([\s\S]*?)^```$/m.exec(text)?.[1] ?? "") as Record<string, unknown>;
const policies = blocks.filter(({ kind }) => kind === "policy");
const claims = blocks.filter(({ kind }) => kind === "claims");

function policyOf(...parts: readonly Record<string, unknown>[]): Policy {
  const merged = {
    ...frame,
    issuers: Object.assign({}, ...parts.map((part) => part["issuers"] ?? {})) as object,
    hooks: Object.assign({}, ...parts.map((part) => part["hooks"] ?? {})) as object,
    rules: parts.flatMap((part) => part["rules"] as unknown[]),
  };
  return parsePolicy(JSON.stringify(merged), targets);
}

describe("infra/callers.md", () => {
  test("has a policy for each caller", () => {
    expect(policies.map(({ name }) => name)).toEqual([
      "github",
      "gitlab",
      "google",
      "kubernetes",
      "iam",
      "sts",
      "oauth",
      "hooks",
      "sns",
    ]);
    expect(parsePolicy(JSON.stringify(frame), targets).rules).toEqual([]);
  });

  test.for(policies.map(({ name, json }) => [name, json] as const))(
    "the policy of %s loads without a warning",
    ([, json]) => {
      const policy = policyOf(json);
      expect(policy.warnings).toEqual([]);
      expect(policy.rules.length).toBeGreaterThan(0);
    },
  );

  test("all of them can be in one file", () => {
    const policy = policyOf(...policies.map(({ json }) => json));
    expect(policy.warnings).toEqual([]);
  });

  test.for(claims.map(({ name, json }) => [name, json] as const))(
    "the rule of %s knows the claims that stand beside it, and not one of them less",
    ([name, given]) => {
      const policy = policyOf(policies.find((block) => block.name === name)?.json ?? {});
      const [rule] = policy.rules;
      if (rule?.from.kind !== "issuer") throw new Error("the block's first rule is for no issuer");
      const { issuer, match } = rule.from;
      const [action = "apply", target = ""] = [rule.actions[0], rule.targets[0]];
      const ask = (known: Readonly<Record<string, unknown>>) =>
        explain(
          policy,
          { kind: "issuer", issuer, claims: known },
          { action, target, environment: "production", hasDigest: true },
        ).decision;
      expect(ask(given)).toBe("allowed");
      for (const { claim } of match) {
        const top = claim.startsWith("/") ? claim.split("/")[1]?.replaceAll("~1", "/") : claim;
        expect(ask(Object.fromEntries(Object.entries(given).filter(([one]) => one !== top)))).toBe(
          "stranger",
        );
      }
      if ("iss" in given) expect(policy.issuers[0]?.issuer).toBe(given["iss"]);
      if ("aud" in given) expect([given["aud"]].flat()).toEqual([policy.audience]);
    },
  );

  test("names only hooks, targets and flags that there are", () => {
    const addresses = [...text.matchAll(/\/v1\/hooks\/([a-z-]+)(?:\/([a-z-]+))?/g)];
    const hooks = policyOf(...policies.map(({ json }) => json)).hooks.map(({ name }) => name);
    expect(addresses.length).toBeGreaterThan(3);
    for (const [, hook = "", target] of addresses) {
      expect(hooks).toContain(hook);
      if (target !== undefined) expect([...targets]).toContain(target);
    }
  });
});
