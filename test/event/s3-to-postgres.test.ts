import { PutBucketNotificationConfigurationCommand, S3Client } from "@aws-sdk/client-s3";
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SQSClient,
} from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";

import { lineOf } from "../../src/dispatch/received.ts";
import { decodeEvent } from "../../src/event/decode.ts";
import { answerBatch } from "../../src/event/sqs.ts";
import { openDriver } from "../../src/driver/open.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { openSource } from "../../src/source/open.ts";
import { bySqs, processOf } from "../dispatch/process.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { createDatabase } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { makeKeys, publishTo } from "../support/release.ts";
import { never } from "../support/steps.ts";

needs("localstack");

let server: S3Server;
beforeAll(async () => {
  server = await startS3("localstack", "s3,sqs");
}, 120_000);
afterAll(() => server.stop());

test(
  "a release put into a bucket of S3 comes by LocalStack's queue to the database; while that is away the message stays",
  { timeout: 120_000 },
  async () => {
    const options = { endpoint: server.endpoint, region: "us-east-1", credentials: server.credentials };
    const sqs = new SQSClient(options);
    const s3 = new S3Client({ ...options, forcePathStyle: true });
    onTestFinished(() => [sqs, s3].forEach((client) => client.destroy()));
    const url = await server.createBucket({ versioning: true });
    const bucket = url.replace("s3://", "");
    const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: bucket }));
    const { Attributes } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["QueueArn"] }),
    );
    await s3.send(
      new PutBucketNotificationConfigurationCommand({
        Bucket: bucket,
        NotificationConfiguration: {
          QueueConfigurations: [
            {
              QueueArn: Attributes?.["QueueArn"],
              Events: ["s3:ObjectCreated:*"],
              Filter: { Key: { FilterRules: [{ Name: "prefix", Value: "orders/head.json" }] } },
            },
          ],
        },
      }),
    );
    const database = await createDatabase();
    const source = await openSource(`${url}/orders`, server.options);
    const { key, trust } = makeKeys();
    const open = async (databaseUrl: string) => {
      const driver = await openDriver(databaseUrl);
      onTestFinished(() => driver.close());
      return processOf({
        name: "orders",
        stream: "orders",
        environment: "default",
        releases: signedReleases({
          source,
          stream: "orders",
          environment: "default",
          engine: "postgres",
          trust,
        }),
        driver,
        limits: { waitMs: 20_000, lockTimeoutMs: 2_000, statementTimeoutMs: 0, deadlineMs: 0 },
        watched: { provider: "s3", bucket, key: "orders/head.json" },
      });
    };
    const away = await open("postgres://nobody@127.0.0.1:1/none?connect_timeout=2");
    const here = await open(database.url);

    /** One batch as Lambda would be given it, and what it answers; what succeeded leaves the queue, the rest is there at once. */
    const consume = async ({ waker, active }: typeof here, isExpected = true) => {
      const receive = async () =>
        (
          await sqs.send(
            new ReceiveMessageCommand({
              QueueUrl,
              WaitTimeSeconds: 2,
              VisibilityTimeout: 0,
              MaxNumberOfMessages: 1,
            }),
          )
        ).Messages ?? [];
      let Messages = await receive();
      if (isExpected) while (Messages.length === 0) Messages = await receive();
      const records = Messages.map(({ MessageId, Body }) => ({
        eventSource: "aws:sqs",
        messageId: MessageId,
        body: Body,
      }));
      const decoded = decodeEvent({ Records: records });
      if (decoded.kind !== "batch") return undefined;
      const failed = new Set<string>();
      for (const { id, content } of decoded.messages) {
        if (content.kind !== "events") continue;
        const woken = await waker.wake(content.events, bySqs, never);
        for (const one of woken) if (one.kind === "run") await active.ended(one.run.id);
        if (woken.some(({ kind }) => kind === "unreachable")) failed.add(id);
      }
      const answer = answerBatch(decoded.messages, failed);
      for (const { MessageId, ReceiptHandle } of Messages) {
        if (answer.batchItemFailures.some(({ itemIdentifier }) => itemIdentifier === MessageId)) continue;
        await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
      }
      return {
        kinds: decoded.messages.map(({ content }) => content.kind),
        again: answer.batchItemFailures.length,
        decoded,
      };
    };

    // S3 tries the queue when the notification is made.
    const tried = await consume(here);
    expect(tried).toMatchObject({ kinds: ["test"], again: 0 });
    expect(tried?.decoded.messages.map(({ content }) => lineOf(content, bySqs)?.fields["result"])).toEqual([
      "test",
    ]);

    await publishTo(source, { "1_users.up.sql": "create table users (id int);" }, { keys: [key] });
    expect(await consume(away)).toMatchObject({ kinds: ["events"], again: 1 });
    expect(await consume(here)).toMatchObject({ kinds: ["events"], again: 0 });
    expect(await database.query("select from users")).toEqual([]);
    // Of all that a release puts into the bucket, one object is told of.
    expect(await consume(here, false)).toBeUndefined();
    const runs = await database.query(
      "select status, trigger, caller ->> 'subject' as subject from lockkeeper.runs",
    );
    expect(runs).toEqual([{ status: "succeeded", trigger: "event", subject: bySqs.subject }]);
  },
);
