import { resolve } from "node:path";
import { readSecretFile } from "../cli/secret-file.ts";
import { RunnerError, toRunnerError } from "../error.ts";
import { parseHookUrl } from "../hook/url.ts";
import type { Channel } from "../notify/channel.ts";
import { notificationKinds, type NotificationKind } from "../notify/notification.ts";
import type { Notifier, Subscription } from "../notify/notifier.ts";
import type { NotifyText } from "./notify-schema.ts";
import type { Config } from "./config.ts";
import type { ObserverSettings } from "./observers.ts";

/** Below this a secret could be guessed from one message that somebody has seen. */
const minSecretBytes = 24;

/**
 * Who tells others of runs, as the configuration says. All files are read once now, so that a wrong one is found when a
 * server starts, and again for each message, because secrets are renewed in place.
 *
 * @throws RunnerError `CONFIG`, `USAGE` for files and addresses that cannot be used; at a terminal that is a warning, because
 *   whoever may run a migration there need not be able to read the secrets of a server
 */
export async function openNotifier(
  config: Config,
  { log, isOneRun = false }: Pick<ObserverSettings, "log" | "isOneRun">,
): Promise<Notifier> {
  const { Notifier } = await import("../notify/notifier.ts");
  const subscriptions: Subscription[] = [];
  for (const entry of config.notify) {
    try {
      subscriptions.push(await subscriptionOf(entry, config));
    } catch (thrown) {
      if (!isOneRun) throw thrown;
      const message = `nobody is notified: ${toRunnerError(thrown).message}`;
      log({ level: "warn", event: "notification.closed", fields: { message } });
    }
  }
  return new Notifier(subscriptions, {
    onLost({ channel, notification: { kind, run }, reason }) {
      const message = `${channel} was not told that run ${run.id} ${words[kind]}: ${reason}`;
      const fields = { channel, kind, run: run.id, target: run.target, message };
      log({ level: "warn", event: "notification.lost", fields });
    },
    now: () => new Date(),
  });
}

const words = {
  started: "began",
  succeeded: "succeeded",
  failed: "failed",
  refused: "was refused",
  attention: "needs attention",
} as const satisfies Record<NotificationKind, string>;

async function subscriptionOf(entry: NotifyText, config: Config): Promise<Subscription> {
  const [channel, usual] = await channelOf(entry, config);
  const targets = entry.targets === undefined ? undefined : new Set(entry.targets);
  return { channel, kinds: new Set(entry.on ?? usual), targets };
}

/** The channel, and what it is told of unless the entry says otherwise. */
async function channelOf(
  { webhook, slack, github }: NotifyText,
  { file, publicUrl }: Config,
): Promise<readonly [Channel, readonly NotificationKind[]]> {
  const at = (name: string): string => resolve(file, "..", name);
  if (webhook !== undefined) {
    const { webhookChannel } = await import("../notify/webhook.ts");
    const { url, urlFile, secretFile } = webhook;
    const address = url ?? (await readSecretFile(at(urlFile ?? ""), "the webhook's URL file")).trim();
    const secret = async (): Promise<Buffer> =>
      parseSecret(await readSecretFile(at(secretFile), "the webhook's secret file"));
    await secret();
    const options = { source: publicUrl ?? "", secret, now: () => new Date() };
    return [webhookChannel(parseHookUrl(address, "the webhook's URL"), options), notificationKinds];
  }
  if (slack !== undefined) {
    const { slackChannel } = await import("../notify/slack.ts");
    const url = async (): Promise<URL> =>
      parseHookUrl((await readSecretFile(at(slack.urlFile), "Slack's URL file")).trim(), "Slack's URL");
    await url();
    return [slackChannel(url), notificationKinds.filter((kind) => kind !== "started")];
  }
  if (github !== undefined) {
    const { githubChannel } = await import("../notify/github.ts");
    const { repository, tokenFile, environment, api } = github;
    const token = async (): Promise<string> =>
      (await readSecretFile(at(tokenFile), "GitHub's token file")).trim();
    await token();
    const options = { api: parseHookUrl(api, "GitHub's API"), repository, environment, token };
    return [githubChannel(options), notificationKinds];
  }
  throw new RunnerError("INTERNAL", "an entry of notify names nobody");
}

/** `whsec_` and base64, as Standard Webhooks writes it. */
function parseSecret(text: string): Buffer {
  const base64 = text.trim().replace(/^whsec_/, "");
  const key = Buffer.from(base64, "base64");
  if (key.toString("base64") === base64 && key.length >= minSecretBytes) return key;
  throw new RunnerError(
    "CONFIG",
    `the webhook's secret file does not hold whsec_ and the base64 of at least ${minSecretBytes} bytes`,
    { hint: 'make one with: echo "whsec_$(openssl rand -base64 32)"' },
  );
}
