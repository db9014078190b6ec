import * as v from "valibot";
import { eventLimits, text, unknown, written, type Content, type Shape } from "./content.ts";
import { gcsObject } from "./gcs-object.ts";

const objects = "google.cloud.storage.object.v1.";

const structuredSchema = v.looseObject({
  specversion: v.string(),
  type: text(eventLimits.id),
  id: v.optional(text(eventLimits.id)),
  data: v.optional(v.unknown()),
});

/** GCS by way of Eventarc, as a CloudEvent whose attributes are headers and whose data is the body. */
export const binaryCloudEvent: Shape = (payload, { header }) => {
  const type = header("ce-type");
  return type === undefined ? undefined : ofType(type, payload, header("ce-id"));
};

/** The same as one document, which Workflows sends. */
export const structuredCloudEvent: Shape = (payload) => {
  const read = v.safeParse(structuredSchema, payload, { abortEarly: true });
  return read.success ? ofType(read.output.type, read.output.data, read.output.id) : undefined;
};

function ofType(type: string, data: unknown, id: string | undefined): Content {
  if (!type.startsWith(objects)) return unknown("a CloudEvent of another type than a bucket's");
  if (type !== `${objects}finalized`) return written("eventarc", []);
  const object = gcsObject(data, id);
  return object === undefined
    ? unknown("a CloudEvent of a bucket without bucket and name")
    : written("eventarc", [object]);
}
