import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { makeWiring } from "../../src/bin/wire.ts";
import type { PolicyReport } from "../../src/cli/policy-report.ts";
import { tempFolder } from "../support/release.ts";
import { createIssuer, testAudience, type TestIssuer } from "../support/token.ts";
import { call, type Call } from "./terminal.ts";

interface Site {
  readonly issuer: TestIssuer;
  readonly folder: string;
  /** `lockkeeper policy check …` in the folder; words that begin with @ are files there */
  check(...words: readonly string[]): Promise<Call>;
  report(...words: readonly string[]): Promise<PolicyReport>;
}

const github = "https://token.actions.githubusercontent.com";
const config = `version: 1
policy: policy.json
targets:
  orders-prod: { engine: postgres, environment: production, stream: orders, source: ./bucket, database: { url: "postgres://nobody@127.0.0.1:1/none" } }
  orders-dev: { engine: postgres, stream: orders, source: ./bucket, database: { url: "postgres://nobody@127.0.0.1:1/none" } }
`;

async function createSite(
  files: (issuer: TestIssuer) => Promise<Readonly<Record<string, string>>> = () => Promise.resolve({}),
  change: object = {},
): Promise<Site> {
  const issuer = await createIssuer({ url: github });
  const policy = {
    schema: "urn:lockkeeper:policy:v1",
    audience: testAudience,
    issuers: {
      github: { issuer: github, jwksFile: "jwks.json", algs: ["ES256"] },
      aws: { kind: "iam", frontend: "lambda-iam" },
    },
    hooks: { flux: { kind: "hmac", header: "X-Signature", secretFile: "secret" } },
    rules: [
      {
        id: "deploy",
        issuer: "github",
        match: { repository_id: "456789", environment: "production", event_name: ["push", "release"] },
        allow: { targets: ["orders-prod"], actions: ["apply", "status"] },
      },
      {
        id: "preview",
        issuer: "github",
        match: { repository_id: "456789", environment: "dev", event_name: "push" },
        allow: { targets: ["orders-dev"], actions: ["status"] },
      },
      { id: "flux", hook: "flux", allow: { targets: ["*"], actions: ["apply"] } },
      {
        id: "role",
        issuer: "aws",
        match: { account: "123456789012", role: "deployer" },
        allow: { targets: ["orders-dev"], actions: ["apply"] },
      },
    ],
    ...change,
  };
  const { path, ...made } = await tempFolder({
    "policy.json": JSON.stringify(policy),
    "jwks.json": issuer.jwks,
    "lockkeeper.yaml": config,
    secret: "0123456789abcdef0123456789abcdef",
    ...(await files(issuer)),
  });
  onTestFinished(() => made[Symbol.asyncDispose]());
  const check = (...words: readonly string[]): Promise<Call> =>
    call(["policy", "check", ...words.map((word) => word.replace(/^@/, `${join(path, ".")}/`))], {
      wiring: makeWiring({}),
    });
  return {
    issuer,
    folder: path,
    check,
    report: async (...words) => {
      const { stdout } = await check(...words, "--output", "json");
      return JSON.parse(stdout) as PolicyReport;
    },
  };
}

const production = { repository_id: "456789", environment: "production", event_name: "push" };
const withToken = (claims: Readonly<Record<string, unknown>>) => async (issuer: TestIssuer) => ({
  token: await issuer.token(claims),
});
const apply = [
  "--config",
  "@lockkeeper.yaml",
  "--token-file",
  "@token",
  "--target",
  "orders-prod",
  "--action",
  "apply",
];

