import { describe, expect, test } from "vitest";
import { redactText } from "../../src/report/redact.ts";
import { processorMs } from "../support/processor.ts";

describe("a shown text", () => {
  test.for<[string, string]>([
    ["postgres://u:hunter2@h:5432/d", "postgres://u:***@h:5432/d"],
    ["postgres://u@h/d", "postgres://u@h/d"],
    ["postgres://:hunter2@h/d", "postgres://:***@h/d"],
    ["postgres://u:hunter2@h/d?sslmode=require", "postgres://u:***@h/d?sslmode=require"],
    [
      "postgres://h/d?user=u&password=hunter2&sslmode=require",
      "postgres://h/d?user=u&password=***&sslmode=require",
    ],
    ["postgres://u:hun@ter2@h/d", "postgres://u:***@h/d"],
    ["postgres://u:hun/ter2?#@h/d", "postgres://u:***@h/d"],
    ["cannot reach postgres://u:hunter2@h/d now", "cannot reach postgres://u:***@h/d now"],
    ["postgres://u:hunter2@h/d and https://x:hunter2@y", "postgres://u:***@h/d and https://x:***@y"],
    ["host=h user=u password=hunter2 dbname=d", "host=h user=u password=*** dbname=d"],
    ["host=h password='hunter2 hunter2' dbname=d", "host=h password=*** dbname=d"],
    ["host=h password='hunter2 hunter2", "host=h password=***"],
    [
      "https://b.s3.amazonaws.com/k?X-Amz-Signature=hunter2",
      "https://b.s3.amazonaws.com/k?X-Amz-Signature=***",
    ],
    ["mongodb+srv://u:hunter2@h/d", "mongodb+srv://u:***@h/d"],
    ["mongodb://u:hunter2@h1:27017,h2:27018/d", "mongodb://u:***@h1:27017,h2:27018/d"],
    [
      "mongodb://h/d?tls=true&tlsCertificateKeyFilePassword=hunter2",
      "mongodb://h/d?tls=true&tlsCertificateKeyFilePassword=***",
    ],
    [
      "mongodb://h/d?authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
      "mongodb://h/d?authMechanismProperties=***",
    ],
    [
      "nothing to hide: a@b.example wrote s3://bucket/prefix",
      "nothing to hide: a@b.example wrote s3://bucket/prefix",
    ],
  ])("%s is %s", ([text, expected]) => {
    expect(redactText(text)).toBe(expected);
    expect(redactText(text)).not.toContain("hunter2");
  });

  test("takes time in proportion to its length", () => {
    const texts = ["postgres://u:".repeat(60_000), `password=${"'".repeat(600_000)}`];
    // a thousandth of this; minutes if it were by the square
    for (const text of texts) expect(processorMs(() => redactText(text))).toBeLessThan(10_000);
  });
});
