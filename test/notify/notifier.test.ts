import { expect, test } from "vitest";
import { Webhook } from "standardwebhooks";
import { RunnerError } from "../../src/error.ts";
import type { Lost } from "../../src/notify/mailbox.ts";
import { Notifier, type Subscription } from "../../src/notify/notifier.ts";
import { notificationKinds } from "../../src/notify/notification.ts";
import { slackChannel } from "../../src/notify/slack.ts";
import { webhookChannel } from "../../src/notify/webhook.ts";
import { createDatabase } from "../support/database.ts";
import { openTarget, tableMigrations, targetOn } from "../support/target.ts";
import { receiver, type Receiver, type Said } from "./receiver.ts";

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwqrTwjUPD";
const key = Buffer.from(secret.slice("whsec_".length), "base64");
const now = (): Date => new Date();
const patienceMs = 60_000;

/** A notifier that tells a webhook everything, and what it lost. */
function tells(
  { url }: Receiver,
  change: Partial<Subscription> = {},
): { notifier: Notifier; readonly lost: Lost[] } {
  const lost: Lost[] = [];
  const channel = webhookChannel(new URL(url), {
    source: "https://migrate.example",
    secret: () => Promise.resolve(key),
    now,
  });
  const everything = { channel, kinds: new Set(notificationKinds), targets: undefined };
  const notifier = new Notifier([{ ...everything, ...change }], {
    delaysMs: [5, 10, 20],
    onLost: (one) => lost.push(one),
    now,
  });
  return { notifier, lost };
}

const kindsOf = ({ received }: Receiver): string[] => received.map(({ json }) => String(json.type));

test("a run's beginning and end are CloudEvents, signed as Standard Webhooks; a run that finds nothing to do is no news", async () => {
  const to = await receiver();
  const { notifier, lost } = tells(to);
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(2), { observers: [notifier] });

  const { runId } = await target.run({ labels: { pipelineUrl: "https://ci.example/7" } });
  await target.run();
  await notifier.flush(patienceMs);

  expect(lost).toEqual([]);
  expect(kindsOf(to)).toEqual(["lockkeeper.run.started.v1", "lockkeeper.run.succeeded.v1"]);
  const [started, succeeded] = to.received;
  for (const one of to.received)
    expect(new Webhook(secret).verify(one.text, asHeaders(one.headers))).toBeTruthy();
  expect(started?.headers["content-type"]).toBe("application/cloudevents+json");
  expect(started?.json).toMatchObject({ id: `${runId}:started`, data: { status: "running", done: [] } });
  expect(succeeded?.json).toMatchObject({
    specversion: "1.0",
    id: `${runId}:succeeded`,
    source: "https://migrate.example/v1/targets/t",
    subject: runId,
    data: {
      run: runId,
      target: "t",
      action: "apply",
      trigger: "cli",
      caller: { issuer: "os", subject: "tester", rule: null },
      labels: { pipelineUrl: "https://ci.example/7" },
      outcome: "applied",
      from: null,
      to: "2",
      done: [{ version: "1", direction: "up" }, { version: "2" }],
      left: 0,
      error: null,
    },
  });
});

test("a failed migration is told with its place, a release that is refused once, however often it is met", async () => {
  const to = await receiver();
  const { notifier } = tells(to);
  const { url } = await createDatabase();
  const target = await openTarget(url, [{ path: "1_a.up.sql", up: "select 1; select nowhere;" }], {
    observers: [notifier],
  });

  await target.run();
  for (const _ of [1, 2, 3]) await target.run({ plan: `sha256:${"0".repeat(64)}` });
  // it failed before: said already
  await target.run({ trigger: "event" });
  await notifier.flush(patienceMs);

  expect(kindsOf(to)).toEqual([
    "lockkeeper.run.started.v1",
    "lockkeeper.run.failed.v1",
    "lockkeeper.run.refused.v1",
  ]);
  expect(to.received[1]?.json.data).toMatchObject({
    outcome: "failed",
    error: { code: "MIGRATION_FAILED", fields: { migration: "1_a.up.sql", sqlstate: "42703" } },
    left: 1,
  });
  expect(to.received[2]?.json.data.error.code).toBe("PLAN_CHANGED");
});