describe("policy check without a request", () => {
  test("says that a policy loads, what is in it, and what is unwise", async () => {
    const rule = {
      id: "r",
      issuer: "github",
      match: { repository_id: "1", ref: "main" },
      allow: { targets: ["*"], actions: ["apply"] },
    };
    const { check } = await createSite(undefined, { rules: [rule] });
    const { code, stdout } = await check("--config", "@lockkeeper.yaml");
    expect(code).toBe(0);
    expect(stdout).toContain("2 issuers, 1 hook, 1 rule, audience https://migrate.test");
    expect(stdout).toContain('rule "r" does not compare "event_name"');
    expect(stdout).not.toContain("not checked");
  });

  test("says when it does not know the targets, and holds the rules against those that are named", async () => {
    const { check } = await createSite();
    expect((await check("--policy", "@policy.json")).stdout).toContain("targets were not checked");
    const named = await check("--policy", "@policy.json", "--targets", "orders-prod,other");
    expect(named).toMatchObject({ code: 2 });
    expect(named.stderr).toContain('no target is called "orders-dev"');
    expect((await check("--policy", "@policy.json", "--targets", "orders-prod,orders-dev")).code).toBe(0);
  });

  test("names every problem of a policy that does not load, with exit code 2", async () => {
    const { check } = await createSite(undefined, { colour: "red", audience: 7 });
    const { code, stderr } = await check("--policy", "@policy.json");
    expect(code).toBe(2);
    expect(stderr).toContain("/colour: is not a known field");
    expect(stderr).toContain("/audience: has to be a text");
  });
});

describe("policy check of a token", () => {
  test("says by which rule a request is allowed", async () => {
    const { check, report, folder } = await createSite(withToken(production));
    const { code, stdout } = await check(...apply, "--digest");
    expect(code).toBe(0);
    expect(stdout).toContain("allowed   apply on orders-prod, by rule deploy");
    expect(stdout).toContain('= event_name: "push"');
    expect(stdout).toContain('≠ environment: wants "dev", is "production"');
    expect((await report(...apply, "--digest")).request).toMatchObject({
      allowed: true,
      decision: "allowed",
      code: null,
      proof: "signature",
      rule: "deploy",
      caller: { name: "github", issuer: github, subject: "ci" },
    });
    expect(folder).not.toBe("");
  });

  test("knows that a production database takes nothing without a digest, and a status needs none", async () => {
    const { report } = await createSite(withToken(production));
    expect((await report(...apply)).request).toMatchObject({
      allowed: false,
      code: "DIGEST_REQUIRED",
      advice: [`name the release's digest: "orders-prod" is a production database`],
    });
    expect((await report(...apply.slice(0, -1), "status")).request).toMatchObject({ allowed: true });
  });

  test("says of each claim what the rule wants and what the token has, and what would have to change", async () => {
    const { check, report } = await createSite(
      withToken({ ...production, environment: "staging", event_name: ["push"] }),
    );
    const { code, stdout } = await check(...apply, "--digest");
    expect(code).toBe(23);
    expect(stdout).toContain("refused   apply on orders-prod: NOT_ALLOWED");
    expect((await report(...apply, "--digest")).request?.advice).toEqual([
      'for rule "deploy", environment would have to be "production"; it is "staging"',
      'for rule "deploy", event_name would have to be "push" or "release"; it is ["push"]',
    ]);
  });

  test("tells an action, or a target, that no rule of the caller names", async () => {
    const { report } = await createSite(withToken(production));
    const ask = (target: string, action: string) =>
      report(
        "--config",
        "@lockkeeper.yaml",
        "--token-file",
        "@token",
        "--target",
        target,
        "--action",
        action,
        "--digest",
      );
    expect((await ask("orders-prod", "rollback")).request).toMatchObject({
      code: "NOT_ALLOWED",
      decision: "denied",
      advice: ['add "rollback" to the actions of rule "deploy", or ask for another'],
    });
    expect((await ask("orders-dev", "status")).request).toMatchObject({
      code: "UNKNOWN_TARGET",
      decision: "unseen",
      advice: ['add "orders-dev" to the targets of rule "deploy"'],
    });
    expect((await ask("billing", "status")).request).toMatchObject({
      allowed: false,
      code: "UNKNOWN_TARGET",
    });
  });

  test.for<[string, (issuer: TestIssuer) => Promise<string>, string, string]>([
    [
      "for another audience",
      (issuer) => issuer.token({ ...production, aud: "https://github.com/acme" }),
      '"aud"',
      'a token for the audience "https://migrate.test"',
    ],
    [
      "that has expired",
      (issuer) => issuer.token(production, { now: new Date(Date.now() - 3_600_000) }),
      '"exp"',
      "it has expired",
    ],
    [
      "of an issuer that is not in the policy",
      (issuer) => issuer.token({ iss: "https://evil.test" }),
      "issuer",
      "of an issuer of the policy",
    ],
    ["that is none", () => Promise.resolve("nonsense"), "not a compact JWT", "get a token"],
    [
      "with another signature",
      async (issuer) => issuer.token(production, { privateKey: (await createIssuer()).privateKey }),
      "signature",
      "compare jwksUri or jwksFile",
    ],
  ])(
    "says why a token %s is not accepted, what it says of itself, and what to do",
    async ([, make, words, advice]) => {
      const { check, report } = await createSite(async (issuer) => ({ token: await make(issuer) }));
      const { code, stdout, stderr } = await check(...apply, "--digest");
      expect(code).toBe(23);
      expect(stdout).toContain("UNAUTHENTICATED");
      const { request } = await report(...apply, "--digest");
      expect(request).toMatchObject({ allowed: false, code: "UNAUTHENTICATED", caller: null });
      expect(request?.reason).toContain(words);
      expect(request?.advice).toEqual([expect.stringContaining(advice)]);
      expect(Object.keys(request?.unverified ?? {})).toContain("aud");
      expect(stdout + stderr).not.toContain("eyJ");
    },
  );
});

