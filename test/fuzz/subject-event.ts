import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { decodeEvent } from "../../src/event/decode.ts";
import { eventLimits } from "../../src/event/content.ts";
import type { BucketEvent } from "../../src/event/event.ts";
import type { Subject } from "./subject.ts";

const folder = join(import.meta.dirname, "../vectors/events");

/** What reads the events of storage services. Everything may be sent; nothing may be thrown, and all that comes out is bounded. */
export const eventSubjects: readonly Subject[] = [
  {
    name: "bucket-event",
    corpus: readdirSync(folder).map((file) => readFileSync(join(folder, file))),
    words: ["aws:sqs", "aws:sns", "aws:s3", "ObjectCreated:Put", "%2F", "%zz", "OBJECT_FINALIZE", "ce-type"],
    read(input) {
      let vector: unknown;
      try {
        vector = JSON.parse(input.toString());
      } catch {
        return undefined; // the server itself parses it
      }
      const { body, headers } = (vector ?? {}) as { readonly body?: unknown; readonly headers?: unknown };
      const header = (name: string): string | undefined => {
        const value: unknown =
          typeof headers === "object" && headers !== null ? Reflect.get(headers, name) : undefined;
        return typeof value === "string" ? value : undefined;
      };
      const found = decodeEvent(body, header);
      const contents = found.kind === "batch" ? found.messages.map(({ content }) => content) : [found];
      const events = contents.flatMap((content) => (content.kind === "events" ? content.events : []));
      return events.every(isBounded) ? undefined : "an event with more than a bucket's or key's characters";
    },
  },
];

function isBounded({ provider, bucket, key, version, id }: BucketEvent): boolean {
  return (
    (provider === "s3" || provider === "gcs") &&
    bucket.length <= eventLimits.bucket &&
    key.length <= eventLimits.key &&
    (version ?? "").length <= eventLimits.id &&
    (id ?? "").length <= eventLimits.id
  );
}