test("a database that is away is told once, not at each try", async () => {
  const to = await receiver();
  const { notifier } = tells(to);
  const target = await openTarget("postgres://nobody@127.0.0.1:1/none", tableMigrations(1), {
    observers: [notifier],
  });
  for (const _ of [1, 2, 3]) await target.run({ trigger: "converge" });
  await notifier.flush(patienceMs);
  expect(to.received.map(({ json }) => json.data.error.code)).toEqual(["DATABASE_UNAVAILABLE"]);
});

test.for([
  ["comes back after errors and a wish to be left alone", [500, 429, 503], 4, 0],
  ["does not want it", [400], 1, 1],
  ["answers with a redirect, which nobody follows", [302], 1, 1],
  ["is away for good", [500, 500, 500, 500, 500], 4, 1],
] as const)("a receiver that %s", async ([, statuses, tries, lostCount]) => {
  const to = await receiver((_, before): Said => {
    const status = statuses[before] ?? 204;
    return { status, headers: { "retry-after": "0", location: "http://127.0.0.1:1/" } };
  });
  const { notifier, lost } = tells(to, { kinds: new Set(["succeeded"]) });
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier] });
  expect(await target.run()).toMatchObject({ status: "succeeded" });
  await expect.poll(() => to.received.length, { timeout: patienceMs }).toBe(tries);
  await notifier.flush(patienceMs);
  expect(to.received).toHaveLength(tries);
  expect(new Set(to.received.map(({ json }) => json.id)).size).toBe(1);
  expect(lost).toHaveLength(lostCount);
});

test("a receiver that never answers holds up neither the run nor the end of the process", async () => {
  const to = await receiver(() => "hang");
  const { notifier, lost } = tells(to);
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier] });
  expect(await target.run()).toMatchObject({ status: "succeeded" });
  await expect.poll(() => to.received.length, { timeout: patienceMs }).toBe(1);
  await notifier.flush(50);
  expect(lost.map(({ channel, reason }) => [channel, reason])).toEqual([
    [`webhook ${to.url}`, "the process ended"],
    [`webhook ${to.url}`, "the process ended"],
  ]);
});

test("where a process goes on after it was frozen, what one flush let go of keeps nothing later from its receiver", async () => {
  const to = await receiver((_, before) => (before === 0 ? "hang" : { status: 204 }));
  const { notifier, lost } = tells(to, { kinds: new Set(["succeeded"]) });
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier] });
  await target.run();
  await expect.poll(() => to.received.length, { timeout: patienceMs }).toBe(1);
  await notifier.flush(50);
  expect(lost).toHaveLength(1);
  await target.publish(tableMigrations(2));
  const { runId } = await target.run();
  await notifier.flush(patienceMs);
  expect(to.received.at(-1)?.json.id).toBe(`${runId}:succeeded`);
  expect(lost).toHaveLength(1);
});

test("where database, bucket and secrets are is not told to receivers", async () => {
  const to = await receiver();
  const { notifier } = tells(to);
  const slack = await receiver();
  const channel = slackChannel(() => Promise.resolve(new URL(slack.url)));
  const people = new Notifier([{ channel, kinds: new Set(notificationKinds), targets: undefined }], {
    onLost: () => undefined,
    now,
  });
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier, people] });
  const place = "s3://acme-internal-releases/orders";
  const secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:prod/orders-AbCdEf";
  const lost = new RunnerError("SOURCE_UNAVAILABLE", `${place} gave no answer`, { hint: `see ${secret}` });
  const releases = { ...target.releases, fetch: () => Promise.reject(lost) };
  const away = await targetOn(url, releases, { observers: [notifier, people] });
  await away.run();
  await Promise.all([notifier.flush(patienceMs), people.flush(patienceMs)]);
  const told = [...to.received, ...slack.received].map(({ text }) => text).join("\n");
  expect(to.received.map(({ json }) => json.data.error)).toMatchObject([
    { code: "SOURCE_UNAVAILABLE", message: "the bucket gave no answer" },
  ]);
  expect(told).not.toMatch(/acme|arn:/);
  expect(slack.received).toHaveLength(1);
});

