import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { storageOf } from "../../src/bin/storage.ts";

const none = { s3: {}, gcs: {} };
/** As in a function of AWS Lambda; no files of this machine. */
const plain = {
  AWS_ACCESS_KEY_ID: "key",
  AWS_SECRET_ACCESS_KEY: "secret",
  AWS_SESSION_TOKEN: "token",
  AWS_REGION: "eu-west-1",
  AWS_CONFIG_FILE: "/nonexistent/config",
  AWS_SHARED_CREDENTIALS_FILE: "/nonexistent/credentials",
};

test("plain variables give S3's credentials and region", () => {
  expect(storageOf(none, plain).s3).toEqual({
    region: "eu-west-1",
    credentials: { accessKeyId: "key", secretAccessKey: "secret", sessionToken: "token" },
  });
});

test("what settings say comes before variables, and another server is not asked with AWS's region", () => {
  const { s3 } = storageOf({ s3: { region: "sa-east-1" }, gcs: {} }, plain);
  expect(s3?.region).toBe("sa-east-1");
  const other = storageOf(none, { ...plain, AWS_ENDPOINT_URL_S3: "http://127.0.0.1:9000" });
  expect(other.s3).toMatchObject({ endpoint: "http://127.0.0.1:9000", credentials: { accessKeyId: "key" } });
  expect(other.s3).not.toHaveProperty("region");
});

test.for([
  { AWS_PROFILE: "deploy" },
  { AWS_USE_FIPS_ENDPOINT: "true" },
  { AWS_USE_DUALSTACK_ENDPOINT: "true" },
  { AWS_SECRET_ACCESS_KEY: "" },
])("with %o the SDK finds its own way", (variables) => {
  expect(storageOf(none, { ...plain, ...variables }).s3).toEqual({});
});

test.for(["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"])(
  "a file named by %s may say more than variables, so the SDK reads it",
  (variable) => {
    const folder = mkdtempSync(join(tmpdir(), "lockkeeper-storage-"));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, "file");
    writeFileSync(file, "[default]\nendpoint_url = http://127.0.0.1:9\n");
    expect(storageOf(none, { ...plain, [variable]: file }).s3).toEqual({});
  },
);

test("an emulator of GCS may be named without its scheme, as Google's tools take it", () => {
  expect(storageOf(none, { STORAGE_EMULATOR_HOST: "127.0.0.1:4443" }).gcs).toEqual({
    endpoint: "http://127.0.0.1:4443",
  });
});
