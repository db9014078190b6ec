import { createHmac } from "node:crypto";

import type { Channel } from "./channel.ts";
import { errorOf, type Notification } from "./notification.ts";
import { post } from "./post.ts";

/**
 * Sends news as CloudEvents 1.0 in structured JSON, `type` `lockkeeper.run.<kind>.v1`, signed as Standard Webhooks 1.0 says.
 *
 * @param options.secret - the HMAC's key, read anew for each message
 * @param options.source - base of the events' `source`: where callers reach the server, or ""
 */
export function webhookChannel(
  url: URL,
  options: { readonly source: string; secret(): Promise<Buffer>; now(): Date },
): Channel {
  return {
    name: `webhook ${url.origin}`,
    async send(notification, signal) {
      const body = JSON.stringify(cloudEvent(notification, options.source));
      // its id may hold no dot, which is what separates the parts that are signed
      const id = notification.id.replaceAll(".", "_");
      const timestamp = String(Math.floor(options.now().getTime() / 1000));
      const headers = {
        "content-type": "application/cloudevents+json",
        "webhook-id": id,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(await options.secret(), `${id}.${timestamp}.${body}`),
      };
      await post(url, { headers, body }, signal);
    },
  };
}

function sign(key: Buffer, text: string): string {
  return `v1,${createHmac("sha256", key).update(text).digest("base64")}`;
}

/** Closed and versioned by its type: what a receiver may rely on. */
function cloudEvent({ id, kind, at, run, result }: Notification, source: string): object {
  const { caller } = run;
  return {
    specversion: "1.0",
    id,
    type: `lockkeeper.run.${kind}.v1`,
    source: `${source}/v1/targets/${run.target}`,
    subject: run.id,
    time: at.toISOString(),
    datacontenttype: "application/json",
    data: {
      run: run.id,
      target: run.target,
      stream: run.stream,
      environment: run.environment,
      action: run.action,
      trigger: run.trigger,
      caller: { issuer: caller.issuer, subject: caller.subject, rule: caller.rule },
      labels: run.labels,
      status: result?.status ?? "running",
      outcome: result?.outcome ?? null,
      release: result?.release ?? null,
      from: result?.from?.version ?? null,
      to: result?.to?.version ?? null,
      done: result?.done.map(({ version, path, direction }) => ({ version, path, direction })) ?? [],
      left: result?.left ?? null,
      durationMs: result?.durationMs ?? null,
      error: result === null ? null : errorOf(result),
    },
  };
}
