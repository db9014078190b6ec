import * as v from "valibot";
import { eventLimits, text, unknown, written, type Content, type Shape } from "./content.ts";
import { gcsObject } from "./gcs-object.ts";

/** `OBJECT_METADATA_UPDATE`, `OBJECT_DELETE` and `OBJECT_ARCHIVE` are of nothing new. */
const finalized = "OBJECT_FINALIZE";

const attributesSchema = v.looseObject({
  eventType: text(eventLimits.id),
  bucketId: text(eventLimits.bucket),
  objectId: text(eventLimits.key),
  objectGeneration: v.optional(text(eventLimits.id)),
});

const pushSchema = v.looseObject({
  subscription: v.string(),
  message: v.looseObject({
    attributes: v.optional(v.unknown()),
    messageId: v.optional(text(eventLimits.id)),
  }),
});

/** GCS by way of a Pub/Sub push subscription: the attributes say all, whatever format the payload has. */
export const pubsubPush: Shape = (payload) => {
  const push = v.safeParse(pushSchema, payload, { abortEarly: true });
  if (!push.success) return undefined;
  const { attributes, messageId } = push.output.message;
  return ofAttributes(attributes, messageId);
};

/** The same from a subscription without wrapper: attributes are headers, where it was told to write them, and the body the object. */
export const pubsubUnwrapped: Shape = (payload, { header }) => {
  const messageId = header("x-goog-pubsub-message-id");
  const eventType = header("eventtype");
  const isOther = eventType !== undefined && eventType !== finalized;
  const object = v.is(v.looseObject({ kind: v.literal("storage#object") }), payload)
    ? gcsObject(payload, messageId)
    : undefined;
  // Also where no header says why: who is woken for nothing finds nothing to do.
  if (object !== undefined) return written("pubsub", isOther ? [] : [object]);
  if (messageId === undefined) return undefined;
  const [bucketId, objectId, objectGeneration] = ["bucketid", "objectid", "objectgeneration"].map(header);
  return ofAttributes({ eventType, bucketId, objectId, objectGeneration }, messageId);
};

function ofAttributes(attributes: unknown, messageId: string | undefined): Content {
  const read = v.safeParse(attributesSchema, attributes, { abortEarly: true });
  if (!read.success) return unknown("a message of Pub/Sub without the attributes of a bucket's notification");
  const { eventType, bucketId: bucket, objectId: name, objectGeneration: generation } = read.output;
  const event = eventType === finalized ? gcsObject({ bucket, name, generation }, messageId) : undefined;
  return written("pubsub", event === undefined ? [] : [event]);
}
