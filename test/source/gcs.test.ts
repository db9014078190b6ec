import { afterAll, beforeAll, describe } from "vitest";
import { openSource } from "../../src/source/open.ts";
import { sourceSuite } from "../conformance/source.ts";
import { type BucketServer, startGcs } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";

describe("fake-gcs-server", () => {
  needs("fake-gcs-server");
  let server: BucketServer;
  beforeAll(async () => (server = await startGcs()));
  afterAll(() => server.stop());

  sourceSuite(
    "GCS source",
    async (options) => {
      const bucket = await server.createBucket(options);
      return {
        source: await openSource(`${bucket}/team/orders`, server.options),
        keepsVersions: options?.versioning === true,
        put: (key, bytes, putOptions) => server.put(`${bucket}/team/orders`, key, bytes, putOptions),
        putBeside: (key, bytes) => server.put(`${bucket}/team/orders-2`, key, bytes),
      };
    },
    () => openSource("gs://lockkeeper-no-such-bucket/orders", server.options),
  );
});
