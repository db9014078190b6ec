import { expect, test } from "vitest";
import { githubChannel } from "../../src/notify/github.ts";
import type { Lost } from "../../src/notify/mailbox.ts";
import { Notifier } from "../../src/notify/notifier.ts";
import { notificationKinds } from "../../src/notify/notification.ts";
import { createDatabase } from "../support/database.ts";
import { openTarget, tableMigrations } from "../support/target.ts";
import { receiver, type Receiver } from "./receiver.ts";

const commit = "3f2a9b1".padEnd(40, "0");
const patienceMs = 60_000;

/** GitHub's API has no server to run here: this one answers as its documentation says. */
async function github(): Promise<Receiver> {
  return receiver(({ path }) => ({ status: 201, body: path.endsWith("/deployments") ? '{"id":42}' : "{}" }));
}

function notifierFor({ url }: Receiver): { notifier: Notifier; readonly lost: Lost[] } {
  const lost: Lost[] = [];
  const channel = githubChannel({
    api: new URL(url),
    repository: "acme/shop",
    environment: undefined,
    token: () => Promise.resolve("ghs_secret"),
  });
  const notifier = new Notifier([{ channel, kinds: new Set(notificationKinds), targets: undefined }], {
    onLost: (one) => lost.push(one),
    now: () => new Date(),
  });
  return { notifier, lost };
}

test("a commit gets one deployment, in progress and then done", async () => {
  const to = await github();
  const { notifier, lost } = notifierFor(to);
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier] });
  await target.run({ labels: { commit, pipelineUrl: "https://ci.example/7" } });
  await notifier.flush(patienceMs);
  expect(lost).toEqual([]);
  expect(to.received.map(({ path, json }) => [path, json.state ?? json.ref])).toEqual([
    ["/repos/acme/shop/deployments", commit],
    ["/repos/acme/shop/deployments/42/statuses", "in_progress"],
    ["/repos/acme/shop/deployments/42/statuses", "success"],
  ]);
  expect(to.received[0]?.json).toMatchObject({ auto_merge: false, required_contexts: [], environment: "t" });
  expect(to.received[2]?.json).toMatchObject({ log_url: "https://ci.example/7", environment: "t" });
  expect(to.received[2]?.json.description).toMatch(/^0 → 1, 1 step in /);
  expect(to.received[0]?.headers).toMatchObject({
    authorization: "Bearer ghs_secret",
    accept: "application/vnd.github+json",
  });
});

test("a deployment that the pipeline has made gets the status itself; a long reason is cut to what GitHub takes", async () => {
  const to = await github();
  const { notifier } = notifierFor(to);
  const { url } = await createDatabase();
  const up = `select ${"a".repeat(60)}, nowhere from pg_catalog.${"b".repeat(60)};`;
  const target = await openTarget(url, [{ path: "1_a.up.sql", up }], { observers: [notifier] });
  await target.run({ labels: { githubDeployment: "7" } });
  await notifier.flush(patienceMs);
  expect(to.received.map(({ path, json }) => [path, json.state])).toEqual([
    ["/repos/acme/shop/deployments/7/statuses", "in_progress"],
    ["/repos/acme/shop/deployments/7/statuses", "failure"],
  ]);
  for (const { json } of to.received) expect([...String(json.description)].length).toBeLessThanOrEqual(140);
});

test.for([
  ["without a label", {}],
  ["with one that is no commit", { commit: "main; rm -rf" }],
  ["with one that is no deployment", { githubDeployment: "7/../../hooks" }],
] as const)("a run %s is not told of", async ([, labels]) => {
  const to = await github();
  const { notifier, lost } = notifierFor(to);
  const { url } = await createDatabase();
  await (await openTarget(url, tableMigrations(1), { observers: [notifier] })).run({ labels });
  await notifier.flush(patienceMs);
  expect(to.received).toEqual([]);
  expect(lost).toEqual([]);
});
