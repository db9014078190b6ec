import { EventBridgeClient, PutRuleCommand, PutTargetsCommand } from "@aws-sdk/client-eventbridge";
import {
  type NotificationConfiguration,
  PutBucketNotificationConfigurationCommand,
  S3Client,
} from "@aws-sdk/client-s3";
import { CreateTopicCommand, SNSClient, SubscribeCommand } from "@aws-sdk/client-sns";
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  type Message,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";

import { decodeEvent } from "../../src/event/decode.ts";
import type { QueueMessage } from "../../src/event/event.ts";
import { answerBatch } from "../../src/event/sqs.ts";
import { openDriver } from "../../src/driver/open.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { openSource } from "../../src/source/open.ts";
import { bySqs, processOf, type Process } from "../dispatch/process.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { makeKeys, publishTo, type Files } from "../support/release.ts";
import { never } from "../support/steps.ts";

needs("localstack", "ministack");

let localstack: S3Server;
let ministack: S3Server;
beforeAll(async () => {
  [localstack, ministack] = await Promise.all([startS3("localstack", "s3,sqs"), startS3("ministack")]);
}, 120_000);
afterAll(async () => {
  await localstack.stop();
  await ministack.stop();
});

const head = "orders/head.json";
const users: Files = { "1_users.up.sql": "create table users (id int);" };

interface Site {
  readonly bucket: string;
  readonly database: TestDatabase;
  readonly options: {
    readonly endpoint: string;
    readonly region: string;
    readonly credentials: S3Server["credentials"];
  };
  /** Makes a queue; gives its ARN and its address. */
  queue(name: string): Promise<{ readonly arn: string; readonly url: string }>;
  notify(configuration: NotificationConfiguration): Promise<void>;
  publish(): Promise<unknown>;
  process(databaseUrl?: string): Promise<Process>;
  /** One batch of a queue as Lambda would be given it; what succeeds leaves the queue, the rest is there again at once. */
  consume(queueUrl: string, by: Process): Promise<Consumed>;
  isEmpty(queueUrl: string): Promise<boolean>;
}

interface Consumed {
  readonly messages: readonly QueueMessage[];
  readonly answer: ReturnType<typeof answerBatch>;
}

async function site(server: S3Server): Promise<Site> {
  const options = { endpoint: server.endpoint, region: "us-east-1", credentials: server.credentials };
  const sqs = new SQSClient(options);
  const s3 = new S3Client({ ...options, forcePathStyle: true });
  onTestFinished(() => [sqs, s3].forEach((client) => client.destroy()));
  const url = await server.createBucket({ versioning: true });
  const bucket = url.replace("s3://", "");
  const database = await createDatabase();
  const source = await openSource(`${url}/orders`, server.options);
  const { key, trust } = makeKeys();
  const receive = async (QueueUrl: string): Promise<readonly Message[]> => {
    const wanted = { QueueUrl, WaitTimeSeconds: 2, VisibilityTimeout: 0, MaxNumberOfMessages: 1 };
    return (await sqs.send(new ReceiveMessageCommand(wanted))).Messages ?? [];
  };
  return {
    bucket,
    database,
    options,
    async queue(name) {
      const { QueueUrl = "" } = await sqs.send(new CreateQueueCommand({ QueueName: `${bucket}-${name}` }));
      const { Attributes } = await sqs.send(
        new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }),
      );
      return { arn: Attributes?.["QueueArn"] ?? "", url: QueueUrl };
    },
    async notify(NotificationConfiguration) {
      await s3.send(
        new PutBucketNotificationConfigurationCommand({ Bucket: bucket, NotificationConfiguration }),
      );
    },
    publish: () => publishTo(source, users, { keys: [key] }),
    async process(databaseUrl = database.url) {
      const driver = await openDriver(databaseUrl);
      onTestFinished(() => driver.close());
      const place = { stream: "orders", environment: "default" };
      return processOf({
        name: "orders",
        ...place,
        releases: signedReleases({ source, ...place, engine: "postgres", trust }),
        driver,
        limits: { waitMs: 20_000, lockTimeoutMs: 2_000, statementTimeoutMs: 0, deadlineMs: 0 },
        watched: { provider: "s3", bucket, key: head },
      });
    },
    async consume(QueueUrl, { waker, active }) {
      let received = await receive(QueueUrl);
      while (received.length === 0) received = await receive(QueueUrl);
      const decoded = decodeEvent({
        Records: received.map(({ MessageId, Body }) => ({
          eventSource: "aws:sqs",
          messageId: MessageId,
          body: Body,
        })),
      });
      if (decoded.kind !== "batch") throw new TypeError("no batch");
      const failed = new Set<string>();
      for (const { id, content } of decoded.messages) {
        if (content.kind !== "events") continue;
        const woken = await waker.wake(content.events, bySqs, never);
        for (const one of woken) if (one.kind === "run") await active.ended(one.run.id);
        if (woken.some(({ kind }) => kind === "unreachable")) failed.add(id);
      }
      const answer = answerBatch(decoded.messages, failed);
      for (const { MessageId, ReceiptHandle } of received) {
        if (answer.batchItemFailures.some(({ itemIdentifier }) => itemIdentifier === MessageId)) continue;
        await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      }
      return { messages: decoded.messages, answer };
    },
    isEmpty: async (QueueUrl) => (await receive(QueueUrl)).length === 0,
  };
}

