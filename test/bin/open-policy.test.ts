import { describe, expect, onTestFinished, test } from "vitest";
import { join } from "node:path";
import { openPolicy } from "../../src/bin/open-policy.ts";
import { tempFolder, type Files } from "../support/release.ts";
import { createIssuer } from "../support/token.ts";

const strong = "0123456789abcdef0123456789abcdef";

async function open(hook: object, files: Files = {}, other?: object): ReturnType<typeof openPolicy> {
  const issuer = await createIssuer();
  const policy = {
    schema: "urn:lockkeeper:policy:v1",
    audience: "https://migrate.test",
    issuers: { ci: { issuer: issuer.url, jwksFile: "keys/jwks.json", algs: ["ES256"] } },
    hooks: { it: hook, ...(other === undefined ? {} : { other }) },
    rules: [],
  };
  const { path, ...made } = await tempFolder({
    "policy.json": JSON.stringify(policy),
    "keys/jwks.json": issuer.jwks,
    ...files,
  });
  onTestFinished(() => made[Symbol.asyncDispose]());
  return openPolicy(join(path, "policy.json"), new Set());
}

describe("a policy with the files that it names", () => {
  test("has them from beside it: keys of issuers, secrets of hooks without their line end", async () => {
    const files = { new: `${strong}\n`, old: "fedcba9876543210fedcba9876543210" };
    const { issuers, hooks } = await open({ kind: "github", secretFile: ["new", "old"] }, files);
    expect(issuers).toHaveLength(1);
    expect(hooks[0]?.keys.map(String)).toEqual([strong, files.old]);
  });

  test("reads the secrets of Standard Webhooks as base64, and none for SNS", async () => {
    const key = Buffer.alloc(24, 7);
    const files = { s: `whsec_${key.toString("base64")}\r\n` };
    const { hooks } = await open({ kind: "standard-webhooks", secretFile: "s" }, files);
    expect(hooks[0]?.keys).toEqual([key]);
    const topicArn = "arn:aws:sns:eu-central-1:123456789012:releases";
    expect((await open({ kind: "sns", topicArn })).hooks[0]?.keys).toEqual([]);
  });

  test("is refused where two senders have the same secret, or two hooks the same topic", async () => {
    const topic = { kind: "sns", topicArn: "arn:aws:sns:eu-central-1:123456789012:releases" };
    const files = { old: strong, new: "fedcba9876543210fedcba9876543210", same: `${strong}\n` };
    // the same key, as another kind of hook writes it
    const standard = { kind: "standard-webhooks", secretFile: "std" };
    const std = `whsec_${Buffer.from(strong).toString("base64")}`;
    const github = { kind: "github", secretFile: ["new", "old"] };
    for (const [one, two] of [
      [topic, topic],
      [github, { kind: "hmac", header: "X-Signature", secretFile: "same" }],
      [github, standard],
    ] as const)
      await expect(open(one, { ...files, std }, two)).rejects.toMatchObject({
        code: "CONFIG",
        message: expect.stringMatching(/^the hooks "it" and "other" have the same (secret|topic)$/),
      });
    const apart = { kind: "hmac", header: "X-Signature", secretFile: "new" };
    expect((await open({ kind: "github", secretFile: "old" }, files, apart)).hooks).toHaveLength(2);
  });

  test.for<[string, Files, string]>([
    ["that is not there", {}, "cannot be read (ENOENT)"],
    ["of 23 bytes", { s: "planted-secret-23-bytes" }, "has 23 bytes, and needs at least 24"],
    ["that is empty", { s: "" }, "has 0 bytes"],
    ["with a space at its end", { s: `${strong} \n` }, "begins or ends with white space"],
  ])("does not load with a secret %s, and does not show it", async ([, files, words]) => {
    const opened = open({ kind: "hmac", header: "X-Signature", secretFile: "s" }, files);
    await expect(opened).rejects.toMatchObject({ code: "CONFIG", message: expect.stringContaining(words) });
    await expect(opened).rejects.toSatisfy(
      (error: Error) => !error.message.includes("planted") && error.message.includes('hook "it"'),
    );
  });
});
