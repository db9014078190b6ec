import { binaryCloudEvent, structuredCloudEvent } from "./cloud-event.ts";
import { eventLimits, merged, unknown, type Content, type Shape } from "./content.ts";
import type { Decoded } from "./event.ts";
import { eventBridge } from "./eventbridge.ts";
import { pubsubPush, pubsubUnwrapped } from "./pubsub.ts";
import { s3Records } from "./s3-records.ts";
import { s3Test } from "./s3-test.ts";
import { snsNotification, snsRecords } from "./sns.ts";
import { readBatch } from "./sqs.ts";

/** A request's header by its name in lower case. */
export type HeaderOf = (name: string) => string | undefined;

/** In this order: the first whose own marks a payload has. Where it came in says nothing. */
const shapes: readonly Shape[] = [
  snsRecords,
  s3Records,
  s3Test,
  eventBridge,
  snsNotification,
  pubsubPush,
  binaryCloudEvent,
  structuredCloudEvent,
  pubsubUnwrapped,
];

/**
 * What a storage service, or one that passes its notifications on, has sent. Never throws: what nobody knows is `unknown`.
 *
 * @param body - parsed JSON; undefined where there was none
 */
export function decodeEvent(body: unknown, header: HeaderOf = () => undefined): Decoded {
  const messages = readBatch(body, (text) => innerOf(text, 1));
  if (messages !== undefined) return { kind: "batch", messages };
  return contentOf(body, header, 0);
}

function contentOf(payload: unknown, header: HeaderOf, depth: number): Content {
  if (Array.isArray(payload)) return listed(payload, header, depth);
  const reading = { header, inner: (text: string) => innerOf(text, depth + 1) };
  for (const shape of shapes) {
    const content = shape(payload, reading);
    if (content !== undefined) return content;
  }
  return unknown(payload === undefined ? "nothing was sent" : "no service's payload that is known");
}

/** A bus of EventBridge that gathers events sends a list of them; lists in lists nobody sends. */
function listed(payloads: readonly unknown[], header: HeaderOf, depth: number): Content {
  if (payloads.length > eventLimits.records) return unknown(`a list of more than ${eventLimits.records}`);
  const contents = payloads.map((payload) =>
    Array.isArray(payload) ? unknown("a list in a list") : contentOf(payload, header, depth),
  );
  const via = contents.flatMap((content) => (content.kind === "unknown" ? [] : [content.via]));
  return merged(via[0] ?? "eventbridge", contents);
}

/** A text within a payload. Headers are of the whole, and say nothing of it. */
function innerOf(text: string, depth: number): Content {
  if (depth > eventLimits.nesting)
    return unknown(`messages in messages, more than ${eventLimits.nesting} deep`);
  let payload: unknown;
  try {
    payload = JSON.parse(text);
  } catch {
    return unknown("a message that is not JSON");
  }
  return contentOf(payload, () => undefined, depth);
}
