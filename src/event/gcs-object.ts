import * as v from "valibot";
import { eventLimits, text, textOrNumber } from "./content.ts";
import type { BucketEvent } from "./event.ts";

const objectSchema = v.looseObject({
  bucket: text(eventLimits.bucket),
  name: text(eventLimits.key),
  generation: v.optional(textOrNumber),
});

/** An object of GCS as its API writes it, as an event; undefined where it is none. */
export function gcsObject(resource: unknown, id: string | undefined): BucketEvent | undefined {
  const read = v.safeParse(objectSchema, resource, { abortEarly: true });
  if (!read.success) return undefined;
  const { bucket, name, generation = null } = read.output;
  return {
    provider: "gcs",
    bucket,
    key: name,
    version: generation,
    id: id?.slice(0, eventLimits.id) ?? null,
  };
}
