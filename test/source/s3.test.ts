import { afterAll, beforeAll, beforeEach, describe, vi } from "vitest";
import { openSource, type SourceOptions } from "../../src/source/open.ts";
import { sourceSuite } from "../conformance/source.ts";
import { type S3Server, startS3 } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";

describe.for(["versitygw", "ministack", "localstack"] as const)("%s", (name) => {
  needs(name);
  let server: S3Server;
  beforeAll(async () => (server = await startS3(name)));
  afterAll(() => server.stop());

  sourceSuite(
    "S3 source",
    async (options) => {
      const bucket = await server.createBucket(options);
      return {
        source: await openSource(`${bucket}/team/orders`, server.options),
        keepsVersions: options?.versioning === true,
        put: (key, bytes, putOptions) => server.put(`${bucket}/team/orders`, key, bytes, putOptions),
        putBeside: (key, bytes) => server.put(`${bucket}/team/orders-2`, key, bytes),
      };
    },
    () => openSource("s3://lockkeeper-no-such-bucket/orders", server.options),
  );
});

describe("versitygw, read by the SDK", () => {
  needs("versitygw");
  let server: S3Server;
  let s3: NonNullable<SourceOptions["s3"]>;
  beforeAll(async () => {
    server = await startS3("versitygw");
    // without credentials of ours only the SDK knows how to read
    s3 = { endpoint: server.endpoint, region: "us-east-1" };
  });
  afterAll(() => server.stop());
  beforeEach(() => {
    vi.stubEnv("AWS_ACCESS_KEY_ID", server.credentials.accessKeyId);
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", server.credentials.secretAccessKey);
  });

  sourceSuite(
    "S3 source",
    async (options) => {
      const bucket = await server.createBucket(options);
      return {
        source: await openSource(`${bucket}/team/orders`, { s3 }),
        keepsVersions: options?.versioning === true,
        put: (key, bytes, putOptions) => server.put(`${bucket}/team/orders`, key, bytes, putOptions),
        putBeside: (key, bytes) => server.put(`${bucket}/team/orders-2`, key, bytes),
      };
    },
    () => openSource("s3://lockkeeper-no-such-bucket/orders", { s3 }),
  );
});
