import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gatewayOf, type Gateway } from "../../src/bin/lambda/gateway.ts";
import { ownMessageOf } from "../../src/bin/lambda/message.ts";
import { iamPrincipal } from "../../src/http/auth/iam.ts";

function gateway(event: unknown): Gateway {
  const found = gatewayOf(event);
  if (found === undefined) throw new Error("no gateway's event");
  return found;
}

const functionUrl = {
  version: "2.0",
  routeKey: "$default",
  rawPath: "/v1/runs/orders.01JD",
  rawQueryString: "wait=25&x=a%20b&x=2",
  cookies: ["a=1", "b=2"],
  headers: { accept: "application/json", "x-forwarded-for": "203.0.113.9", host: "evil.example" },
  requestContext: {
    accountId: "anonymous",
    domainName: "abc.lambda-url.eu-west-1.on.aws",
    http: { method: "GET", path: "/v1/runs/orders.01JD", sourceIp: "192.0.2.7" },
    stage: "$default",
  },
  isBase64Encoded: false,
};

const restApi = {
  resource: "/{proxy+}",
  path: "/v1/runs",
  httpMethod: "POST",
  headers: { Accept: "b", "Content-Type": "application/json" },
  multiValueHeaders: { Accept: ["a", "b"], "Content-Type": ["application/json"] },
  queryStringParameters: { x: "2" },
  multiValueQueryStringParameters: { x: ["a b", "2"], y: ["1&2"] },
  requestContext: {
    path: "/prod/v1/runs",
    stage: "prod",
    domainName: "id.execute-api.eu-west-1.amazonaws.com",
    identity: { sourceIp: "192.0.2.8" },
  },
  body: Buffer.from('{"ü":1}').toString("base64"),
  isBase64Encoded: true,
};

const balancer = {
  requestContext: { elb: { targetGroupArn: "arn:aws:elasticloadbalancing:…" } },
  httpMethod: "GET",
  path: "/health/live",
  queryStringParameters: { x: "a%20b" },
  headers: { "x-forwarded-for": "203.0.113.9, 192.0.2.9" },
  body: "",
  isBase64Encoded: false,
};

