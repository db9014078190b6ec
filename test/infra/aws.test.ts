import { readFileSync } from "node:fs";
import { join } from "node:path";

import { CloudFormationClient, DescribeStackResourceCommand } from "@aws-sdk/client-cloudformation";
import { IAMClient, UpdateAssumeRolePolicyCommand } from "@aws-sdk/client-iam";
import { InvokeCommand, LambdaClient } from "@aws-sdk/client-lambda";
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutBucketVersioningCommand,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import {
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { AwsKeys } from "../support/aws.ts";
import { needs } from "../support/parts.ts";
import { endOf, page, runsOf, setUpAwsRunner, tablesOf, until, type AwsRunner } from "./aws-runner.ts";

const template = readFileSync(join(import.meta.dirname, "../../infra/aws/template.yaml"), "utf8");

describe("infra/aws.md, followed on MiniStack with IAM enforced", { timeout: 120_000 }, () => {
  needs("ministack", "sam");

  let runner: AwsRunner;
  let queues: SQSClient;
  beforeAll(async () => {
    runner = await setUpAwsRunner();
    queues = new SQSClient(runner.account.as(runner.account.root));
  }, 300_000);
  afterAll(() => runner?.[Symbol.asyncDispose]());

  test("a published release comes to the worker by bucket, queue and front, and is applied", async () => {
    await runner.publish({ "000001_orders.up.sql": "create table orders (id bigint primary key);" });
    await until(async () => (await runsOf(runner)).some(({ status }) => status === "succeeded"));
    expect(await tablesOf(runner)).toContain("orders");
    expect(await runsOf(runner)).toMatchObject([
      {
        status: "succeeded",
        outcome: "applied",
        trigger: "event",
        issuer: "urn:lockkeeper:event:sqs",
        attempt: 1,
      },
    ]);
    const log = await runner.log();
    expect(log.filter(({ event }) => event === "event.received")).toMatchObject([
      { via: "sqs", result: "test" },
      { via: "sqs", result: "run", subject: expect.stringMatching(/:function:orders-db-front$/) as unknown },
    ]);
    // the front has only begun it
    expect(log.filter(({ event }) => event === "run.continued")).toHaveLength(1);
  });

  test("the page's command asks with the caller's role, and nobody else gets in", async () => {
    const caller = await runner.assume("CallerRoleArn");
    const { stdout } = await runner.command(page.block("sh", "run=status"), caller);
    expect(JSON.parse(stdout)).toMatchObject(JSON.parse(page.block("json", "answer=status")) as object);

    const publisher = await runner.assume("PublisherRoleArn");
    await expect(runner.command(page.block("sh", "run=status"), publisher)).rejects.toMatchObject({
      stderr: expect.stringContaining("403") as unknown,
    });
    const unsigned = 'curl --silent --show-error --fail-with-body "$URL/v1/targets/orders-prod"';
    await expect(runner.command(unsigned, caller)).rejects.toMatchObject({
      stderr: expect.stringContaining("403") as unknown,
    });
  });

  test("a second release is applied once, however often its notification is delivered", async () => {
    const paid = { "000002_paid.up.sql": "alter table orders add column paid boolean;" };
    const DIGEST = await runner.publish(paid);
    await Promise.all(Array.from({ length: 12 }, () => notifyAgain(runner, queues)));
    await until(
      async () => (await runsOf(runner)).filter(({ status }) => status === "succeeded").length === 2,
    );
    await notifyAgain(runner, queues);
    await until(() => isEmpty(runner, queues, "QueueUrl"));
    expect(await runsOf(runner)).toHaveLength(2);
    // a pipeline that asks for it by its digest finds it done
    const caller = await runner.assume("CallerRoleArn");
    const { stdout } = await runner.command(page.block("sh", "run=apply"), caller, { DIGEST });
    await until(async () => (await endOf(runner, stdout)) === "succeeded noop");
    expect(await isEmpty(runner, queues, "DeadLettersUrl")).toBe(true);
  });

  test("a broken migration fails once: its messages are acknowledged, and the alarm's filter counts it", async () => {
    await runner.publish({ "000003_broken.up.sql": "alter table nowhere add column x int;" });
    await until(async () => (await runsOf(runner)).some(({ status }) => status === "failed"));
    await notifyAgain(runner, queues);
    await until(() => isEmpty(runner, queues, "QueueUrl"));
    const statuses = (await runsOf(runner)).map(({ status }) => status);
    expect(statuses).toEqual(["succeeded", "succeeded", "succeeded", "failed"]);
    expect(await isEmpty(runner, queues, "DeadLettersUrl")).toBe(true);
    expect(await counted(runner, "runs-failed")).toMatchObject([{ code: "MIGRATION_FAILED" }]);
    // what it missed is put there, and the next release goes on
    await runner.database.query("create table nowhere ()");
    await runner.publish({ "000004_more.up.sql": "create table more ();" });
    await until(async () => (await tablesOf(runner)).includes("more"));
    expect(await counted(runner, "runs-failed")).toHaveLength(1);
  });

  test("a database that is away has the message come again, until it is there", async () => {
    await soonAgain(runner, queues, { seconds: 3, times: 100 });
    await runner.door.close();
    await runner.publish({ "000005_away.up.sql": "create table away (id int);" });
    await until(async () => (await runner.log()).some(({ result }) => result === "unreachable"));
    await runner.door.open();
    await until(async () => (await tablesOf(runner)).includes("away"));
    await until(() => isEmpty(runner, queues, "QueueUrl"));
    expect(await isEmpty(runner, queues, "DeadLettersUrl")).toBe(true);
  });

  test("what was given up lies in the dead letters, and the next sweep brings it all the same", async () => {
    await soonAgain(runner, queues, { seconds: 3, times: 1 });
    await runner.door.close();
    await runner.publish({ "000006_given_up.up.sql": "create table given_up (id int);" });
    await until(async () => !(await isEmpty(runner, queues, "DeadLettersUrl")));
    await runner.door.open();
    expect(await tablesOf(runner)).not.toContain("given_up");
    await runner.sweepNow();
    await until(async () => (await tablesOf(runner)).includes("given_up"));
    expect((await runsOf(runner)).at(-1)).toMatchObject({ issuer: "urn:lockkeeper:event:schedule" });
  });

  test("a publisher replaces no content, deletes nothing, and reaches nothing else", async () => {
    const { account, outputs } = runner;
    const keys = await runner.assume("PublisherRoleArn");
    const s3 = bucketOf(runner, keys);
    const Bucket = outputs["BucketName"];
    const { Contents = [] } = await s3.send(new ListObjectsV2Command({ Bucket, Prefix: "orders/blobs/" }));
    const [Key = "no blob"] = Contents.flatMap((object) => object.Key ?? []);
    // MiniStack knows no condition on how an object is written: the bucket's policy, which asks for one, is not in force here
    await expect(
      s3.send(new PutObjectCommand({ Bucket, Key, Body: "other", IfNoneMatch: "*" })),
    ).rejects.toMatchObject({ name: "PreconditionFailed" });
    await denied(s3.send(new PutObjectCommand({ Bucket, Key: "orders/notes.txt", Body: "x" })));
    await denied(s3.send(new DeleteObjectCommand({ Bucket, Key })));
    await denied(s3.send(new DeleteObjectCommand({ Bucket, Key, VersionId: "1" })));
    await denied(
      s3.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: "Suspended" } })),
    );
    await denied(secretWith(runner, keys));
    const sqs = new SQSClient(account.as(keys));
    await denied(sqs.send(new SendMessageCommand({ QueueUrl: outputs["QueueUrl"], MessageBody: "{}" })));
    await denied(invoke(runner, keys, "FrontName"));
  });

  test("nobody deletes from the bucket, not even with every right of their own", async () => {
    const Bucket = runner.outputs["BucketName"];
    const s3 = bucketOf(runner, await runner.administrator());
    await s3.send(new GetObjectCommand({ Bucket, Key: "orders/head.json" }));
    await denied(s3.send(new DeleteObjectCommand({ Bucket, Key: "orders/head.json" })));
    await denied(
      s3.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration: { Status: "Suspended" } })),
    );
  });

  test.for(["FrontRole", "WorkerRole"])(
    "the %s reads releases, writes nothing, and starts the worker alone",
    async (role) => {
      const { account, outputs } = runner;
      const keys = await inRoleOf(runner, role);
      const s3 = bucketOf(runner, keys);
      const Bucket = outputs["BucketName"];
      const Key = "orders/head.json";
      await s3.send(new GetObjectCommand({ Bucket, Key }));
      await denied(s3.send(new PutObjectCommand({ Bucket, Key, Body: "{}" })));
      await denied(s3.send(new DeleteObjectCommand({ Bucket, Key })));
      await invoke(runner, keys, "WorkerName");
      await denied(invoke(runner, keys, "FrontName"));
      await secretWith(runner, keys);
      await denied(secretWith(runner, keys, "another"));
      const sqs = new SQSClient(account.as(keys));
      const QueueUrl = outputs["QueueUrl"];
      await denied(sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: "{}" })));
      const received = sqs.send(new ReceiveMessageCommand({ QueueUrl }));
      await (role === "FrontRole" ? received : denied(received));
    },
  );

  test("a caller calls the API, and no function past it", async () => {
    const keys = await runner.assume("CallerRoleArn");
    await denied(invoke(runner, keys, "FrontName"));
    await denied(invoke(runner, keys, "WorkerName"));
    await denied(secretWith(runner, keys));
    const Bucket = runner.outputs["BucketName"];
    await denied(bucketOf(runner, keys).send(new GetObjectCommand({ Bucket, Key: "orders/head.json" })));
  });
});

