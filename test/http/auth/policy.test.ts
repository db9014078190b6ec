import { describe, expect, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import { parsePolicy } from "../../../src/http/auth/policy.ts";

const targets = new Set(["orders-prod", "orders-staging"]);

const good = {
  schema: "urn:lockkeeper:policy:v1",
  audience: "https://migrate.example",
  issuers: {
    github: {
      issuer: "https://token.actions.githubusercontent.com",
      jwksUri: "https://token.actions.githubusercontent.com/.well-known/jwks",
      algs: ["RS256"],
      maxTokenAge: "10m",
    },
    cluster: { issuer: "https://cluster.example", jwksFile: "cluster.jwks.json", algs: ["RS256", "ES256"] },
  },
  rules: [
    {
      id: "deploy",
      issuer: "github",
      match: { repository_id: "456789", event_name: ["push", "workflow_dispatch"] },
      allow: { targets: ["orders-prod"], actions: ["apply", "plan", "status"] },
      require: { digest: true },
      limit: { perHour: 20 },
    },
    {
      id: "look",
      issuer: "cluster",
      match: { email_verified: true },
      allow: { targets: ["*"], actions: ["status"] },
    },
  ],
};

function refusalOf(
  change: (policy: ReturnType<typeof structuredClone<Record<string, unknown>>>) => void,
): string {
  const policy: Record<string, unknown> = structuredClone(good);
  change(policy);
  return refusalOfText(JSON.stringify(policy));
}

function refusalOfText(text: string): string {
  try {
    parsePolicy(text, targets);
  } catch (error) {
    if (error instanceof RunnerError && error.code === "CONFIG") return error.message;
    throw error;
  }
  throw new Error("the policy was accepted");
}

/** One rule, changed. */
function refusalOfRule(change: Readonly<Record<string, unknown>>): string {
  return refusalOf((policy) => (policy["rules"] = [{ ...good.rules[1], ...change }]));
}

describe("a policy file", () => {
  test("is read with its defaults", () => {
    const policy = parsePolicy(JSON.stringify(good), targets);
    expect(policy.audience).toBe("https://migrate.example");
    expect(policy.issuers).toEqual([
      {
        name: "github",
        issuer: "https://token.actions.githubusercontent.com",
        keys: { kind: "uri", uri: "https://token.actions.githubusercontent.com/.well-known/jwks" },
        algorithms: ["RS256"],
        maxTokenAgeMs: 600_000,
        typ: null,
      },
      {
        name: "cluster",
        issuer: "https://cluster.example",
        keys: { kind: "file", path: "cluster.jwks.json" },
        algorithms: ["RS256", "ES256"],
        maxTokenAgeMs: 600_000,
        typ: null,
      },
    ]);
    expect(policy.rules[0]).toEqual({
      id: "deploy",
      from: {
        kind: "issuer",
        issuer: "github",
        match: [
          { claim: "repository_id", anyOf: ["456789"] },
          { claim: "event_name", anyOf: ["push", "workflow_dispatch"] },
        ],
      },
      targets: ["orders-prod"],
      actions: ["apply", "plan", "status"],
      isDigestRequired: true,
      perHour: 20,
    });
    expect(policy.rules[1]).toMatchObject({ isDigestRequired: false, perHour: null });
    expect(policy.warnings).toEqual([]);
  });

  test("without rules loads and allows nothing", () => {
    expect(parsePolicy(JSON.stringify({ ...good, rules: [] }), targets).rules).toEqual([]);
  });

  test("is refused with every problem at once, each with its place", () => {
    const message = refusalOf((policy) => {
      policy["rules"] = [
        { ...good.rules[0], id: "twice", allow: { targets: ["orders-*"], actions: ["apply"] } },
        { ...good.rules[1], id: "twice", issuer: "gitlab", match: {} },
      ];
    });
    expect(message).toContain('the id "twice" is there twice');
    expect(message).toContain('/rules/0/allow/targets/0: no target is called "orders-*"');
    expect(message).toContain('/rules/1/issuer: no issuer is called "gitlab"');
    expect(message).toContain("/rules/1/match: needs at least one claim");
  });

  test("names several problems of its shape at once", () => {
    const message = refusalOf((policy) => {
      policy["colour"] = "red";
      delete policy["audience"];
      policy["issuers"] = {
        a: { issuer: "https://a.test", jwksFile: "a.json", algs: ["HS256"], maxTokenAge: "10 minutes" },
      };
    });
    expect(message).toContain("/colour: is not a known field");
    expect(message).toContain("/audience: is missing");
    expect(message).toContain("/issuers/a/algs/0: one of RS256");
    expect(message).toContain("/issuers/a/maxTokenAge: a number with s, m or h");
  });

  test.for([
    ["unknown field in a rule", { effect: "deny" }, "/rules/0/effect: is not a known field"],
    [
      "a number that reads like its neighbour",
      { match: { id: 9007199254740992 } },
      "/rules/0/match/id: a whole number below 2^53",
    ],
    [
      "such a number in a list",
      { match: { id: [1, 1e300] } },
      "/rules/0/match/id/1: a whole number below 2^53",
    ],
    ["unknown action", { allow: { targets: ["*"], actions: ["down"] } }, "/rules/0/allow/actions/0"],
    ["no action", { allow: { targets: ["*"], actions: [] } }, "/rules/0/allow/actions: may not be empty"],
    [
      "no target",
      { allow: { targets: [], actions: ["status"] } },
      "/rules/0/allow/targets: may not be empty",
    ],
    [
      "unknown target",
      { allow: { targets: ["billing"], actions: ["status"] } },
      'no target is called "billing"',
    ],
    ["a claim compared with null", { match: { sub: null } }, "/rules/0/match/sub"],
    ["a claim compared with an object", { match: { sub: { like: "x" } } }, "/rules/0/match/sub"],
    ["a claim compared with an empty list", { match: { sub: [] } }, "/rules/0/match/sub"],
    ["a claim compared with nested lists", { match: { sub: [["x"]] } }, "/rules/0/match/sub"],
    ["a wrong JSON Pointer", { match: { "/a~2b": "x" } }, "JSON Pointer"],
    ["a limit of nothing", { limit: { perHour: 0 } }, "/rules/0/limit/perHour: at least 1"],
    [
      "a requirement that does not exist",
      { require: { signature: false } },
      "/rules/0/require/signature: is not a known field",
    ],
    [
      "digest required by a text",
      { require: { digest: "true" } },
      "/rules/0/require/digest: has to be true or false",
    ],
  ] as const)("is refused with: %s", ([, change, words]) => {
    expect(refusalOfRule(change)).toContain(words);
  });

  test.for([
    ["http", "http://issuer.example/jwks"],
    ["an address", "https://127.0.0.1/jwks"],
    ["an IPv6 address", "https://[::1]/jwks"],
    ["an address written as one number", "https://2130706433/jwks"],
    ["a hexadecimal address", "https://0x7f000001/jwks"],
    ["a user", "https://user:pass@issuer.example/jwks"],
    ["a file", "file:///etc/passwd"],
    ["no address at all", "jwks"],
  ])("is refused when keys come from: %s", ([, jwksUri]) => {
    const message = refusalOf(
      (policy) =>
        (policy["issuers"] = {
          cluster: { issuer: "https://c.test", jwksUri, algs: ["RS256"] },
          github: good.issuers.github,
        }),
    );
    expect(message).toContain("/issuers/cluster/jwksUri: an https address with a host name");
  });

  test("is refused when an issuer has no keys, or two kinds of them", () => {
    const issuer = { issuer: "https://c.test", algs: ["RS256"] };
    for (const keys of [{}, { jwksUri: "https://c.test/jwks", jwksFile: "c.json" }]) {
      expect(
        refusalOf((policy) => (policy["issuers"] = { ...good.issuers, cluster: { ...issuer, ...keys } })),
      ).toContain("needs either jwksUri or jwksFile");
    }
  });

  test("is refused when two entries name the same issuer, so that the weaker one cannot win", () => {
    expect(
      refusalOf(
        (policy) =>
          (policy["issuers"] = { ...good.issuers, other: { ...good.issuers.github, algs: ["ES256"] } }),
      ),
    ).toContain("is there twice");
  });

  test("is refused when a field is there twice, or when it is no JSON", () => {
    const text = JSON.stringify(good);
    expect(refusalOfText(text.replace('"rules":', '"rules":[],"rules":'))).toContain("twice");
    expect(refusalOfText(text.replace('"id":"deploy"', '"id":"x","\\u0069d":"deploy"'))).toContain("twice");
    expect(refusalOfText("schema: x")).toContain("not JSON");
    expect(refusalOfText(`${text} `.repeat(2))).toContain("not JSON");
    expect(refusalOfText('{"__proto__":{}}')).toContain("__proto__");
  });
});

describe("hooks in a policy", () => {
  const flux = { kind: "hmac", header: "X-Signature", prefix: "sha256=", secretFile: "flux.secret" };
  const rule = { id: "flux", hook: "flux", allow: { targets: ["orders-staging"], actions: ["apply"] } };
  const withHooks = (hooks: object, rules: readonly object[] = [rule]): string =>
    JSON.stringify({ ...good, hooks, rules });

  test("are read, each with its way of signing", () => {
    const { hooks, rules } = parsePolicy(
      withHooks({
        flux,
        github: { kind: "github", secretFile: ["new", "old"] },
        deployer: { kind: "standard-webhooks", secretFile: "s" },
        bucket: { kind: "sns", topicArn: "arn:aws:sns:eu-central-1:123456789012:releases" },
      }),
      targets,
    );
    expect(hooks).toEqual([
      {
        kind: "hmac",
        name: "flux",
        header: "x-signature",
        prefix: "sha256=",
        encoding: "hex",
        pingHeader: null,
        secretFiles: ["flux.secret"],
      },
      {
        kind: "hmac",
        name: "github",
        header: "x-hub-signature-256",
        prefix: "sha256=",
        encoding: "hex",
        pingHeader: "x-github-event",
        secretFiles: ["new", "old"],
      },
      { kind: "standard-webhooks", name: "deployer", secretFiles: ["s"] },
      { kind: "sns", name: "bucket", topicArn: "arn:aws:sns:eu-central-1:123456789012:releases" },
    ]);
    expect(rules[0]).toMatchObject({ id: "flux", from: { kind: "hook", hook: "flux" } });
  });

  test.for<[string, object, readonly object[], string]>([
    ["an unknown kind", { flux: { kind: "basic", secretFile: "s" } }, [], "/hooks/flux/kind: one of hmac"],
    ["no kind", { flux: { secretFile: "s" } }, [], "/hooks/flux/kind: is missing"],
    [
      "a secret in the policy",
      { flux: { ...flux, secret: "x" } },
      [],
      "/hooks/flux/secret: is not a known field",
    ],
    ["no secret", { flux: { kind: "github" } }, [], "/hooks/flux/secretFile: is missing"],
    [
      "three secrets",
      { flux: { kind: "github", secretFile: ["a", "b", "c"] } },
      [],
      "/hooks/flux/secretFile",
    ],
    [
      "a header that means something else",
      { flux: { ...flux, header: "Authorization" } },
      [],
      "/hooks/flux/header",
    ],
    [
      "a topic with a star",
      { b: { kind: "sns", topicArn: "arn:aws:sns:eu-central-1:123456789012:*" } },
      [],
      "/hooks/b/topicArn",
    ],
    [
      "a queue for a topic",
      { b: { kind: "sns", topicArn: "arn:aws:sqs:eu-central-1:123456789012:q" } },
      [],
      "/hooks/b/topicArn",
    ],
    ["a hook that is not there", {}, [rule], 'no hook is called "flux"'],
    [
      "hook and issuer in one rule",
      { flux },
      [{ ...rule, issuer: "github" }],
      "/rules/0/hook: stands in place",
    ],
    [
      "hook and match in one rule",
      { flux },
      [{ ...rule, match: { sub: "x" } }],
      "/rules/0/hook: stands in place",
    ],
    ["neither of them", { flux }, [{ ...rule, hook: undefined }], "/rules/0/issuer: is missing"],
    [
      "more than a webhook may be allowed",
      { flux },
      [{ ...rule, allow: { targets: ["*"], actions: ["apply", "rollback", "unlock"] } }],
      'a webhook cannot be allowed "rollback", "unlock"',
    ],
  ])("are refused with: %s", ([, hooks, rules, words]) => {
    expect(refusalOfText(withHooks(hooks, rules))).toContain(words);
  });
});

describe("an IAM front in a policy", () => {
  const iam = { kind: "iam", frontend: "lambda-iam" };

  test("is an issuer without keys, and off unless it is there", () => {
    const policy = parsePolicy(JSON.stringify({ ...good, issuers: { ...good.issuers, aws: iam } }), targets);
    expect(policy.fronts).toEqual([{ name: "aws", frontend: "lambda-iam" }]);
    expect(policy.issuers.map(({ name }) => name)).toEqual(["github", "cluster"]);
    expect(parsePolicy(JSON.stringify(good), targets).fronts).toEqual([]);
  });

  test.for<[string, object, string]>([
    ["an unknown frontend", { aws: { ...iam, frontend: "alb" } }, "/issuers/aws/frontend: one of lambda-iam"],
    ["keys", { aws: { ...iam, jwksFile: "x" } }, "/issuers/aws/jwksFile: is not a known field"],
    ["the same frontend twice", { aws: iam, other: iam }, 'the frontend "lambda-iam" is there twice'],
    ["another kind", { aws: { ...iam, kind: "saml" } }, "/issuers/aws/kind"],
  ])("is refused with: %s", ([, more, words]) => {
    expect(refusalOf((policy) => (policy["issuers"] = { ...good.issuers, ...more }))).toContain(words);
  });

  test.for(["at+jwt/x/y", "", "at jwt", "a".repeat(101)])(
    "a typ that is no media type is refused: %s",
    (typ) => {
      const issuers = { ...good.issuers, cluster: { ...good.issuers.cluster, typ } };
      expect(refusalOf((policy) => (policy["issuers"] = issuers))).toContain("/issuers/cluster/typ");
    },
  );
});
