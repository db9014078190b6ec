import * as v from "valibot";
import { eventLimits, text, unknown, written, type Shape } from "./content.ts";

const envelopeSchema = v.looseObject({
  source: v.string(),
  "detail-type": v.string(),
  id: v.optional(text(eventLimits.id)),
  detail: v.unknown(),
});

const detailSchema = v.looseObject({
  bucket: v.looseObject({ name: text(eventLimits.bucket) }),
  object: v.looseObject({
    key: text(eventLimits.key),
    "version-id": v.nullish(v.pipe(v.string(), v.maxLength(eventLimits.id))),
  }),
});

/** S3 by way of EventBridge: unlike in S3's own notification the key is not encoded. */
export const eventBridge: Shape = (payload) => {
  const envelope = v.safeParse(envelopeSchema, payload, { abortEarly: true });
  if (!envelope.success) return undefined;
  const { source, "detail-type": type, id = null, detail } = envelope.output;
  if (source !== "aws.s3") return unknown("an event of EventBridge from another source than aws.s3");
  if (type !== "Object Created") return written("eventbridge", []);
  const read = v.safeParse(detailSchema, detail, { abortEarly: true });
  if (!read.success) return unknown("an event of EventBridge that lacks its bucket or key");
  const { bucket, object } = read.output;
  const version = object["version-id"] ?? "";
  return written("eventbridge", [
    { provider: "s3", bucket: bucket.name, key: object.key, version: version === "" ? null : version, id },
  ]);
};
