import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

import { describe, expect, test } from "vitest";

import { decodeEvent } from "../../src/event/decode.ts";
import type { BucketEvent, QueueMessage } from "../../src/event/event.ts";
import { answerBatch } from "../../src/event/sqs.ts";

/** A payload as somebody sends it, and what it is; `body` is absent where there was none. */
interface Vector {
  readonly source: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly expected: unknown;
}

const folder = path.join(import.meta.dirname, "../vectors/events");
const vectors = readdirSync(folder).map(
  (file) => [file, JSON.parse(readFileSync(path.join(folder, file), "utf8")) as Vector] as const,
);

/** S3's record of `orders/head.json`, with what differs. */
function record(change: object = {}): object {
  const s3 = { bucket: { name: "releases" }, object: { key: "orders/head.json" } };
  return { eventSource: "aws:s3", eventName: "ObjectCreated:Put", s3, ...change };
}

const wanted: BucketEvent = {
  provider: "s3",
  bucket: "releases",
  key: "orders/head.json",
  version: null,
  id: null,
};

describe("payloads of every service", () => {
  test.for(vectors)("%s is read as it says", ([, { headers = {}, body, expected }]) => {
    expect(decodeEvent(body, (name) => headers[name])).toEqual(expected);
  });

  test("are known from each path that there is", () => {
    const paths = vectors.map(([, { expected }]) => JSON.stringify(expected));
    for (const via of ["s3", "sns", "sqs", "eventbridge", "pubsub", "eventarc"])
      expect(paths.some((text) => text.includes(`{"kind":"events","via":"${via}","events":[{`))).toBe(true);
  });
});

describe("what nobody sends", () => {
  const inQueue = (body: unknown): object => ({
    Records: [{ eventSource: "aws:sqs", messageId: "1", body: JSON.stringify(body) }],
  });
  const inTopic = (body: unknown): object => ({
    Type: "Notification",
    MessageId: "m",
    Message: JSON.stringify(body),
  });
  const deep = "[".repeat(100_000) + "]".repeat(100_000);

  test.for([
    ["nothing", undefined],
    ["null", null],
    ["a number", 1],
    ["a text", "aws:s3"],
    ["an empty list", []],
    ["a list in a list", [[{ Records: [record()] }]]],
    ["no record", { Records: [] }],
    ["records that are none", { Records: "aws:s3" }],
    ["a list as records with a length of its own", { Records: { length: 1, 0: record() } }],
    ["more records than any batch", { Records: Array.from({ length: 10_001 }, () => record()) }],
    ["a bucket that is none", { Records: [record({ s3: { bucket: [], object: {} } })] }],
    [
      "a key longer than S3 has",
      { Records: [record({ s3: { bucket: { name: "b" }, object: { key: "k".repeat(3073) } } })] },
    ],
    ["an empty key", { Records: [record({ s3: { bucket: { name: "b" }, object: { key: "" } } })] }],
    ["a location in place of a bucket", { url: "gs://releases/orders", bucket: "http://169.254.169.254" }],
    ["levels without end", JSON.parse(deep) as unknown],
    ["a message too long for a queue", inTopic("x".repeat(1024 * 1024))],
    [
      "a message in a message in a message in a message",
      inTopic(inTopic(inTopic(inTopic({ Records: [record()] })))),
    ],
    ["names that every object has", JSON.parse('{"__proto__":{"Records":[]},"constructor":1}') as unknown],
  ] as const)("%s is unknown, with a reason that quotes none of it", ([, body]) => {
    const found = decodeEvent(body);
    expect(found.kind).toBe("unknown");
    expect(found.kind === "unknown" && found.reason).toMatch(/^[a-zA-Z0-9:,'/ -]{10,120}$/);
  });

  test("a message within two others is read, and a batch within a batch is not", () => {
    const nested = decodeEvent(inTopic(inTopic(inTopic({ Records: [record()] }))));
    expect(nested).toEqual({ kind: "events", via: "sns", events: [{ ...wanted, id: "m" }] });
    const batch = decodeEvent(inQueue(inQueue({ Records: [record()] })));
    expect(batch).toMatchObject({ kind: "batch", messages: [{ id: "1", content: { kind: "unknown" } }] });
  });

  test("one record that cannot be read takes nothing from the others", () => {
    const found = decodeEvent({
      Records: [record({ s3: null }), record(), record({ eventName: "ObjectRemoved:Delete" })],
    });
    expect(found).toEqual({
      kind: "events",
      via: "s3",
      events: [wanted],
    });
  });

  test("headers say nothing of a message within the payload", () => {
    const object = { bucket: "b", name: "n", kind: "other" };
    const headers = (name: string) =>
      name === "ce-type" ? "google.cloud.storage.object.v1.finalized" : undefined;
    expect(decodeEvent(object, headers)).toMatchObject({ kind: "events" });
    expect(decodeEvent(inQueue(object), headers)).toMatchObject({
      messages: [{ content: { kind: "unknown" } }],
    });
  });
});

describe("the answer for a batch", () => {
  const message = (id: string, group: string | null = null): QueueMessage => ({
    id,
    group,
    content: { kind: "test", via: "sqs" },
  });

  test("names what is to come again, and is an empty list where nothing is", () => {
    const messages = [message("a"), message("b"), message("c")];
    expect(answerBatch(messages, new Set())).toEqual({ batchItemFailures: [] });
    expect(answerBatch(messages, new Set(["b", "other"]))).toEqual({
      batchItemFailures: [{ itemIdentifier: "b" }],
    });
  });

  test("names all that follow a failure in its group, and nothing of other groups", () => {
    const messages = [
      message("a1", "a"),
      message("b1", "b"),
      message("a2", "a"),
      message("b2", "b"),
      message("a3", "a"),
    ];
    expect(answerBatch(messages, new Set(["a2"]))).toEqual({
      batchItemFailures: [{ itemIdentifier: "a2" }, { itemIdentifier: "a3" }],
    });
  });
});