async function denied(promise: Promise<unknown>): Promise<void> {
  await expect(promise).rejects.toMatchObject({ name: expect.stringMatching(/^AccessDenied/) as unknown });
}

function bucketOf({ account }: AwsRunner, keys: AwsKeys): S3Client {
  return new S3Client({ ...account.as(keys), forcePathStyle: true });
}

async function secretWith({ account }: AwsRunner, keys: AwsKeys, SecretId = "orders-db"): Promise<unknown> {
  const client = new SecretsManagerClient(account.as(keys));
  return client.send(new GetSecretValueCommand({ SecretId }));
}

/** Whether they may invoke it; it is not. */
async function invoke({ account, outputs }: AwsRunner, keys: AwsKeys, name: string): Promise<unknown> {
  const client = new LambdaClient(account.as(keys));
  return client.send(new InvokeCommand({ FunctionName: outputs[name], InvocationType: "DryRun" }));
}

/** Keys of a role that only Lambda may take: it is told that the account may, too. */
async function inRoleOf(runner: AwsRunner, logicalId: string): Promise<AwsKeys> {
  const { account } = runner;
  const stacks = new CloudFormationClient(account.as(account.root));
  const { StackResourceDetail } = await stacks.send(
    new DescribeStackResourceCommand({ StackName: "orders-db", LogicalResourceId: logicalId }),
  );
  const RoleName = StackResourceDetail?.PhysicalResourceId;
  const PolicyDocument = JSON.stringify({
    Version: "2012-10-17",
    Statement: [
      {
        Effect: "Allow",
        Principal: { AWS: `arn:aws:iam::${account.id}:root`, Service: "lambda.amazonaws.com" },
        Action: "sts:AssumeRole",
      },
    ],
  });
  const iam = new IAMClient(account.as(account.root));
  await iam.send(new UpdateAssumeRolePolicyCommand({ RoleName, PolicyDocument }));
  return runner.assume(`arn:aws:iam::${account.id}:role/${RoleName ?? ""}`);
}

