import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, test } from "vitest";
import { createSnsVerifier, isCertificateUrl } from "../../src/http/auth/sns.ts";
import { createWorld, orders, users, type Answer, type World } from "../http/world.ts";
import { recordOutbound } from "../support/outbound.ts";
import { needs } from "../support/parts.ts";
import { runsOf } from "../support/runs-of.ts";
import { createSns, testCertificateUrl, testTopic, type TestSns } from "../support/sns.ts";

needs("openssl");

/** The world of one test: a topic, and the addresses that its verifier has asked for certificates. */
interface Site {
  readonly world: World;
  readonly asked: readonly string[];
  post(message: unknown, path?: string): Promise<Answer>;
  /** why the last delivery was not taken, as the log says */
  reason(): unknown;
  runs(): Promise<number>;
}

let sns: TestSns;
/** for what is refused, and so leaves nothing behind */
let closed: Site;
beforeAll(async () => {
  sns = createSns();
  closed = await createSite();
});

async function createSite(certificate = sns.certificate, environment = "default"): Promise<Site> {
  const asked: string[] = [];
  const world = await createWorld({
    environment,
    callers: {
      hooks: { bucket: { kind: "sns", topicArn: testTopic } },
      rules: [{ id: "on-publish", hook: "bucket", allow: { targets: ["orders"], actions: ["apply"] } }],
      fetch: (url) => {
        asked.push(url);
        return Promise.resolve(new Response(certificate));
      },
    },
  });
  return {
    world,
    asked,
    post: (message, path = "/v1/hooks/bucket/orders") =>
      world.send("POST", path, {
        token: null,
        text: typeof message === "string" ? message : JSON.stringify(message),
        headers: { "content-type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": "Notification" },
      }),
    reason: () => world.log.findLast(({ event }) => event === "http.request")?.fields["reason"],
    runs: () => runsOf(world.database),
  };
}

/** Nothing happened, and the sender learns no more than that. */
async function expectRefused(site: Site, answer: Answer): Promise<void> {
  expect(answer.status).toBe(401);
  expect(answer.body).toMatchObject({ code: "UNAUTHENTICATED", detail: "the delivery was not accepted" });
  expect(await site.runs()).toBe(0);
}

