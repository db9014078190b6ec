import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import {
  CreateSecretCommand,
  PutSecretValueCommand,
  SecretsManagerClient,
} from "@aws-sdk/client-secrets-manager";
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  onTestFinished,
  test,
  vi,
} from "vitest";
import { cloudRunHandOver } from "../../src/host/cloud-run-hand-over.ts";
import { googleTokens, scopes } from "../../src/host/google-auth.ts";
import { readGoogleSecret } from "../../src/host/google-secret.ts";
import { parseSecretReference, readSecret } from "../../src/host/secret.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";

afterEach(() => void vi.unstubAllEnvs());

describe("a secret's name", () => {
  const arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/orders-AbCdEf";

  test.for([
    [arn, { kind: "aws", arn, region: "eu-west-1" }],
    [
      "projects/my-shop/secrets/orders",
      { kind: "google", name: "projects/my-shop/secrets/orders/versions/latest" },
    ],
    [
      "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:rds!db-4f5e-AbCdEf",
      {
        kind: "aws",
        arn: "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:rds!db-4f5e-AbCdEf",
        region: "us-gov-west-1",
      },
    ],
    [
      "projects/123/secrets/orders/versions/7",
      { kind: "google", name: "projects/123/secrets/orders/versions/7" },
    ],
    ["arn:aws:ssm:eu-west-1:111122223333:parameter/orders", undefined],
    ["projects/p/secrets/../secrets/other", undefined],
    ["projects/p/secrets/o/versions/1?x=y", undefined],
    ["orders", undefined],
  ] as const)("%s", ([text, reference]) => {
    expect(parseSecretReference(text)).toEqual(reference);
  });

  test("that is none is refused, and not repeated whole: it might be the secret itself", async () => {
    const error: unknown = await readSecret("postgres://user:the-planted-password@host/db").catch(
      (e: unknown) => e,
    );
    expect(error).toMatchObject({ code: "CONFIG" });
    expect(String(error)).not.toContain("planted");
  });
});

describe("a secret of AWS Secrets Manager", () => {
  needs("ministack");
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3("ministack");
  });
  afterAll(() => server.stop());
  beforeEach(() => {
    vi.stubEnv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.endpoint);
    vi.stubEnv("AWS_ACCESS_KEY_ID", server.credentials.accessKeyId);
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", server.credentials.secretAccessKey);
  });

  test("is read as it is now, each time anew", async () => {
    const client = clientOf(server);
    const { ARN = "" } = await client.send(
      new CreateSecretCommand({ Name: "prod/orders", SecretString: "first" }),
    );
    expect(await readSecret(ARN)).toBe("first");
    await client.send(new PutSecretValueCommand({ SecretId: ARN, SecretString: "second" }));
    expect(await readSecret(ARN)).toBe("second");
  });

  test("that is not there, or is no text, says what to look at", async () => {
    const gone = "arn:aws:secretsmanager:us-east-1:000000000000:secret:gone-AbCdEf";
    await expect(readSecret(gone)).rejects.toMatchObject({
      code: "CONFIG",
      message: expect.stringContaining(gone),
      hint: expect.stringContaining("six characters"),
    });
    const { ARN = "" } = await clientOf(server).send(
      new CreateSecretCommand({ Name: "binary", SecretBinary: Buffer.from([0, 1]) }),
    );
    await expect(readSecret(ARN)).rejects.toMatchObject({ code: "CONFIG" });
  });

  test("cannot be read when nobody answers, and is worth another try", async () => {
    vi.stubEnv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:9");
    vi.stubEnv("AWS_MAX_ATTEMPTS", "1");
    const arn = "arn:aws:secretsmanager:us-east-1:000000000000:secret:orders-AbCdEf";
    await expect(readSecret(arn)).rejects.toMatchObject({
      code: "DATABASE_UNAVAILABLE",
      retryable: true,
      hint: expect.stringContaining("interface endpoint"),
    });
  });
});

/**
 * Stands for Google, which has no emulator of its metadata server, of Secret Manager's or of Cloud Run's REST: it proves the
 * shape of requests, by Google's documentation of them, and nothing of Google's own.
 */
