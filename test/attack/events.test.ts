import { beforeAll, describe, expect, test } from "vitest";

import type { LogRecord } from "../../src/report/log.ts";
import { createWorld, users, type World } from "../http/world.ts";
import { recordOutbound } from "../support/outbound.ts";
import { runsOf } from "../support/runs-of.ts";

const watched = { provider: "s3", bucket: "releases", key: "orders/head.json" } as const;
const rules = [
  {
    id: "events",
    issuer: "ci",
    match: { role: "events" },
    allow: { targets: ["orders"], actions: ["wake"] },
  },
];

/** S3's record of an object. */
function s3(bucket: unknown, key: unknown, more: object = {}): object {
  return {
    Records: [
      {
        eventSource: "aws:s3",
        eventName: "ObjectCreated:Put",
        s3: { bucket: { name: bucket }, object: { key } },
        ...more,
      },
    ],
  };
}

function gcs(bucketId: string, objectId: string, eventType = "OBJECT_FINALIZE"): object {
  return {
    subscription: "projects/p/subscriptions/s",
    message: { messageId: "1", attributes: { eventType, bucketId, objectId } },
  };
}

function nested(depth: number): object {
  let body: object = s3("releases", "orders/head.json");
  for (let level = 0; level < depth; level++)
    body = { Type: "Notification", MessageId: "m", Message: JSON.stringify(body) };
  return body;
}

function start(): Promise<World> {
  return createWorld({ target: { watched }, callers: { rules } });
}

/** For events that get nowhere, and so leave nothing behind. */
let world: World;
beforeAll(async () => {
  world = await start();
  await world.bucket.publish(users);
});

interface Sent {
  readonly status: number;
  /** that were asked for anything */
  readonly hosts: readonly string[];
  readonly log: readonly LogRecord[];
}

async function send(to: World, body: object | string): Promise<Sent> {
  const { hosts } = recordOutbound();
  const from = to.log.length;
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const { status } = await to.send("POST", "/events", { text, token: await to.token({ role: "events" }) });
  await to.app.active.drained();
  return { status, hosts, log: to.log.slice(from) };
}

describe("attack 47: an event that names where to go", () => {
  test.for([
    ["another bucket", s3("evil", "orders/head.json")],
    ["another object of the bucket", s3("releases", "orders/head.json.sig")],
    ["the bucket of another provider", gcs("releases", "orders/head.json")],
    ["a bucket with a scheme", s3("gs://releases", "orders/head.json")],
    ["a URL as bucket", s3("http://169.254.169.254/latest", "meta-data")],
    ["a URL as key", s3("releases", "http://169.254.169.254/latest/meta-data")],
    ["a path upwards", s3("releases", "x/../orders/head.json")],
    ["a key encoded twice", s3("releases", "orders%252Fhead.json")],
    ["another case", s3("Releases", "orders/head.json")],
    ["a key with a null byte", s3("releases", "orders/head.json%00")],
    [
      "an endpoint beside the bucket",
      { ...s3("evil", "orders/head.json"), endpoint: "http://169.254.169.254" },
    ],
    [
      "a topic that would be asked",
      {
        Type: "SubscriptionConfirmation",
        SubscribeURL: "http://169.254.169.254/",
        TopicArn: "arn:aws:sns:a:1:t",
        Token: "t",
      },
    ],
    ["SQL in place of a key", s3("releases", "'; drop table users; --")],
  ] as const)("47 %s: nothing is fetched, and nothing runs", async ([, body]) => {
    const { status, hosts } = await send(world, body);
    expect([status, hosts]).toEqual([204, []]);
    expect(await runsOf(world.database)).toBe(0);
  });

  test("47 an event with more beside what is watched wakes what is configured, and nothing else", async () => {
    const body = s3("releases", "orders/head.json", {
      source: "gs://evil/x",
      release: "sha256:00",
      target: "billing",
      s3: {
        bucket: { name: "releases", arn: "arn:aws:s3:::evil", url: "http://169.254.169.254" },
        object: { key: "orders/head.json", url: "http://169.254.169.254" },
      },
    });
    const one = await start();
    await one.bucket.publish(users);
    const { status, hosts } = await send(one, body);
    expect([status, hosts]).toEqual([204, []]);
    const [run] = await one.target.driver.runs({ target: "orders", limit: 2 }, AbortSignal.timeout(20_000));
    expect(run).toMatchObject({ target: "orders", status: "succeeded", releaseVersion: 1 });
  });

  test.for([
    ["messages within messages", nested(9)],
    ["a hundred thousand levels", `{"Records":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
    [
      "more than a quarter of a megabyte",
      s3("releases", "orders/head.json", { pad: "x".repeat(256 * 1024) }),
    ],
    ["twenty thousand records", `{"Records":[${Array.from({ length: 20_000 }, () => "{}").join()}]}`],
    ["names of prototypes", '{"__proto__":{"Records":[1]},"constructor":{"prototype":{}}}'],
  ] as const)("47 %s are acknowledged, and nothing is done", async ([, body]) => {
    const { status, hosts, log } = await send(world, body);
    expect([status, hosts]).toEqual([204, []]);
    expect(await runsOf(world.database)).toBe(0);
    expect(log.find(({ event }) => event === "event.received")?.fields).toMatchObject({
      result: "unknown",
    });
  });
});
