import type { BucketEvent, Decoded, EventPath } from "../event/event.ts";
import type { LogRecord } from "../report/log.ts";
import type { WokenBy } from "./waker.ts";

type Sender = Pick<WokenBy, "issuer" | "subject">;

/** Characters of what an event names, in the log. */
const maxShown = 200;

/** What a payload says of objects. */
export interface Received {
  readonly events: readonly BucketEvent[];
  /** what they came through, the first of them where it is several; undefined where nothing was of a known kind */
  readonly via: EventPath | undefined;
}

/**
 * What a payload says of objects, all messages of a batch together. What of it can wake nobody is logged.
 *
 * @param senderOf - who sent what came through `via`
 */
export function receive(
  decoded: Decoded,
  senderOf: (via: EventPath | "unknown") => Sender,
  log: (record: LogRecord) => void,
): Received {
  const contents = decoded.kind === "batch" ? decoded.messages.map(({ content }) => content) : [decoded];
  for (const content of contents) {
    const line = lineOf(content, senderOf(content.kind === "unknown" ? "unknown" : content.via));
    if (line !== undefined) log(line);
  }
  const known = contents.filter((content) => content.kind === "events");
  return { events: known.flatMap(({ events }) => events), via: known[0]?.via };
}

/** The line for an object that no target watches, or none that its sender may wake. */
export function lineOfNobody(
  { provider, bucket, key }: BucketEvent,
  { via, issuer, subject }: Sender & Pick<WokenBy, "via">,
): LogRecord {
  const shown = { bucket: clip(bucket), key: clip(key) };
  return received("info", { via, provider, result: "nobody", ...shown, issuer, subject });
}

/** The line of the log for what can wake nobody; undefined where the waker has one to write. */
function lineOf(
  decoded: Exclude<Decoded, { readonly kind: "batch" }>,
  { issuer, subject }: Sender,
): LogRecord | undefined {
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

function received(level: LogRecord["level"], fields: LogRecord["fields"]): LogRecord {
  return { level, event: "event.received", fields };
}

function clip(text: string): string {
  return text.length <= maxShown ? text : `${text.slice(0, maxShown).toWellFormed()}…`;
}
