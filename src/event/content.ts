import * as v from "valibot";
import type { BucketEvent, Decoded, EventPath, QueueMessage } from "./event.ts";

/** What is in one payload, or in one message of a queue. */
export type Content = QueueMessage["content"];

/** What a shape may look at besides the payload itself. */
export interface Reading {
  header(name: string): string | undefined;
  /** what is in a text within the payload, such as a topic's message in a queue's */
  inner(text: string): Content;
}

/** One service's payload: what is in it, or undefined where it is another's. */
export type Shape = (payload: unknown, reading: Reading) => Content | undefined;

/** Ceilings of payloads; counts and characters. */
export const eventLimits = {
  /** records of one payload: the largest batch that Lambda gives */
  records: 10_000,
  /** payloads as texts within payloads: S3 in SNS in SQS is two, and a bus before them one more */
  nesting: 3,
  /** one text within a payload: what SQS takes for a message */
  text: 1024 * 1024,
  /** 1024 bytes, each as `%xx` */
  key: 3 * 1024,
  bucket: 255,
  id: 1024,
} as const;

/** Text of at most `max` characters, and of one at the least. */
export function text(max: number) {
  return v.pipe(v.string(), v.minLength(1), v.maxLength(max));
}

/** A text or a number, as text: generations are either. */
export const textOrNumber = v.pipe(
  v.union([text(eventLimits.id), v.pipe(v.number(), v.safeInteger())]),
  v.transform(String),
);

/** Objects that were written. */
export function written(via: EventPath, events: readonly BucketEvent[]): Content {
  return { kind: "events", via, events };
}

/** A payload that nobody knows what to do with; `reason` is for the log and quotes nothing of it. */
export function unknown(reason: string): Extract<Decoded, { readonly kind: "unknown" }> {
  return { kind: "unknown", reason };
}

/** Several contents as one that came `via` a service: whatever can be read of them counts. */
export function merged(via: EventPath, contents: readonly Content[]): Content {
  const events = contents.flatMap((content) => (content.kind === "events" ? content.events : []));
  if (events.length > 0 || contents.some(({ kind }) => kind === "events")) return written(via, events);
  if (contents.some(({ kind }) => kind === "test")) return { kind: "test", via };
  return contents.find((content) => content.kind === "unknown") ?? unknown("nothing is in it");
}

/** The content as coming `via` a service, which gave it an id. */
export function passedOn(via: EventPath, content: Content, id: string): Content {
  switch (content.kind) {
    case "events":
      return written(
        via,
        content.events.map((event) => ({ ...event, id: event.id ?? id })),
      );
    case "test":
      return { kind: "test", via };
    case "unknown":
      return content;
  }
}
