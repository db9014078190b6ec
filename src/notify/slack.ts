import type { Channel } from "./channel.ts";
import { cut, errorOf, headline, pipelineUrl, summary, type Notification } from "./notification.ts";
import { post } from "./post.ts";

/** Characters that Slack takes: of a header, of a field. */
const most = { header: 150, field: 2_000 } as const;

const signs = {
  started: ":hourglass_flowing_sand:",
  succeeded: ":white_check_mark:",
  failed: ":x:",
  refused: ":no_entry:",
  attention: ":rotating_light:",
} as const satisfies Record<Notification["kind"], string>;

/** Sends news to an incoming webhook of Slack, or of what understands the same. The URL is the secret, read anew each time. */
export function slackChannel(url: () => Promise<URL>): Channel {
  return {
    name: "slack",
    async send(notification, signal) {
      await post(await url(), { headers: {}, body: JSON.stringify(message(notification)) }, signal);
    },
  };
}

function message(notification: Notification): object {
  const { kind, run, result } = notification;
  const title = headline(notification);
  const facts = [
    ["Environment", run.environment],
    ["Run", run.id],
    ["Asked for by", run.caller.subject],
    ["Release", result?.release?.digest ?? ""],
  ].filter(([, value]) => value !== "");
  const pipeline = pipelineUrl(notification);
  const hint = result === null ? null : errorOf(result)?.hint;
  return {
    // what notifications show, and readers who cannot see blocks
    text: escape(`${title}: ${summary(notification)}`),
    blocks: [
      { type: "header", text: { type: "plain_text", text: cut(`${signs[kind]} ${title}`, most.header) } },
      section(summary(notification)),
      ...(hint ? [section(hint)] : []),
      {
        type: "section",
        fields: facts.map(([name = "", value = ""]) => ({
          type: "mrkdwn",
          text: `*${name}*\n${escape(cut(value, most.field - 100))}`,
        })),
      },
      ...(pipeline === undefined
        ? []
        : [
            {
              type: "actions",
              elements: [
                { type: "button", text: { type: "plain_text", text: "Open the pipeline" }, url: pipeline },
              ],
            },
          ]),
    ],
  };
}

function section(text: string): object {
  return { type: "section", text: { type: "plain_text", text: cut(text, most.field) } };
}

/** Slack's three characters, so that nothing in a message becomes a mention or a link. */
function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
