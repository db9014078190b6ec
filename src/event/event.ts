/**
 * What a storage service says of one object: a hint that a bucket may have something new, never an order. Nothing in it is
 * used as an address: it is only compared with what targets watch.
 */
export interface BucketEvent {
  readonly provider: "s3" | "gcs";
  readonly bucket: string;
  /** the object's key, decoded */
  readonly key: string;
  /** S3's version id or GCS's generation, as text; null where the service says none */
  readonly version: string | null;
  /** of the delivery, for the log; null where there is none */
  readonly id: string | null;
}

/** What a payload was found to be. */
export type Decoded =
  /** objects that were written; none where the payload was of a known kind but about nothing of interest, such as a deletion */
  | { readonly kind: "events"; readonly via: EventPath; readonly events: readonly BucketEvent[] }
  /** a queue's batch, each message answered for by itself */
  | { readonly kind: "batch"; readonly messages: readonly QueueMessage[] }
  /** a service tries whether its notifications arrive */
  | { readonly kind: "test"; readonly via: EventPath }
  /** nothing that is known: to be answered as done, because whoever sends it would else send it for days */
  | { readonly kind: "unknown"; readonly reason: string };

/** One message of a queue. */
export interface QueueMessage {
  /** what `batchItemFailures` names it by */
  readonly id: string;
  /** of a FIFO queue: messages of one group are taken in their order; null otherwise */
  readonly group: string | null;
  readonly content: Exclude<Decoded, { readonly kind: "batch" }>;
}

/** The last service that a notification came through. */
export type EventPath = "s3" | "sns" | "sqs" | "eventbridge" | "pubsub" | "eventarc";