describe("attack 46: messages that SNS did not send, or not to us", () => {
  test("46 what SNS really sent applies the newest release, once, and its certificate is asked for once", async () => {
    const outbound = recordOutbound();
    const site = await createSite();
    await site.world.bucket.publish(users);
    const message = sns.message();
    const first = await site.post(message);
    // 202, or 200 where the run was quicker than its answer
    expect([200, 202]).toContain(first.status);
    expect(first.body.trigger).toEqual({
      kind: "event",
      actor: "bucket",
      issuer: "urn:lockkeeper:hook:bucket",
      rule: "on-publish",
    });
    const again = await site.post(message);
    expect(again.body.id).toBe(first.body.id);
    const ended = await site.world.send("GET", `/v1/runs/${first.body.id}?wait=50`);
    expect(ended.body).toMatchObject({ status: "succeeded", outcome: "applied" });
    expect(await site.runs()).toBe(1);
    expect(site.asked).toEqual([testCertificateUrl]);
    expect(outbound.hosts).toEqual([]);
  });

  test.for([
    "https://sns.eu-central-1.amazonaws.com{.evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com;.evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.s3.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com.cn/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://evil@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem?x=1",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem#x",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem\n",
    "https://sns.eu-central-1.amazonaws.com/\nSimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/evil.pem",
    "https://sns.eu-central-1.amazonaws.com/a/../SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789ABCDEF0123456789ABCDEF.pem",
    "https://SNS.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://sns-eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "https://169.254.169.254/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "file:///SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
    "",
  ])("46 a certificate is not asked for at %j", (url) => {
    expect(isCertificateUrl(url, testTopic)).toBe(false);
  });

  test("46 a certificate's address is that of the topic's own region and partition", () => {
    expect(isCertificateUrl(testCertificateUrl, testTopic)).toBe(true);
    const chinese = testCertificateUrl.replace("eu-central-1.amazonaws.com", "cn-north-1.amazonaws.com.cn");
    const topic = "arn:aws-cn:sns:cn-north-1:123456789012:releases";
    expect(isCertificateUrl(chinese, topic)).toBe(true);
    expect(isCertificateUrl(chinese.replace(".com.cn", ".com"), topic)).toBe(false);
  });

  test("46 a message with a spoofed certificate address, though rightly signed, fetches nothing and changes nothing", async () => {
    const before = closed.asked.length;
    const SigningCertURL =
      "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";
    await expectRefused(closed, await closed.post(sns.message({ SigningCertURL })));
    expect(closed.asked).toHaveLength(before);
  });

  test.for<[string, (message: Record<string, string>) => unknown]>([
    ["of another topic", () => sns.message({ TopicArn: `${testTopic}2` })],
    ["with SignatureVersion 1 and SHA-1", () => sns.message({ SignatureVersion: "1" })],
    ["with SignatureVersion 1 over a signature of 2", (message) => ({ ...message, SignatureVersion: "1" })],
    ["of 20 minutes ago", () => sns.message({ Timestamp: minutesFromNow(-20) })],
    ["of in 20 minutes", () => sns.message({ Timestamp: minutesFromNow(20) })],
    ["without a real time", () => sns.message({ Timestamp: "2026-99-99T00:00:00.000Z" })],
    ["without an id", () => sns.message({ MessageId: undefined })],
    ["with an id that is none", () => sns.message({ MessageId: "a\nSubject\nb" })],
    ["with a line break in its subject", () => sns.message({ Subject: "a\nTimestamp\nb" })],
    ["of another type", () => sns.message({ Type: "Rebalance" })],
    ["without a signature", (message) => ({ ...message, Signature: undefined })],
    ["without a certificate's address", (message) => ({ ...message, SigningCertURL: undefined })],
    ["in a list", (message) => [message]],
    [
      "with a field twice",
      (message) => JSON.stringify(message).replace('{"', `{"TopicArn":"${testTopic}2","`),
    ],
    ["that is no JSON", () => "hello"],
    ["that is empty", () => ""],
  ])("46 a message %s is refused before anything is fetched", async ([, change]) => {
    const before = closed.asked.length;
    await expectRefused(closed, await closed.post(change(sns.message())));
    expect(closed.asked).toHaveLength(before);
    expect(closed.reason()).not.toBe("the signature is not of this message");
  });

  test.for<[string, (message: Record<string, string>) => unknown]>([
    ["an edited message", (message) => ({ ...message, Message: `${message["Message"]} ` })],
    ["an edited subject", (message) => ({ ...message, Subject: "another" })],
    ["a subject taken away", (message) => ({ ...message, Subject: undefined })],
    ["another id", (message) => ({ ...message, MessageId: randomUUID() })],
    ["another time", (message) => ({ ...message, Timestamp: minutesFromNow(-1) })],
    [
      "another type",
      (message) => ({ ...message, Type: "UnsubscribeConfirmation", Token: "a", SubscribeURL: "b" }),
    ],
    ["another key's signature", () => createSns().message()],
    [
      "parts of the message passed off as its subject",
      () => {
        const Message = `a\nMessageId\n${randomUUID()}\nSubject\nb`;
        return { ...sns.message({ Subject: undefined, Message }), Message: "a", Subject: "b" };
      },
    ],
  ])("46 %s is refused by the signature", async ([, change]) => {
    await expectRefused(closed, await closed.post(change(sns.message())));
    expect(closed.reason()).toBe("the signature is not of this message");
  });

  test("46 a replayed message with another body under its id changes nothing", async () => {
    const site = await createSite();
    await site.world.bucket.publish(users);
    const MessageId = randomUUID();
    const first = await site.post(sns.message({ MessageId }));
    // 202, or 200 where the run was quicker than its answer
    expect([200, 202]).toContain(first.status);
    // AWS would not sign that; if it did, it were still refused
    const second = await site.post(sns.message({ MessageId, Message: "another" }));
    expect([second.status, second.body.code]).toEqual([409, "REPLAY"]);
    expect(await site.runs()).toBe(1);
  });

  test("46 a SubscriptionConfirmation is only logged, with what the operator does; its address is not visited", async () => {
    const outbound = recordOutbound();
    const site = await createSite();
    const answer = await site.post(sns.confirmation());
    expect([answer.status, answer.text]).toEqual([204, ""]);
    expect(site.asked).toEqual([testCertificateUrl]);
    expect(outbound.hosts).toEqual([]);
    expect(await site.runs()).toBe(0);
    expect(site.world.log.find(({ event }) => event === "hook.subscription")?.fields).toEqual({
      hook: "bucket",
      topicArn: testTopic,
      confirm: `aws sns confirm-subscription --topic-arn ${testTopic} --token 2336412f37fb687f5d51e6e2425dacbb`,
    });
  });

  test("46 a forged SubscriptionConfirmation is not even logged as one", async () => {
    await expectRefused(closed, await closed.post({ ...sns.confirmation(), Token: "AAAA" }));
    await expectRefused(closed, await closed.post(sns.confirmation({ Token: "x; rm -rf /" })));
    expect(closed.world.log.filter(({ event }) => event === "hook.subscription")).toEqual([]);
  });

  test.for<[string, () => string]>([
    ["a key of 1024 bits", () => createSns({ bits: 1024 }).certificate],
    ["a certificate that is none", () => "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ["a certificate larger than 16 KiB", () => "x".repeat(16 * 1024 + 1)],
  ])("46 %s is refused", async ([, certificate]) => {
    const site = await createSite(certificate());
    await expectRefused(site, await site.post(sns.message()));
  });

  test("46 forged messages can make the server ask for eight unknown certificates a minute, and no more", async () => {
    const site = await createSite("nonsense");
    for (let turn = 0; turn < 20; turn++) {
      const SigningCertURL = testCertificateUrl.replace("0123", turn.toString(16).padStart(4, "0"));
      await expectRefused(site, await site.post(sns.message({ SigningCertURL })));
    }
    expect(site.asked).toHaveLength(8);
  });

  test("46 forged messages do not push out the certificate that real ones need, nor keep it from being renewed", async () => {
    const aged = createSns({ days: 3650 });
    let at = Date.now() + 60_000;
    const asked: string[] = [];
    const verifier = createSnsVerifier({
      now: () => new Date(at),
      fetch: (url) => {
        asked.push(url);
        return Promise.resolve(new Response(url === testCertificateUrl ? aged.certificate : "nonsense"));
      },
    });
    const verify = (SigningCertURL: string): Promise<unknown> => {
      const message = aged.message({ SigningCertURL, Timestamp: new Date(at).toISOString() });
      return verifier.verify(Buffer.from(JSON.stringify(message)), testTopic);
    };
    const forge = (turn: number): Promise<unknown> =>
      verify(testCertificateUrl.replace("0123", turn.toString(16).padStart(4, "0"))).catch(() => undefined);
    await verify(testCertificateUrl);
    for (let turn = 0; turn < 40; turn++) {
      at += 10_000;
      await forge(turn);
    }
    await verify(testCertificateUrl);
    expect(asked.filter((url) => url === testCertificateUrl)).toHaveLength(1);
    at += 25 * 3_600_000;
    for (let turn = 0; turn < 20; turn++) await forge(turn);
    await verify(testCertificateUrl);
    expect(asked.filter((url) => url === testCertificateUrl)).toHaveLength(2);
  });

  test("46 a certificate that is not valid now proves nothing", async () => {
    for (const days of [-1, 40]) {
      const verifier = createSnsVerifier({
        now: () => new Date(Date.now() + days * 86_400_000),
        fetch: () => Promise.resolve(new Response(sns.certificate)),
      });
      const Timestamp = new Date(Date.now() + days * 86_400_000).toISOString();
      const body = Buffer.from(JSON.stringify(sns.message({ Timestamp })));
      await expect(verifier.verify(body, testTopic)).rejects.toThrow("the certificate is not valid now");
    }
  });

  test("46 a message names no digest, so a database of production refuses it", async () => {
    const site = await createSite(sns.certificate, "production");
    await site.world.bucket.publish(users);
    const answer = await site.post(sns.message());
    expect([answer.status, answer.body.code]).toEqual([403, "DIGEST_REQUIRED"]);
    expect(await site.runs()).toBe(0);
    // what was published can be a run request, and then it is no more than that
    const request = { target: "orders", action: "apply" };
    const Message = JSON.stringify({ ...request, bucket: "evil" });
    const surplus = await site.post(sns.message({ Message }), "/v1/hooks/bucket");
    expect([surplus.status, surplus.body.code]).toEqual([400, "INVALID_REQUEST"]);
    const digest = await site.world.bucket.publish({ ...users, ...orders });
    const named = JSON.stringify({ ...request, release: { digest } });
    const asked = await site.post(sns.message({ Message: named }), "/v1/hooks/bucket");
    expect([asked.body.trigger.actor, asked.body.release.digest]).toEqual(["bucket", digest]);
    await site.world.app.active.drained();
  });
});

function minutesFromNow(minutes: number): string {
  return new Date(Date.now() + minutes * 60_000).toISOString();
}
