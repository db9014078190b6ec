import { resolve } from "node:path";
import { expect, test } from "vitest";
import { parseLocation } from "../../src/source/location.ts";
import { openSource } from "../../src/source/open.ts";

test.for([
  ["s3://bucket", "s3", "bucket", "", "s3://bucket"],
  ["s3://bucket/", "s3", "bucket", "", "s3://bucket"],
  ["s3://my.bucket-1/a/b/", "s3", "my.bucket-1", "a/b/", "s3://my.bucket-1/a/b"],
  ["S3://bucket/A b%20c", "s3", "bucket", "A b%20c/", "s3://bucket/A b%20c"],
  ["gs://bucket_1/orders", "gcs", "bucket_1", "orders/", "gs://bucket_1/orders"],
  ["gcs://bucket/orders", "gcs", "bucket", "orders/", "gs://bucket/orders"],
] as const)("reads the bucket's URL %s", ([text, kind, bucket, prefix, url]) => {
  expect(parseLocation(text)).toEqual({ kind, bucket, prefix, url });
});

test.for([
  ["file:///srv/a%20b/", "/srv/a b"],
  ["/srv/migrations", "/srv/migrations"],
  ["./migrations", resolve("migrations")],
  ["migrations/", resolve("migrations")],
  ["../x", resolve("../x")],
] as const)("reads the folder %s", ([text, folder]) => {
  expect(parseLocation(text)).toEqual({ kind: "folder", folder, url: `file://${folder}` });
});

test.for([
  "",
  "  ",
  "https://bucket.s3.amazonaws.com/orders",
  "az://bucket/orders",
  "s3:bucket",
  "s3:///orders",
  "s3://-/orders",
  "s3://bucket/a//b",
  "s3://bucket/../other",
  "s3://bucket/orders?region=eu-west-1",
  "s3://bucket/orders#x",
  "file://host/srv",
  "file:srv%",
  "/srv/a\nb",
])("refuses %j as a source", async (text) => {
  await expect(openSource(text)).rejects.toMatchObject({ code: "USAGE" });
});

test("never repeats a password that stands in a source's URL", () => {
  for (const text of [
    "s3://key:hunter2@bucket/orders",
    "https://user:hunter2@host/x",
    "gs://bucket?password=hunter2",
  ]) {
    expect(() => parseLocation(text)).toThrow(expect.objectContaining({ code: "USAGE" }));
    expect(() => parseLocation(text)).not.toThrow("hunter2");
  }
});
