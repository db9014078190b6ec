import { inspect } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { openSource } from "../../src/source/open.ts";
import { type S3Server, startS3 } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";

const { signal } = new AbortController();
const credentials = { accessKeyId: "key", secretAccessKey: "secret" };

describe("S3 settings that are missing", () => {
  beforeEach(() => {
    // Nothing of this machine's own, and no question to an instance's metadata.
    for (const name of [
      "AWS_REGION",
      "AWS_DEFAULT_REGION",
      "AWS_PROFILE",
      "AWS_ACCESS_KEY_ID",
      "AWS_SECRET_ACCESS_KEY",
    ]) {
      vi.stubEnv(name, undefined);
    }
    vi.stubEnv("AWS_CONFIG_FILE", "/nonexistent");
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent");
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
  });

  test("asks for a region when nobody named one", async () => {
    const source = await openSource("s3://bucket/orders", { s3: { credentials } });
    await expect(source.list("", signal)).rejects.toMatchObject({ code: "CONFIG" });
    await expect(source.read("a", { maxBytes: 1 }, signal)).rejects.toThrow(
      "the bucket's region is not known",
    );
  });

  test("says that there are no credentials, and does not try again", async () => {
    const source = await openSource("s3://bucket/orders", { s3: { endpoint: "http://127.0.0.1:9" } });
    await expect(source.list("", signal)).rejects.toMatchObject({
      code: "SOURCE_DENIED",
      message: "s3://bucket/orders: no AWS credentials were found",
    });
  });

  test("says that a profile does not exist", async () => {
    const source = await openSource("s3://bucket/orders", {
      s3: { endpoint: "http://127.0.0.1:9", region: "eu-west-1", profile: "nobody" },
    });
    await expect(source.list("", signal)).rejects.toMatchObject({ code: "SOURCE_DENIED" });
  });
});

describe("S3 credentials that are wrong", () => {
  needs("versitygw");
  let server: S3Server;
  beforeAll(async () => (server = await startS3("versitygw")));
  afterAll(() => server.stop());

  test.for([
    ["the secret", { secretAccessKey: "another" }],
    ["the key id", { accessKeyId: "another-key" }],
  ] as const)("is denied when %s is wrong, and does not show it", async ([, wrong]) => {
    const url = await server.createBucket();
    const given = { ...server.credentials, ...wrong };
    const source = await openSource(url, { s3: { ...server.options.s3, credentials: given } });
    for (const call of [() => source.list("", signal), () => source.read("a", { maxBytes: 1 }, signal)]) {
      const error: unknown = await call().catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: "SOURCE_DENIED", fields: { status: 403 } });
      expect(inspect(error, { depth: 20 })).not.toContain(given.secretAccessKey);
    }
  });
});