describe("Google", () => {
  const asked: string[] = [];
  let answers: Readonly<Record<string, readonly [status: number, body: unknown]>> = {};
  let endpoint = "";

  beforeEach(async () => {
    asked.length = 0;
    const server = createServer((request, response) => {
      void bodyOf(request).then((body) => {
        const { authorization = "-", "metadata-flavor": flavor = "-" } = request.headers;
        asked.push([request.method, request.url, authorization, String(flavor), body].join(" "));
        const found = Object.entries(answers).find(([path]) => request.url?.startsWith(path) === true);
        const [status, answer] = found?.[1] ?? [404, {}];
        response.writeHead(status, { "metadata-flavor": "Google", "content-type": "application/json" });
        response.end(typeof answer === "string" ? answer : JSON.stringify(answer));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    endpoint = `http://127.0.0.1:${port}`;
    vi.stubEnv("GCE_METADATA_HOST", `127.0.0.1:${port}`);
    vi.stubEnv("METADATA_SERVER_DETECTION", "assume-present");
    vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", undefined);
    vi.stubEnv("HOME", "/nowhere");
    answers = metadata;
  });

  const metadata = {
    "/computeMetadata/v1/instance/service-accounts/default/token": [
      200,
      { access_token: "ya29.planted-token", expires_in: 3599, token_type: "Bearer" },
    ],
    "/computeMetadata/v1": [200, "default/\n"],
  } as const;
  const secret = "projects/my-shop/secrets/orders/versions/latest";

  test("gives a token for Cloud SQL from the metadata server, and is not asked again while it is good", async () => {
    const make = googleTokens(scopes.cloudSql);
    expect(await make()).toBe("ya29.planted-token");
    const tokensAsked = asked.filter((line) => line.includes("/token"));
    expect(tokensAsked).toHaveLength(1);
    expect(decodeURIComponent(tokensAsked[0] ?? "")).toContain(
      "scopes=https://www.googleapis.com/auth/sqlservice.login",
    );
    expect(tokensAsked[0]).toContain(" Google ");
    expect(await make()).toBe("ya29.planted-token");
    expect(asked.filter((line) => line.includes("/token"))).toHaveLength(1);
  });

  test("gives a secret's text by REST, with the service account's token", async () => {
    const payload = { data: Buffer.from("postgres://u:p@h/d").toString("base64"), dataCrc32c: "1" };
    answers = { ...metadata, [`/v1/${secret}:access`]: [200, { name: secret, payload }] };
    expect(await readGoogleSecret(secret, endpoint)).toBe("postgres://u:p@h/d");
    expect(asked.at(-1)).toBe(`GET /v1/${secret}:access Bearer ya29.planted-token - `);
  });

  test.for([
    [403, "DATABASE_DENIED", "secretAccessor"],
    [404, "CONFIG", "has a version"],
    [400, "CONFIG", "disabled"],
    [503, "DATABASE_UNAVAILABLE", "try again"],
    [200, "DATABASE_UNAVAILABLE", "try again"],
  ] as const)("answering %s for a secret is %s", async ([status, code, hint]) => {
    answers = { ...metadata, "/v1/": [status, "not what Google says, with a planted-secret"] };
    const error: unknown = await readGoogleSecret(secret, endpoint).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code, hint: expect.stringContaining(hint) });
    expect(JSON.stringify(error) + String(error)).not.toMatch(/planted/);
  });

  test("starts an execution of a job of Cloud Run, and is told nothing that could change it", async () => {
    const job = "projects/my-shop/locations/europe-west1/jobs/lockkeeper-work";
    answers = { ...metadata, "/v2/": [200, { name: `${job}/operations/1`, done: false }] };
    await cloudRunHandOver(job, { endpoint }).start("orders-prod");
    expect(asked.at(-1)).toBe(`POST /v2/${job}:run Bearer ya29.planted-token - {}`);
  });

  test.for([
    [403, "run.invoker"],
    [404, "work.cloudRunJob"],
    [429, "quota"],
    [500, "next execution"],
  ] as const)(
    "refusing an execution with %s leaves the run open and says what to do",
    async ([status, hint]) => {
      answers = { ...metadata, "/v2/": [status, { error: { message: "planted" } }] };
      await expect(
        cloudRunHandOver("projects/p/locations/l/jobs/j", { endpoint }).start("orders"),
      ).rejects.toMatchObject({
        code: "HAND_OVER_FAILED",
        hint: expect.stringContaining(hint),
        retryable: true,
      });
    },
  );
});

function clientOf({ endpoint, credentials }: S3Server): SecretsManagerClient {
  const client = new SecretsManagerClient({ endpoint, region: "us-east-1", credentials });
  onTestFinished(() => client.destroy());
  return client;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) body += String(chunk);
  return body;
}
