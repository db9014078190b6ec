import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { parseConfig } from "../../src/bin/config-file.ts";
import { notificationKinds } from "../../src/notify/notification.ts";
import { Notifier } from "../../src/notify/notifier.ts";
import { webhookChannel } from "../../src/notify/webhook.ts";
import { createDatabase } from "../support/database.ts";
import { openTarget, tableMigrations } from "../support/target.ts";
import { receiver } from "./receiver.ts";

const page = readFileSync(path.join(import.meta.dirname, "../../infra/notifications.md"), "utf8");

function block(info: string): string {
  const [, text] = new RegExp(`\`\`\`${info}\\n([^]*?)\`\`\``).exec(page) ?? [];
  expect(text, info).toBeDefined();
  return text ?? "";
}

test("the page's configuration is one, and tells of every kind", () => {
  expect(parseConfig(block("yaml file=lockkeeper.yaml"))).toMatchObject({
    kind: "config",
    config: { notify: [{ webhook: {} }, { slack: {}, targets: ["orders-prod"] }, { github: {} }] },
  });
  for (const kind of notificationKinds) expect(page).toContain(`| \`${kind}\` |`);
});

test("the page's message has the fields of a real one, and no others", async () => {
  const to = await receiver();
  const channel = webhookChannel(new URL(to.url), {
    source: "https://migrate.example",
    secret: () => Promise.resolve(Buffer.alloc(32)),
    now: () => new Date(),
  });
  const notifier = new Notifier([{ channel, kinds: new Set(["succeeded"]), targets: undefined }], {
    onLost: () => undefined,
    now: () => new Date(),
  });
  const { url } = await createDatabase();
  const target = await openTarget(url, tableMigrations(1), { observers: [notifier] });
  const labels = { commit: "3f2a9b1", pipelineUrl: "https://ci.example/7" };
  await target.run({ labels, caller: { issuer: "i", subject: "s", rule: "r" } });
  await notifier.flush(60_000);
  expect(keysOf(to.received[0]?.json)).toEqual(keysOf(JSON.parse(block("json message"))));
});

/** Names of all fields at every level; of a list those of its first entry. */
function keysOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.slice(0, 1).map(keysOf);
  if (typeof value !== "object" || value === null) return null;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, keysOf(inner)]));
}
