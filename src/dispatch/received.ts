import type { BucketEvent, Decoded } from "../event/event.ts";
import type { LogRecord } from "../report/log.ts";
import type { WokenBy } from "./waker.ts";

type Sender = Pick<WokenBy, "issuer" | "subject">;

/** Characters of what an event names, in the log. */
const maxShown = 200;

/** The line of the log for a payload that can wake nobody; undefined where the waker has one to write. */
export function lineOf(
  decoded: Exclude<Decoded, { readonly kind: "batch" }>,
  by: Sender,
): LogRecord | undefined {
  const { issuer, subject } = by;
  switch (decoded.kind) {
    case "events":
      return decoded.events.length > 0
        ? undefined
        : received("info", { via: decoded.via, provider: null, result: "nothing", issuer, subject });
    case "test":
      return received("info", { via: decoded.via, provider: "s3", result: "test", issuer, subject });
    case "unknown":
      return received("warn", {
        via: null,
        provider: null,
        result: "unknown",
        reason: decoded.reason,
        issuer,
        subject,
      });
  }
}

/** The line for an object that no target watches, or none that its sender may wake. */
export function lineOfNobody(
  { provider, bucket, key }: BucketEvent,
  { via, issuer, subject }: Sender & Pick<WokenBy, "via">,
): LogRecord {
  const shown = { bucket: clip(bucket), key: clip(key) };
  return received("info", { via, provider, result: "nobody", ...shown, issuer, subject });
}

function received(level: LogRecord["level"], fields: LogRecord["fields"]): LogRecord {
  return { level, event: "event.received", fields };
}

function clip(text: string): string {
  return text.length <= maxShown ? text : `${text.slice(0, maxShown).toWellFormed()}…`;
}
