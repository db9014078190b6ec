import * as v from "valibot";
import { eventLimits, merged, text, unknown, written, type Content, type Shape } from "./content.ts";

/** Servers that speak S3 write themselves in place of `aws`. */
const source = v.picklist(["aws:s3", "minio:s3", "ceph:s3"]);

const recordsSchema = v.looseObject({
  Records: v.pipe(
    v.array(v.unknown()),
    v.minLength(1),
    v.maxLength(eventLimits.records),
    v.check(([first]) => v.is(v.looseObject({ eventSource: source }), first)),
  ),
});

const recordSchema = v.looseObject({
  eventSource: source,
  eventName: text(eventLimits.id),
  responseElements: v.optional(v.looseObject({ "x-amz-request-id": v.optional(text(eventLimits.id)) }), {}),
  s3: v.looseObject({
    bucket: v.looseObject({ name: text(eventLimits.bucket) }),
    object: v.looseObject({
      key: text(eventLimits.key),
      versionId: v.nullish(v.pipe(v.string(), v.maxLength(eventLimits.id))),
    }),
  }),
});

/** S3's own notification, to a function, a queue or a topic. Any `eventVersion` of them is read alike. */
export const s3Records: Shape = (payload) => {
  const batch = v.safeParse(recordsSchema, payload, { abortEarly: true });
  if (!batch.success) return undefined;
  return merged("s3", batch.output.Records.map(contentOf));
};

function contentOf(record: unknown): Content {
  const read = v.safeParse(recordSchema, record, { abortEarly: true });
  if (!read.success) return unknown("a record of S3 that lacks its bucket, key or event name");
  const { eventName, s3, responseElements } = read.output;
  if (!/^(s3:)?ObjectCreated:/.test(eventName)) return written("s3", []);
  const key = decodeKey(s3.object.key);
  if (key === undefined) return unknown("a record of S3 whose key is not URL-encoded UTF-8");
  const version = s3.object.versionId ?? "";
  return written("s3", [
    {
      provider: "s3",
      bucket: s3.bucket.name,
      key,
      version: version === "" ? null : version,
      id: responseElements["x-amz-request-id"] ?? null,
    },
  ]);
}

/** A space comes as `+` from AWS and as `%20` from others, a slash as itself or as `%2F`. */
function decodeKey(key: string): string | undefined {
  try {
    return decodeURIComponent(key.replaceAll("+", " "));
  } catch {
    return undefined;
  }
}
