import * as v from "valibot";
import { eventLimits, merged, passedOn, text, unknown, type Content, type Shape } from "./content.ts";

const message = {
  MessageId: text(eventLimits.id),
  Message: v.pipe(v.string(), v.maxLength(eventLimits.text)),
};

const recordsSchema = v.looseObject({
  Records: v.pipe(
    v.array(v.unknown()),
    v.minLength(1),
    v.maxLength(eventLimits.records),
    v.check(([first]) => v.is(v.looseObject({ EventSource: v.literal("aws:sns") }), first)),
  ),
});
const recordSchema = v.looseObject({ Sns: v.looseObject(message) });

/** A topic that calls a function. */
export const snsRecords: Shape = (payload, { inner }) => {
  const batch = v.safeParse(recordsSchema, payload, { abortEarly: true });
  if (!batch.success) return undefined;
  const contents = batch.output.Records.map((record): Content => {
    const read = v.safeParse(recordSchema, record, { abortEarly: true });
    if (!read.success) return unknown("a record of SNS without a message");
    return passedOn("sns", inner(read.output.Sns.Message), read.output.Sns.MessageId);
  });
  return merged("sns", contents);
};

const notificationSchema = v.looseObject({ Type: v.literal("Notification"), ...message });
const subscriptionSchema = v.looseObject({
  Type: v.picklist(["SubscriptionConfirmation", "UnsubscribeConfirmation"]),
});

/** A topic's message as it is in a queue, or comes by HTTP. Its signature is the business of `/v1/hooks`: who is believed is known before. */
export const snsNotification: Shape = (payload, { inner }) => {
  if (v.is(subscriptionSchema, payload))
    return unknown(
      "a subscription to a topic of SNS that waits for its confirmation: those belong to /v1/hooks",
    );
  const read = v.safeParse(notificationSchema, payload, { abortEarly: true });
  if (!read.success) return undefined;
  return passedOn("sns", inner(read.output.Message), read.output.MessageId);
};