/** Lines of the log that a metric filter of the template counts; MiniStack's own filters know no patterns for JSON. */
async function counted(
  runner: AwsRunner,
  filter: string,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const pattern = new RegExp(`FilterName: ${filter}\\n +FilterPattern: '\\{ \\$\\.(\\w+) = "([^"]+)" \\}'`);
  const [, name = "", value] = pattern.exec(template) ?? [];
  return (await runner.log()).filter((line) => line[name] === value);
}

/** What S3 says of a head that was written, once more. */
async function notifyAgain({ outputs }: AwsRunner, queues: SQSClient): Promise<void> {
  const object = { key: "orders/head.json", size: 1, eTag: "0", sequencer: "0" };
  const s3 = { s3SchemaVersion: "1.0", bucket: { name: outputs["BucketName"] }, object };
  const record = { eventVersion: "2.6", eventSource: "aws:s3", eventName: "ObjectCreated:Put", s3 };
  const MessageBody = JSON.stringify({ Records: [record] });
  await queues.send(new SendMessageCommand({ QueueUrl: outputs["QueueUrl"], MessageBody }));
}

/** No message waits, and none is being worked on. */
async function isEmpty({ outputs }: AwsRunner, queues: SQSClient, queue: string): Promise<boolean> {
  const { Attributes = {} } = await queues.send(
    new GetQueueAttributesCommand({
      QueueUrl: outputs[queue],
      AttributeNames: ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    }),
  );
  return Object.values(Attributes).every((count) => count === "0");
}

/** Messages that were not done come again after seconds in place of minutes, and as often as said. */
async function soonAgain(
  { outputs }: AwsRunner,
  queues: SQSClient,
  { seconds, times }: { readonly seconds: number; readonly times: number },
): Promise<void> {
  const QueueUrl = outputs["QueueUrl"];
  const { Attributes = {} } = await queues.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["RedrivePolicy"] }),
  );
  const redrive = JSON.parse(Attributes["RedrivePolicy"] ?? "{}") as object;
  const changed = {
    VisibilityTimeout: String(seconds),
    RedrivePolicy: JSON.stringify({ ...redrive, maxReceiveCount: String(times) }),
  };
  await queues.send(new SetQueueAttributesCommand({ QueueUrl, Attributes: changed }));
}
