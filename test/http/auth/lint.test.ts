import { describe, expect, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import { parsePolicy } from "../../../src/http/auth/policy.ts";

const addresses = {
  github: "https://token.actions.githubusercontent.com",
  ghes: "https://git.acme.example/_services/token",
  gitlab: "https://gitlab.com",
  own: "https://code.acme.example",
  google: "https://accounts.google.com",
  kubernetes: "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC",
  aws: "https://0f6c2e5a.tokens.sts.global.api.aws",
} as const;

type Match = Readonly<Record<string, unknown>>;

/** What is said about one rule: errors, and warnings where there is no error. */
function saidOf(
  issuer: Readonly<Record<string, unknown>>,
  match: Match,
  actions: readonly string[] = ["apply"],
): { readonly errors: string; readonly warnings: string } {
  const policy = {
    schema: "urn:lockkeeper:policy:v1",
    audience: "https://migrate.example",
    issuers: { it: issuer },
    rules: [{ id: "deploy", issuer: "it", match, allow: { targets: ["*"], actions } }],
  };
  try {
    return { errors: "", warnings: parsePolicy(JSON.stringify(policy), new Set()).warnings.join("; ") };
  } catch (error) {
    if (error instanceof RunnerError && error.code === "CONFIG")
      return { errors: error.message, warnings: "" };
    throw error;
  }
}

function issuerAt(url: string, rest: object = {}): Readonly<Record<string, unknown>> {
  return { issuer: url, jwksFile: "jwks.json", algs: ["RS256"], ...rest };
}

const github = {
  repository_id: "456789",
  repository_owner_id: "123456",
  event_name: ["push", "workflow_dispatch"],
};
const gitlab = { project_id: "42", ref_protected: "true", pipeline_source: ["push", "web"] };
const kubernetes = {
  sub: "system:serviceaccount:orders:migrator",
  "/kubernetes.io/serviceaccount/uid": "0f6c2e5a",
};
const google = { sub: "113774264463038321964", email: "cron@acme.example", email_verified: true };
const aws = {
  sub: "arn:aws:iam::123456789012:role/migrator",
  "/https:~1~1sts.amazonaws.com~1/aws_account": "123456789012",
};
const iam = { kind: "iam", frontend: "lambda-iam" };
const role = { account: "123456789012", role: "deployer" };

describe("a rule that a platform's documents would approve of", () => {
  test.for([
    ["GitHub", issuerAt(addresses.github), github],
    ["GitHub Enterprise Server", issuerAt(addresses.ghes), github],
    ["GitLab", issuerAt(addresses.gitlab), gitlab],
    ["Google", issuerAt(addresses.google, { maxTokenAge: "60m" }), google],
    ["Kubernetes", issuerAt(addresses.kubernetes), kubernetes],
    ["AWS", issuerAt(addresses.aws), aws],
    ["an IAM front", iam, role],
    ["anybody else's issuer", issuerAt("https://idp.acme.example", { typ: "at+jwt" }), { client_id: "ci" }],
  ] as const)("loads without a word: %s", ([, issuer, match]) => {
    expect(saidOf(issuer, match)).toEqual({ errors: "", warnings: "" });
  });
});

describe("a rule with a known trap", () => {
  test.for<[string, Readonly<Record<string, unknown>>, Match, string]>([
    ["GitHub, one claim", issuerAt(addresses.github), { repository_id: "1" }, "compares one claim only"],
    ["GitHub, sub", issuerAt(addresses.github), { ...github, sub: "repo:a/b:ref:x" }, 'compares "sub"'],
    [
      "GitHub, an event of strangers by pointer",
      issuerAt(addresses.github),
      { repository_id: "1", "/event_name": ["push", "pull_request_target"] },
      'takes "pull_request_target"',
    ],
    [
      "GitHub, sub by pointer",
      issuerAt(addresses.github),
      { ...github, "/sub": "repo:a/b" },
      'compares "sub"',
    ],
    [
      "GitHub, names only",
      issuerAt(addresses.github),
      { repository: "acme/shop", event_name: "push" },
      "compares no id",
    ],
    [
      "GitHub, pull_request_target",
      issuerAt(addresses.github),
      { ...github, event_name: ["push", "pull_request_target"] },
      "strangers start",
    ],
    ["GitHub Enterprise Server, one claim", issuerAt(addresses.ghes), { repository_id: "1" }, "one claim"],
    ["GitLab, one claim", issuerAt(addresses.gitlab), { project_id: "42" }, "compares one claim only"],
    [
      "GitLab, a boolean",
      issuerAt(addresses.gitlab),
      { ...gitlab, ref_protected: true },
      'compares "ref_protected" with a boolean',
    ],
    [
      "GitLab, merge requests",
      issuerAt(addresses.gitlab),
      { ...gitlab, pipeline_source: ["push", "merge_request_event"] },
      "forks start",
    ],
    [
      "GitLab, any branch",
      issuerAt(addresses.gitlab),
      { project_id: "42", pipeline_source: "push" },
      'has to compare "ref_protected"',
    ],
    [
      "GitLab, protected or not",
      issuerAt(addresses.gitlab),
      { ...gitlab, ref_protected: ["true", "false"] },
      'has to compare "ref_protected"',
    ],
    [
      "GitLab, names only",
      issuerAt(addresses.gitlab),
      { project_path: "acme/shop", ref_protected: "true" },
      "compares no id",
    ],
    [
      "GitLab on a host of one's own",
      issuerAt(addresses.own, { platform: "gitlab" }),
      { project_id: "42" },
      "compares one claim only",
    ],
    [
      "Google, an e-mail only",
      issuerAt(addresses.google),
      { email: "cron@acme.example", email_verified: true },
      'does not compare "sub"',
    ],
    [
      "Google, an e-mail that nobody verified",
      issuerAt(addresses.google),
      { sub: "1", email: "cron@acme.example" },
      'compare "email_verified" with true',
    ],
    [
      "Google, a text for a boolean",
      issuerAt(addresses.google),
      { ...google, email_verified: "true" },
      'compare "email_verified" with true',
    ],
    [
      "Kubernetes, a whole namespace",
      issuerAt(addresses.kubernetes),
      { "/kubernetes.io/namespace": "orders" },
      "names no service account",
    ],
    [
      "AWS, a request tag",
      issuerAt(addresses.aws),
      { ...aws, "/https:~1~1sts.amazonaws.com~1/request_tags/job": "1" },
      "request tag",
    ],
    ["AWS, no role", issuerAt(addresses.aws), { aud: "https://migrate.example" }, 'does not compare "sub"'],
    ["IAM, a session's name", iam, { ...role, session: "alice" }, 'compares "session"'],
    ["IAM, a role of any account", iam, { role: "deployer" }, 'does not compare "account"'],
    ["IAM, a whole account", iam, { account: "123456789012" }, "everybody of the account"],
  ])("keeps the policy from loading: %s", ([, issuer, match, words]) => {
    expect(saidOf(issuer, match).errors).toContain(words);
  });

  test.for<[string, Readonly<Record<string, unknown>>, Match, string]>([
    ["GitHub, any event", issuerAt(addresses.github), { repository_id: "1", ref: "main" }, "event_name"],
    [
      "GitHub, pull requests",
      issuerAt(addresses.github),
      { ...github, event_name: ["push", "pull_request"] },
      "has not been merged",
    ],
    [
      "GitLab, any pipeline",
      issuerAt(addresses.gitlab),
      { project_id: "42", ref_protected: "true" },
      "pipeline_source",
    ],
    [
      "Kubernetes, a name that can be taken over",
      issuerAt(addresses.kubernetes),
      { sub: kubernetes.sub },
      "/kubernetes.io/serviceaccount/uid",
    ],
    ["AWS, any account", issuerAt(addresses.aws), { sub: aws.sub }, "does not compare the account"],
    ["tokens believed for long", issuerAt(addresses.google, { maxTokenAge: "61m" }), google, "60m"],
  ])("is warned of: %s", ([, issuer, match, words]) => {
    expect(saidOf(issuer, match)).toEqual({ errors: "", warnings: expect.stringContaining(words) });
  });

  test("which only looks may look from any branch of GitLab", () => {
    const match = { project_id: "42", pipeline_source: "push" };
    expect(saidOf(issuerAt(addresses.gitlab), match, ["status", "plan"]).errors).toBe("");
    expect(saidOf(issuerAt(addresses.gitlab), match, ["status", "cancel"]).errors).not.toBe("");
  });
});

describe("an audience", () => {
  test.for([
    "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local",
    "sts.amazonaws.com",
    "https://github.com/acme",
    "sigstore",
  ])("that tokens for somebody else carry is refused: %s", (audience) => {
    const policy = { schema: "urn:lockkeeper:policy:v1", audience, issuers: {}, rules: [] };
    expect(() => parsePolicy(JSON.stringify(policy), new Set())).toThrow("tokens for somebody else");
  });
});
