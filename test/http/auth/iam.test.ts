import { beforeAll, describe, expect, test } from "vitest";
import { iamPrincipal } from "../../../src/http/auth/iam.ts";
import { createWorld, users, type World } from "../world.ts";

const now = new Date("2026-11-21T06:00:00Z");
const url = [{ name: "aws", frontend: "lambda-iam" }] as const;
const rest = [{ name: "api", frontend: "rest-api-iam" }] as const;
const role = "arn:aws:sts::123456789012:assumed-role/deployer/run-4711";
const user = "arn:aws:iam::123456789012:user/division/alice";

/** A function URL's event for a caller, as AWS's documents have it, less what does not matter here. */
function urlEvent(userArn: string, change: object = {}): object {
  return {
    version: "2.0",
    routeKey: "$default",
    rawPath: "/v1/runs",
    rawQueryString: "",
    headers: { "content-type": "application/json", "x-amz-date": "20261121T060000Z" },
    requestContext: {
      accountId: "999999999999",
      apiId: "url-id",
      authentication: null,
      authorizer: {
        iam: {
          accessKey: "ASIAIOSFODNN7EXAMPLE",
          accountId: "123456789012",
          callerId: userArn.includes("assumed-role")
            ? "AROACKCEVSQ6C2EXAMPLE:run-4711"
            : "AIDACKCEVSQ6C2EXAMPLE",
          cognitoIdentity: null,
          principalOrgId: "o-exampleorgid",
          userArn,
          userId: userArn.includes("assumed-role")
            ? "AROACKCEVSQ6C2EXAMPLE:run-4711"
            : "AIDACKCEVSQ6C2EXAMPLE",
          ...change,
        },
      },
      domainName: "url-id.lambda-url.eu-central-1.on.aws",
      http: {
        method: "POST",
        path: "/v1/runs",
        protocol: "HTTP/1.1",
        sourceIp: "203.0.113.1",
        userAgent: "agent",
      },
      requestId: "e1506fd5-9e7b-434f-bd42-4f8fa224b599",
      stage: "$default",
      time: "21/Nov/2026:06:00:00 +0000",
      timeEpoch: 1795240800000,
    },
    body: "{}",
    isBase64Encoded: false,
  };
}

/** A REST API's event, with the Lambda proxy integration. */
function restEvent(userArn: string | null, stage = "prod"): object {
  return {
    resource: "/{proxy+}",
    path: "/v1/runs",
    httpMethod: "POST",
    headers: {},
    requestContext: {
      accountId: "999999999999",
      apiId: "api-id",
      stage,
      requestId: "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
      identity: {
        cognitoIdentityPoolId: null,
        accountId: userArn === null ? null : "123456789012",
        caller: userArn === null ? null : "AROACKCEVSQ6C2EXAMPLE:run-4711",
        user: userArn === null ? null : "AROACKCEVSQ6C2EXAMPLE:run-4711",
        accessKey: userArn === null ? null : "ASIAIOSFODNN7EXAMPLE",
        sourceIp: "203.0.113.1",
        userArn,
      },
    },
    body: "{}",
    isBase64Encoded: false,
  };
}

describe("a caller that AWS has authenticated", () => {
  test("by a role has the role's name as a claim of its own, and its session as another", () => {
    expect(iamPrincipal(url, urlEvent(role), now)).toEqual({
      issuer: "urn:lockkeeper:iam:lambda-iam",
      issuerName: "aws",
      subject: "arn:aws:sts::123456789012:assumed-role/deployer",
      claims: {
        partition: "aws",
        account: "123456789012",
        role: "deployer",
        session: "run-4711",
        id: "AROACKCEVSQ6C2EXAMPLE",
        org: "o-exampleorgid",
      },
      jti: "e1506fd5-9e7b-434f-bd42-4f8fa224b599",
      expiresAt: new Date(now.getTime() + 15 * 60_000),
    });
  });

  test("by a user has its path and name", () => {
    expect(iamPrincipal(url, urlEvent(user), now)).toMatchObject({
      subject: user,
      claims: { account: "123456789012", user: "division/alice", id: "AIDACKCEVSQ6C2EXAMPLE" },
    });
    const plain = iamPrincipal(url, urlEvent("arn:aws-cn:iam::123456789012:user/alice"), now);
    expect(plain?.claims).toMatchObject({ partition: "aws-cn", user: "alice" });
  });

  test("may come through a REST API", () => {
    expect(iamPrincipal(rest, restEvent(role), now)).toMatchObject({
      issuer: "urn:lockkeeper:iam:rest-api-iam",
      issuerName: "api",
      claims: { account: "123456789012", role: "deployer", session: "run-4711" },
      jti: "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
    });
  });

  test.for<[string, object]>([
    ["the account's root user", urlEvent("arn:aws:iam::123456789012:root")],
    [
      "a federated user, whose name somebody else chose",
      urlEvent("arn:aws:sts::123456789012:federated-user/alice"),
    ],
    ["an account that is not its ARN's", urlEvent(role, { accountId: "210987654321" })],
    ["an ARN with more behind it", urlEvent(`${role}/x`)],
    ["an ARN with a line break", urlEvent(`${role}\n`)],
    ["an ARN that is a list", urlEvent(role, { userArn: [role] })],
    ["an id that is none", urlEvent(role, { callerId: "x" })],
    ["no version", { ...urlEvent(role), version: undefined }],
    ["another version", { ...urlEvent(role), version: "1.0" }],
  ])("is nobody with %s", ([, event]) => {
    expect(iamPrincipal(url, event, now)).toBeUndefined();
  });

  test("is nobody where the gateway let the request pass without a signature", () => {
    expect(iamPrincipal(rest, restEvent(null), now)).toBeUndefined();
    for (const authorizer of [
      undefined,
      null,
      {},
      { jwt: { claims: { sub: role } } },
      { lambda: { userArn: role } },
    ]) {
      const event = { ...urlEvent(role), requestContext: { requestId: "1", authorizer } };
      expect(iamPrincipal(url, event, now)).toBeUndefined();
    }
    for (const event of [undefined, null, "x", 1, [], {}])
      expect(iamPrincipal(url, event, now)).toBeUndefined();
  });

  test("is nobody through another gateway than the configured one, nor from the console's test button", () => {
    expect(iamPrincipal(rest, urlEvent(role), now)).toBeUndefined();
    expect(iamPrincipal(url, restEvent(role), now)).toBeUndefined();
    expect(iamPrincipal([], urlEvent(role), now)).toBeUndefined();
    expect(iamPrincipal(rest, restEvent(role, "test-invoke-stage"), now)).toBeUndefined();
  });
});