describe("a request of a gateway", () => {
  test("comes whole from a Function URL or an HTTP API", () => {
    const { request, sourceIp, publicUrl } = gateway(functionUrl);
    const made = request("https://abc.lambda-url.eu-west-1.on.aws");
    expect(publicUrl).toBe("https://abc.lambda-url.eu-west-1.on.aws");
    expect(sourceIp).toBe("192.0.2.7");
    expect([made.method, new URL(made.url).pathname, new URL(made.url).search]).toEqual([
      "GET",
      "/v1/runs/orders.01JD",
      "?wait=25&x=a%20b&x=2",
    ]);
    expect(made.headers.get("cookie")).toBe("a=1; b=2");
    expect(new URL(made.url).host).toBe("lambda.invalid");
  });

  test("comes whole from a REST API, with each value of a header and a decoded query", async () => {
    const { request, sourceIp, publicUrl } = gateway(restApi);
    const made = request("https://id.execute-api.eu-west-1.amazonaws.com/prod");
    expect(publicUrl).toBe("https://id.execute-api.eu-west-1.amazonaws.com/prod");
    expect(sourceIp).toBe("192.0.2.8");
    const url = new URL(made.url);
    expect([url.pathname, url.searchParams.getAll("x"), url.searchParams.get("y")]).toEqual([
      "/v1/runs",
      ["a b", "2"],
      "1&2",
    ]);
    expect(made.headers.get("accept")).toBe("a, b");
    expect(await made.json()).toEqual({ ü: 1 });
  });

  test("comes whole from a load balancer, which decodes nothing and vouches for one address", () => {
    const { request, sourceIp, publicUrl } = gateway(balancer);
    expect(publicUrl).toBeUndefined();
    expect(sourceIp).toBe("192.0.2.9");
    const url = new URL(request("https://migrate.example").url);
    expect([url.pathname, url.searchParams.get("x")]).toEqual(["/health/live", "a b"]);
  });

  test.for([
    ["a stage of an HTTP API", "prod", "/prod/v1/targets", undefined, "https://h/prod", "/v1/targets"],
    ["a stage's path alone", "prod", "/prod", undefined, "https://h/prod", "/"],
    ["the path of a custom domain", "$default", "/db/v1/targets", "https://x/db", "https://h", "/v1/targets"],
    ["no stage", "$default", "/v1/targets", "https://x/db", "https://h", "/v1/targets"],
    ["a name that only begins like a stage", "v", "/v1/targets", undefined, "https://h", "/v1/targets"],
  ] as const)("finds its route below %s", ([, stage, rawPath, configured, ownUrl, path]) => {
    const requestContext = { ...functionUrl.requestContext, stage, domainName: "h" };
    const found = gateway({ ...functionUrl, rawPath, requestContext });
    expect(found.publicUrl).toBe(ownUrl);
    expect(new URL(found.request(configured ?? ownUrl).url).pathname).toBe(path);
  });

  test("cannot lead to another host, however its path is written", () => {
    for (const rawPath of [
      "//evil.example/v1",
      "/\\evil.example",
      "/?x",
      "/a#b",
      "https://evil.example/",
      "/../..",
    ]) {
      const made = gateway({ ...functionUrl, rawPath, rawQueryString: "" }).request("https://h");
      expect(new URL(made.url).host).toBe("lambda.invalid");
      expect(new URL(made.url).search + new URL(made.url).hash).toBe("");
    }
  });

  test("that no client could have sent is the caller's fault", () => {
    for (const change of [{ headers: { "a b": "c" } }, { headers: { a: "b\nc" } }]) {
      expect(() => gateway({ ...functionUrl, ...change }).request("https://h")).toThrow(
        expect.objectContaining({ code: "INVALID_REQUEST" }),
      );
    }
  });

  test("is told from storage events, our own messages and rubbish", () => {
    for (const event of [{}, null, [], "x", { Records: [] }, { lockkeeper: {} }, { requestContext: {} }])
      expect(gatewayOf(event)).toBeUndefined();
  });

  test("is read or not, whatever is sent, and never ends the function", () => {
    const shapes = [functionUrl, restApi, balancer, { lockkeeper: { work: { target: "orders" } } }];
    const changed = fc
      .tuple(fc.constantFrom(...shapes), fc.string(), fc.anything())
      .chain(([shape, name, value]) =>
        fc.constantFrom(...Object.keys(shape), name).map((key) => ({ ...shape, [key]: value })),
      );
    fc.assert(
      fc.property(fc.oneof(fc.anything(), changed), (event) => {
        const found = gatewayOf(event);
        expect(() => ownMessageOf(event)).not.toThrow();
        try {
          const url = found?.request("https://h.example/base").url ?? "https://lambda.invalid/";
          expect(new URL(url).origin).toBe("https://lambda.invalid");
        } catch (error) {
          expect(error).toMatchObject({ code: "INVALID_REQUEST" });
        }
      }),
      { numRuns: 2_000 },
    );
  });

  test("of a REST API leads to the caller whom it has authenticated", () => {
    const fronts = [{ name: "aws", frontend: "rest-api-iam" }] as const;
    const identity = {
      accountId: "123456789012",
      userArn: "arn:aws:iam::123456789012:user/ann",
      caller: "AIDAEXAMPLEEXAMPLE000",
    };
    const requestContext = { ...restApi.requestContext, requestId: "r-1", identity };
    expect(iamPrincipal(fronts, { ...restApi, requestContext }, new Date())?.subject).toBe(
      "arn:aws:iam::123456789012:user/ann",
    );
  });
});

describe("an answer to a gateway", () => {
  const response = (): Response => {
    const headers = new Headers({ "content-type": "application/json" });
    headers.append("set-cookie", "a=1");
    headers.append("set-cookie", "b=2");
    return new Response('{"ü":1}', { status: 202, headers });
  };

  test("to a Function URL has its cookies apart", async () => {
    expect(await gateway(functionUrl).answer(response())).toEqual({
      statusCode: 202,
      headers: { "content-type": "application/json" },
      cookies: ["a=1", "b=2"],
      body: '{"ü":1}',
      isBase64Encoded: false,
    });
  });

  test("to a REST API has lists of headers", async () => {
    expect(await gateway(restApi).answer(response())).toEqual({
      statusCode: 202,
      multiValueHeaders: { "content-type": ["application/json"], "set-cookie": ["a=1", "b=2"] },
      body: '{"ü":1}',
      isBase64Encoded: false,
    });
  });

  test("to a load balancer has lists only where it sends lists", async () => {
    const lists = {
      ...balancer,
      headers: undefined,
      multiValueHeaders: { "x-forwarded-for": ["192.0.2.1"] },
    };
    expect(await gateway(balancer).answer(new Response("ok"))).toEqual({
      statusCode: 200,
      headers: { "content-type": "text/plain;charset=UTF-8" },
      body: "ok",
      isBase64Encoded: false,
    });
    expect(await gateway(lists).answer(new Response(null, { status: 204 }))).toEqual({
      statusCode: 204,
      multiValueHeaders: {},
      body: "",
      isBase64Encoded: false,
    });
  });

  test("whose bytes are no text is encoded", async () => {
    const bytes = Uint8Array.of(0xff, 0xfe, 0);
    expect(await gateway(functionUrl).answer(new Response(bytes))).toMatchObject({
      body: "//4A",
      isBase64Encoded: true,
    });
  });
});