/** Of exactly one object. */
const onHead = {
  Events: ["s3:ObjectCreated:*" as const],
  Filter: { Key: { FilterRules: [{ Name: "prefix" as const, Value: head }] } },
};

function kinds({ messages }: Consumed): readonly string[] {
  return messages.map(({ content }) => content.kind);
}

describe("a release put into a bucket of S3", () => {
  test(
    "comes by LocalStack's queue to the database; while that is away the message stays",
    { timeout: 240_000 },
    async () => {
      const { database, queue, notify, publish, process, consume, isEmpty } = await site(localstack);
      const { arn, url } = await queue("direct");
      await notify({ QueueConfigurations: [{ QueueArn: arn, ...onHead }] });
      const away = await process("postgres://nobody@127.0.0.1:1/none?connect_timeout=2");
      const here = await process();

      // S3 tries the queue when the notification is made.
      expect(kinds(await consume(url, here))).toEqual(["test"]);

      await publish();
      const inVain = await consume(url, away);
      expect([kinds(inVain), inVain.answer.batchItemFailures.length]).toEqual([["events"], 1]);
      const again = await consume(url, here);
      expect([kinds(again), again.answer]).toEqual([["events"], { batchItemFailures: [] }]);
      expect(again.messages[0]?.id).toBe(inVain.messages[0]?.id);
      expect(await database.query("select from users")).toEqual([]);
      // Of all that a release puts into the bucket, one object is told of.
      expect(await isEmpty(url)).toBe(true);
      const runs = await database.query(
        "select status, trigger, caller ->> 'subject' as subject from lockkeeper.runs",
      );
      expect(runs).toEqual([{ status: "succeeded", trigger: "event", subject: bySqs.subject }]);
    },
  );

  test(
    "comes by MiniStack's topic, wrapped and raw, and by its bus, and has one run for all three",
    { timeout: 240_000 },
    async () => {
      const { bucket, database, options, queue, notify, publish, process, consume } = await site(ministack);
      const [wrapped, raw, bus] = [await queue("wrapped"), await queue("raw"), await queue("bus")];
      const sns = new SNSClient(options);
      const events = new EventBridgeClient(options);
      onTestFinished(() => [sns, events].forEach((client) => client.destroy()));
      const { TopicArn } = await sns.send(new CreateTopicCommand({ Name: bucket }));
      const to = { TopicArn, Protocol: "sqs" };
      await sns.send(new SubscribeCommand({ ...to, Endpoint: wrapped.arn }));
      await sns.send(
        new SubscribeCommand({ ...to, Endpoint: raw.arn, Attributes: { RawMessageDelivery: "true" } }),
      );
      const pattern = {
        source: ["aws.s3"],
        "detail-type": ["Object Created"],
        detail: { bucket: { name: [bucket] }, object: { key: [head] } },
      };
      await events.send(new PutRuleCommand({ Name: bucket, EventPattern: JSON.stringify(pattern) }));
      await events.send(new PutTargetsCommand({ Rule: bucket, Targets: [{ Id: "queue", Arn: bus.arn }] }));
      await notify({ TopicConfigurations: [{ TopicArn, ...onHead }], EventBridgeConfiguration: {} });
      const one = await process();
      for (const { url } of [wrapped, raw]) expect(kinds(await consume(url, one))).toEqual(["test"]);

      await publish();
      const consumed = [];
      for (const { url } of [wrapped, raw, bus]) consumed.push(await consume(url, one));
      const wanted = { provider: "s3", bucket, key: head };
      for (const { messages } of consumed)
        expect(messages).toMatchObject([{ content: { kind: "events", via: "sqs", events: [wanted] } }]);
      expect(await database.query("select status from lockkeeper.runs")).toEqual([{ status: "succeeded" }]);
    },
  );
});