describe("a server behind such a gateway", () => {
  const apply = { target: "orders", action: "apply" };
  let world: World;
  beforeAll(async () => {
    world = await createWorld({
      callers: {
        issuers: { aws: { kind: "iam", frontend: "lambda-iam" } },
        rules: [
          {
            id: "by-role",
            issuer: "aws",
            match: { account: "123456789012", role: "deployer" },
            allow: { targets: ["orders"], actions: ["apply", "status"] },
          },
        ],
      },
    });
    await world.bucket.publish(users);
  });

  test("lets a role in that a rule names, and records who it was", async () => {
    const { status, body } = await world.send("POST", "/v1/runs", {
      token: null,
      body: apply,
      event: urlEvent(role),
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      outcome: "applied",
      trigger: {
        kind: "http",
        actor: "arn:aws:sts::123456789012:assumed-role/deployer",
        issuer: "urn:lockkeeper:iam:lambda-iam",
        rule: "by-role",
      },
    });
  });

  test.for([
    ["another role", "arn:aws:sts::123456789012:assumed-role/deployer2/run-4711"],
    ["a session called like the role", "arn:aws:sts::123456789012:assumed-role/other/deployer"],
    ["a role in capitals", "arn:aws:sts::123456789012:assumed-role/Deployer/run-4711"],
    ["a user called like the role", "arn:aws:iam::123456789012:user/deployer"],
  ] as const)("refuses %s", async ([, arn]) => {
    const answer = await world.send("POST", "/v1/runs", { token: null, body: apply, event: urlEvent(arn) });
    expect([answer.status, answer.body.code]).toEqual([403, "NOT_ALLOWED"]);
  });

  test("refuses the role of another account", async () => {
    const arn = role.replace("123456789012", "210987654321");
    const event = urlEvent(arn, { accountId: "210987654321" });
    const answer = await world.send("POST", "/v1/runs", { token: null, body: apply, event });
    expect([answer.status, answer.body.code]).toEqual([403, "NOT_ALLOWED"]);
  });

  test("believes no header, and no event that has nobody in it", async () => {
    const headers = {
      "x-amzn-iam-user-arn": role,
      "x-amzn-request-context": JSON.stringify(urlEvent(role)),
      "x-amz-security-token": "token",
      authorization:
        "AWS4-HMAC-SHA256 Credential=ASIAIOSFODNN7EXAMPLE/20261121/eu-central-1/lambda/aws4_request",
    };
    const event = { ...urlEvent(role), requestContext: { requestId: "1", authorizer: null } };
    for (const more of [{}, { event }, { event: { headers } }]) {
      const answer = await world.send("POST", "/v1/runs", { token: null, body: apply, headers, ...more });
      expect([answer.status, answer.body.code]).toEqual([401, "UNAUTHENTICATED"]);
    }
  });

  test("still takes bearer tokens, where the gateway has authenticated nobody", async () => {
    const token = await world.token();
    expect((await world.send("GET", "/v1/targets/orders", { token, event: {} })).status).toBe(200);
  });

  test("that is not configured for it takes no event for a caller", async () => {
    const plain = await createWorld();
    const answer = await plain.send("POST", "/v1/runs", { token: null, body: apply, event: urlEvent(role) });
    expect([answer.status, answer.body.code]).toEqual([401, "UNAUTHENTICATED"]);
  });
});