test("nothing that an observer does changes a run", async () => {
  const { url } = await createDatabase();
  const broken = (): never => {
    throw new Error("broken");
  };
  const observers = [{ begin: broken }, { begin: () => ({ event: broken, ended: broken }) }];
  const target = await openTarget(url, tableMigrations(1), { observers });
  expect(await target.run()).toMatchObject({ status: "succeeded", outcome: "applied" });
});

test("subscribers are told what they asked for, of the targets they asked for", async () => {
  const [ours, theirs] = [await receiver(), await receiver()];
  const only = tells(ours, { kinds: new Set(["succeeded"]), targets: new Set(["t"]) });
  const other = tells(theirs, { targets: new Set(["orders-prod"]) });
  const { url } = await createDatabase();
  const observers = [only.notifier, other.notifier];
  await (await openTarget(url, tableMigrations(1), { observers })).run();
  await Promise.all([only.notifier.flush(patienceMs), other.notifier.flush(patienceMs)]);
  expect(kindsOf(ours)).toEqual(["lockkeeper.run.succeeded.v1"]);
  expect(theirs.received).toEqual([]);
});

test("Slack gets a headline, what happened and who asked, cut to its limits, with nothing that it would take for a link or a mention", async () => {
  const to = await receiver();
  const channel = slackChannel(() => Promise.resolve(new URL(`${to.url}/services/T/B/x`)));
  const notifier = new Notifier([{ channel, kinds: new Set(["failed"]), targets: undefined }], {
    onLost: () => undefined,
    now,
  });
  const { url } = await createDatabase();
  const target = await openTarget(url, [{ path: "1_a.up.sql", up: "select nowhere;" }], {
    observers: [notifier],
  });
  await target.run({
    caller: { issuer: "https://ci.example", subject: `<!channel> ${"x".repeat(5_000)}`, rule: "ci" },
    labels: { pipelineUrl: "https://ci.example/7" },
  });
  await notifier.flush(patienceMs);
  expect(to.received).toHaveLength(1);
  const { text, blocks } = to.received[0]?.json ?? {};
  expect(text).toMatch(/^t: migration failed: MIGRATION_FAILED: /);
  expect(to.received[0]?.text).not.toContain("<!channel>");
  expect(blocks[0]).toEqual({
    type: "header",
    text: { type: "plain_text", text: ":x: t: migration failed" },
  });
  const fields: { text: string }[] = blocks.flatMap(
    (block: { fields?: { text: string }[] }) => block.fields ?? [],
  );
  expect(fields.length).toBeGreaterThan(2);
  expect(Math.max(...fields.map((field) => field.text.length))).toBeLessThanOrEqual(2_000);
  expect(JSON.stringify(blocks)).toContain("https://ci.example/7");
  expect(blocks.length).toBeLessThanOrEqual(50);
});

test("a fault of a channel itself is a lost message, and nothing else", async () => {
  const lost: Lost[] = [];
  const channel = {
    name: "broken",
    send: () => Promise.reject(new RunnerError("USAGE", 'the secret\'s file: "s" is empty')),
  };
  const notifier = new Notifier([{ channel, kinds: new Set(notificationKinds), targets: undefined }], {
    onLost: (one) => lost.push(one),
    now,
  });
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier] });
  expect(await target.run()).toMatchObject({ status: "succeeded" });
  await notifier.flush(patienceMs);
  expect(lost.map(({ reason }) => reason)).toEqual([
    'the secret\'s file: "s" is empty',
    'the secret\'s file: "s" is empty',
  ]);
});

function asHeaders(headers: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, value ?? ""]));
}
