import {
  CloudFormationClient,
  CreateStackCommand,
  DescribeStacksCommand,
} from "@aws-sdk/client-cloudformation";
import {
  CreateBucketCommand,
  PutBucketNotificationConfigurationCommand,
  PutBucketVersioningCommand,
  S3Client,
  type NotificationConfiguration,
} from "@aws-sdk/client-s3";
import { LambdaClient, UpdateFunctionConfigurationCommand } from "@aws-sdk/client-lambda";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { AwsAccount } from "../support/aws.ts";
import { needs } from "../support/parts.ts";
import { createIssuer, type TestIssuer } from "../support/token.ts";
import { endOf, page, runsOf, setUpAwsRunner, tablesOf, until, type AwsRunner } from "./aws-runner.ts";

const bucket = "releases-of-ours";
const audience = "https://migrate.example";

describe(
  "infra/aws.md with a bucket that is there already, and callers with tokens",
  { timeout: 120_000 },
  () => {
    needs("ministack", "sam");

    let runner: AwsRunner;
    let issuer: TestIssuer;
    beforeAll(async () => {
      issuer = await createIssuer({ url: "https://ci.example" });
      runner = await setUpAwsRunner({
        parameters: { ExistingBucket: bucket, Access: "oidc" },
        before: makeBucket,
        files: { "config/lockkeeper/jwks.json": issuer.jwks },
        file: (name, text) =>
          name.endsWith("policy.json") ? policy() : text.replace(/s3:\/\/[^/]+\//, `s3://${bucket}/`),
      });
    }, 300_000);
    afterAll(() => runner?.[Symbol.asyncDispose]());

    test("EventBridge brings a release to the queue", async () => {
      await runner.publish({ "000001_bus.up.sql": "create table bus ();" });
      await until(async () => (await tablesOf(runner)).includes("bus"));
      expect(await runner.log()).toContainEqual(
        expect.objectContaining({ event: "event.received", via: "sqs", result: "run" }),
      );
      expect(runner.outputs["BucketName"]).toBe(bucket);
    });

    test("a topic calls the front, which believes it by its permission", async () => {
      const topic = await beside(runner, "topic.yaml");
      await notify(runner.account, {
        TopicConfigurations: [{ TopicArn: topic["TopicArn"], Events: ["s3:ObjectCreated:*"], Filter: heads }],
      });
      await runner.publish({ "000002_topic.up.sql": "create table topic ();" });
      await until(async () => (await tablesOf(runner)).includes("topic"));
      expect((await runsOf(runner)).at(-1)).toMatchObject({ issuer: "urn:lockkeeper:event:sns" });
    });

    test("the bucket calls the front itself", async () => {
      await beside(runner, "direct.yaml");
      await notify(runner.account, {
        LambdaFunctionConfigurations: [
          { LambdaFunctionArn: frontOf(runner), Events: ["s3:ObjectCreated:*"], Filter: heads },
        ],
      });
      await runner.publish({ "000003_direct.up.sql": "create table direct ();" });
      await until(async () => (await tablesOf(runner)).includes("direct"));
      expect((await runsOf(runner)).at(-1)).toMatchObject({ issuer: "urn:lockkeeper:event:s3" });
    });

    test("a pipeline with a token asks for a release that nothing notified of, and waits for its end", async () => {
      await notify(runner.account, {});
      const digest = await runner.publish({ "000004_token.up.sql": "create table token ();" });
      const token = await issuer.token({ aud: audience, repository_id: "456789" });
      const { stdout } = await runner.command(page.block("sh", "run=token"), runner.account.root, {
        TOKEN: token,
        DIGEST: digest,
      });
      await until(async () => (await endOf(runner, stdout)) === "succeeded applied");
      expect(await tablesOf(runner)).toContain("token");
      expect((await runsOf(runner)).at(-1)).toMatchObject({ status: "succeeded", trigger: "http" });
    });

    test("a run that is longer than the worker's time goes on in the worker's next execution", async () => {
      const lambda = new LambdaClient(runner.account.as(runner.account.root));
      const FunctionName = runner.outputs["WorkerName"];
      await lambda.send(new UpdateFunctionConfigurationCommand({ FunctionName, Timeout: 16 }));
      await runner.publish(
        Object.fromEntries([5, 6, 7].map((n) => [`00000${n}_long.up.sql`, "select pg_sleep(4);"])),
      );
      await runner.sweepNow();
      const ended = async () =>
        (await runsOf(runner)).find(
          ({ issuer: by, status }) =>
            by === "urn:lockkeeper:event:schedule" && (status === "succeeded" || status === "failed"),
        );
      await until(async () => (await ended()) !== undefined);
      const run = await ended();
      expect(run).toMatchObject({ status: "succeeded", outcome: "applied" });
      expect(run?.["attempt"]).toBeGreaterThan(1);
    });
  },
);

const heads = { Key: { FilterRules: [{ Name: "suffix" as const, Value: "head.json" }] } };

async function makeBucket(account: AwsAccount): Promise<void> {
  const s3 = new S3Client({ ...account.as(account.root), forcePathStyle: true });
  await s3.send(new CreateBucketCommand({ Bucket: bucket }));
  const VersioningConfiguration = { Status: "Enabled" } as const;
  await s3.send(new PutBucketVersioningCommand({ Bucket: bucket, VersioningConfiguration }));
  await notify(account, { EventBridgeConfiguration: {} });
}

/** Replaces all of the bucket's notifications. */
async function notify(account: AwsAccount, configuration: NotificationConfiguration): Promise<void> {
  const s3 = new S3Client({ ...account.as(account.root), forcePathStyle: true });
  await s3.send(
    new PutBucketNotificationConfigurationCommand({
      Bucket: bucket,
      NotificationConfiguration: configuration,
    }),
  );
}

function frontOf({ account, outputs }: AwsRunner): string {
  return `arn:aws:lambda:${account.region}:${account.id}:function:${outputs["FrontName"] ?? ""}`;
}

/** Makes a stack of the page's beside the runner's; its outputs. */
async function beside(runner: AwsRunner, file: string): Promise<Readonly<Record<string, string>>> {
  const { account } = runner;
  const client = new CloudFormationClient(account.as(account.root));
  const StackName = `orders-db-${file.replace(".yaml", "")}`;
  const Parameters = [
    { ParameterKey: "Bucket", ParameterValue: bucket },
    { ParameterKey: "FrontArn", ParameterValue: frontOf(runner) },
  ];
  const TemplateBody = page.block("yaml", `file=${file}`);
  await client.send(new CreateStackCommand({ StackName, TemplateBody, Parameters }));
  const stack = async () => (await client.send(new DescribeStacksCommand({ StackName }))).Stacks?.[0];
  await until(async () => (await stack())?.StackStatus?.endsWith("_IN_PROGRESS") === false);
  const made = await stack();
  expect(made?.StackStatus).toBe("CREATE_COMPLETE");
  return Object.fromEntries((made?.Outputs ?? []).map((one) => [one.OutputKey ?? "", one.OutputValue ?? ""]));
}

function policy(): string {
  return JSON.stringify({
    schema: "urn:lockkeeper:policy:v1",
    audience,
    issuers: { ci: { issuer: "https://ci.example", jwksFile: "jwks.json", algs: ["ES256"] } },
    hooks: {},
    rules: [
      {
        id: "deployers",
        issuer: "ci",
        match: { repository_id: "456789" },
        allow: { targets: ["orders-prod"], actions: ["plan", "apply", "status"] },
        require: { digest: true },
      },
    ],
  });
}