describe("policy check of claims, and of a hook", () => {
  const claimsOf = (claims: object) => () => Promise.resolve({ "claims.json": JSON.stringify(claims) });
  const ask = ["--config", "@lockkeeper.yaml", "--target", "orders-dev", "--action", "apply"];

  test("takes claims without a signature, and says so", async () => {
    const { check, report } = await createSite(claimsOf({ iss: github, sub: "x", ...production }));
    const words = [
      ...ask.slice(0, 2),
      "--claims",
      "@claims.json",
      "--target",
      "orders-prod",
      "--action",
      "status",
    ];
    const { code, stdout } = await check(...words);
    expect(code).toBe(0);
    expect(stdout).toContain("no signature was checked");
    expect((await report(...words)).request).toMatchObject({ proof: "claims", allowed: true });
  });

  test("takes claims of an issuer by its name, such as AWS's", async () => {
    const { report } = await createSite(claimsOf({ account: "123456789012", role: "deployer" }));
    const { request } = await report(...ask, "--claims", "@claims.json", "--issuer", "aws");
    expect(request).toMatchObject({ allowed: true, rule: "role" });
  });

  test("explains a webhook", async () => {
    const { report } = await createSite();
    expect((await report(...ask, "--hook", "flux")).request).toMatchObject({
      allowed: true,
      proof: "hook",
      rule: "flux",
    });
    const inProduction = await report(...ask.slice(0, 3), "orders-prod", ...ask.slice(4), "--hook", "flux");
    expect(inProduction.request).toMatchObject({ allowed: false, code: "DIGEST_REQUIRED" });
  });

  test.for([
    [["--hook", "argo"], 'no hook of the policy is called "argo"'],
    [["--hook", "flux", "--claims", "@claims.json"], "one of them, not several"],
    [["--claims", "@claims.json"], 'the claim "iss" is of no issuer'],
    [["--claims", "@claims.json", "--issuer", "gitlab"], 'no issuer "gitlab"'],
    [["--claims", "@none.json"], "cannot be read (ENOENT)"],
    [["--claims", "@secret"], "not JSON"],
    [["--hook", "flux", "--action", "delete"], "--action: expected status"],
    [[], "--action is given, and nobody who asks for it"],
  ] as const)("refuses a question that makes no sense: %s", async ([words, message]) => {
    const { check } = await createSite(claimsOf({ sub: "x" }));
    const { code, stderr } = await check(...ask, ...words);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  test("refuses a token without saying what it is for", async () => {
    const { check } = await createSite();
    const { code, stderr } = await check("--policy", "@policy.json", "--hook", "flux");
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining("--target <name> and --action <action> are missing"),
    ]);
  });
});
