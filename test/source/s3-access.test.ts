import { describe, expect, test } from "vitest";
import { s3Access } from "../../src/source/s3-access.ts";
import { openSource } from "../../src/source/open.ts";
import { object, startFaultyStore } from "./faulty-store.ts";

const credentials = { accessKeyId: "key", secretAccessKey: "secret" };
const place = (bucket: string) => ({ url: `s3://${bucket}/orders`, bucket, prefix: "orders/" });

describe("where objects are read without the SDK", () => {
  test("a bucket of AWS is asked by its own name in its region", () => {
    expect(s3Access(place("releases"), { region: "eu-central-1", credentials })).toEqual({
      objects: "https://releases.s3.eu-central-1.amazonaws.com/",
      region: "eu-central-1",
      credentials,
    });
  });

  test.for([
    ["http://127.0.0.1:9000", "http://127.0.0.1:9000/releases/"],
    ["https://minio.example/s3//", "https://minio.example/s3/releases/"],
  ] as const)("at %s the bucket is in the path, and any region does", ([endpoint, objects]) => {
    expect(s3Access(place("releases"), { endpoint, credentials })).toEqual({
      objects,
      region: "us-east-1",
      credentials,
    });
  });

  test.for([
    ["credentials that only the SDK finds", "releases", { region: "eu-west-1" }],
    ["a profile", "releases", { region: "eu-west-1", credentials, profile: "deploy" }],
    ["no region", "releases", { credentials }],
    ["another partition", "releases", { region: "cn-north-1", credentials }],
    ["a region for governments", "releases", { region: "us-gov-west-1", credentials }],
    ["the path style at AWS", "releases", { region: "eu-west-1", credentials, forcePathStyle: true }],
    [
      "another server without the path style",
      "releases",
      { endpoint: "http://a", credentials, forcePathStyle: false },
    ],
    ["what is no URL", "releases", { endpoint: "127.0.0.1:9000 ", credentials }],
    [
      "a name with dots, which certificates do not cover",
      "my.releases",
      { region: "eu-west-1", credentials },
    ],
    ["a directory bucket", "releases--use1-az4--x-s3", { region: "us-east-1", credentials }],
  ] as const)("%s is left to the SDK", ([, bucket, options]) => {
    expect(s3Access(place(bucket), options)).toBeUndefined();
  });
});

test("a read is signed, with the session's token where there is one, and asks for the store's checksum", async () => {
  const { endpoint, requests } = await startFaultyStore("s3", [object("s3", "SELECT 1;")]);
  const source = await openSource("s3://bucket/orders", {
    s3: { endpoint, credentials: { ...credentials, sessionToken: "token/of+session=" } },
  });
  await source.read("a b+c'(1).sql", { maxBytes: 100 }, AbortSignal.timeout(20_000));
  const [{ line, headers } = { line: "", headers: {} }] = requests;
  expect(line).toBe("GET /bucket/orders/a%20b%2Bc%27%281%29.sql");
  expect(headers).toMatchObject({
    "x-amz-security-token": "token/of+session=",
    "x-amz-checksum-mode": "ENABLED",
    "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "user-agent": "lockkeeper",
  });
  expect(headers.authorization).toMatch(
    /^AWS4-HMAC-SHA256 Credential=key\/\d{8}\/us-east-1\/s3\/aws4_request, SignedHeaders=[\w;-]*x-amz-security-token[\w;-]*, Signature=[0-9a-f]{64}$/,
  );
});
