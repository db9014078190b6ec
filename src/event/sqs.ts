import * as v from "valibot";
import { eventLimits, passedOn, text, type Content } from "./content.ts";
import type { QueueMessage } from "./event.ts";

const sqs = v.literal("aws:sqs");
const batchSchema = v.pipe(
  v.array(
    v.looseObject({
      eventSource: sqs,
      messageId: text(eventLimits.id),
      body: v.pipe(v.string(), v.maxLength(eventLimits.text)),
      attributes: v.optional(v.looseObject({ MessageGroupId: v.optional(text(eventLimits.id)) }), {}),
    }),
  ),
  v.minLength(1),
  v.maxLength(eventLimits.records),
);
const recordsSchema = v.looseObject({ Records: batchSchema });

/** A batch of a queue's messages, as Lambda gives it, or a pipe of EventBridge as a bare list; undefined for anything else. */
export function readBatch(
  payload: unknown,
  inner: (text: string) => Content,
): readonly QueueMessage[] | undefined {
  const read = v.safeParse(v.union([recordsSchema, batchSchema]), payload, { abortEarly: true });
  if (!read.success) return undefined;
  const records = "Records" in read.output ? read.output.Records : read.output;
  return records.map(({ messageId, body, attributes }) => ({
    id: messageId,
    group: attributes.MessageGroupId ?? null,
    content: passedOn("sqs", inner(body), messageId),
  }));
}

/** What a function answers for a batch: which messages are to come again. Anything else in its place would lose them all. */
export interface BatchAnswer {
  readonly batchItemFailures: readonly { readonly itemIdentifier: string }[];
}

/**
 * The answer for a batch, in its order.
 *
 * @param failed - ids of messages that are to come again; of a FIFO queue's group those after them come again too, because
 *   the queue would else have given them out of their order
 */
export function answerBatch(messages: readonly QueueMessage[], failed: ReadonlySet<string>): BatchAnswer {
  const stopped = new Set<string>();
  const again = messages.filter(({ id, group }) => {
    const isAgain = failed.has(id) || (group !== null && stopped.has(group));
    if (isAgain && group !== null) stopped.add(group);
    return isAgain;
  });
  return { batchItemFailures: again.map(({ id }) => ({ itemIdentifier: id })) };
}
